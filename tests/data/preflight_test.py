import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.tiny import LAYOUT, PROCESSOR, TOKENIZER, TinySource, captions, png, qa, questions, texts
from vlmjax.data import facts, preflight
from vlmjax.data.batch import BatchShape
from vlmjax.data.conversation import TEMPLATES
from vlmjax.data.example import Example, Turn
from vlmjax.data.pipeline import Pipeline
from vlmjax.data.preflight import PreflightConfig
from vlmjax.data.processor import Processor
from vlmjax.errors import UserError

SHAPE = BatchShape(rows=2, length=40, images=1, targets=12, size=8)


def examine(sources, shape=SHAPE, objective="next_token", max_unusable=0.0, max_broken=0.0, **config):
    made = Pipeline([(source, 1.0) for source in sources], PROCESSOR, objective, shape, 0, 2, max_unusable=1.0)
    return preflight.examine("stages.x", made, PreflightConfig(**config), max_unusable, max_broken)


def with_rows(*more: Example) -> TinySource:
    source = questions()
    return dataclasses.replace(source, examples=[*source.examples, *more])


MUTE = Example("mute", (), (Turn("user", "is it red?"),))
LONG = qa("long", ("i0",), "is it red? " * 20, "yes")
SPELLED = qa("spelled", ("i0",), "is it red?", "yes </s>")


def test_good_data_has_no_problem():
    found = examine([questions(), texts()])
    assert not found.problems and not found.left_out and (found.examples, found.images, found.images_checked) == (16, 4, 4)


@pytest.mark.parametrize(["row", "reason"], [(MUTE, "no token is supervised"), (LONG, "tokens (length), the row has 40"), (SPELLED, "holds the special token </s>")])
def test_rows_that_cannot_be_learned_from_are_named(row, reason):
    found = examine([with_rows(row)])
    (problem,) = found.problems
    assert problem.startswith("stages.x: 1 of 11 examples cannot be used (max_unusable is 0)") and reason in problem and row.id in problem
    assert not examine([with_rows(row)], max_unusable=0.1).problems


def test_rows_that_a_source_left_out_count_too():
    source = questions()
    source.faults = {"row 7": "2 images, but its turns mark 1 places with <image>"}
    (problem,) = examine([source]).problems
    assert "1 of 11 examples" in problem and "row 7" in problem


def test_reasons_that_differ_in_numbers_are_one_kind():
    found = preflight.tally([("a", "needs 12 tokens"), ("b", "needs 1,300 tokens"), ("c", "empty"), ("d", "the text 'x' holds 1"), ("e", "the text 'y' holds 1")])
    assert [(t.count, t.of) for t in found] == [(2, ("a", "b")), (2, ("d", "e")), (1, ("c",))]
    assert str(found[0]) == "2 x needs 12 tokens: a, b"


def test_unreadable_images_are_counted_from_the_manifest_or_by_decoding_some():
    source = captions()
    source.images = {**source.images, "i1": b"", "i3": b"<html>"}
    found = examine([source], shape=BatchShape(4, 40, 1, 12, 8), max_broken=0.25)
    assert found.problems[0].startswith("stages.x: 2 of 4 images cannot be read (max_broken is 0.25)")
    assert "has no manifest" in examine([source], shape=BatchShape(4, 40, 1, 12, 8), max_broken=1.0, images=3).notes[0]
    source.facts = facts.gather(list(source.images), source.read_image)
    assert examine([source], shape=BatchShape(4, 40, 1, 12, 8), max_broken=0.25, images=0).problems[0].startswith(found.problems[0][:59])


def text_of(spans):
    return "".join(f"[{text}]" if kind == "image" else f"⟦{text}⟧" if kind == "supervised" else text for kind, text in spans if kind != "next")


def test_a_row_shows_the_image_once_and_marks_what_is_supervised():
    spans = preflight.show(PROCESSOR, [questions().examples[1:3]])
    assert text_of(spans) == "<s>[4]is it red?⟦yes </s>⟧what color is it?⟦red </s>⟧"
    assert [kind for kind, _ in spans if kind == "next"] == ["next"]
    assert text_of(preflight.show(PROCESSOR, [[captions().examples[0]]], "contrastive")) == "[4]a red square"


words = st.lists(st.sampled_from(["is", "it", "red", "a", "blue", "square"]), min_size=1, max_size=4).map(" ".join)


@given(st.lists(st.tuples(words, words), min_size=1, max_size=4), st.integers(0, 2), st.sampled_from(["plain_qa", "vicuna", "turns"]))
def test_exactly_the_answers_and_their_ends_are_supervised(pairs, images, kind):
    """On random conversations, in three templates: the marked text is the assistant's, with the end of a turn, and nothing else is."""
    template = {"plain_qa": TEMPLATES["plain_qa"], "vicuna": dataclasses.replace(TEMPLATES["vicuna_v1"], first="a ", user=("is ", " "), assistant=("it ", "")),
                "turns": dataclasses.replace(TEMPLATES["plain_qa"], user=("is ", " "), assistant=("it ", " square"), end=" red")}[kind]  # fmt: skip
    turns = [turn for question, answer in pairs for turn in (Turn("user", question), Turn("assistant", answer))]
    turns[0] = Turn("user", "<image>" * images + turns[0].text)
    example = Example("e", tuple(f"i{n}" for n in range(images)), tuple(turns))
    processor = Processor(TOKENIZER, template, LAYOUT)
    marked = [text.split() for what, text in preflight.show(processor, [[example]]) if what == "supervised"]
    assert marked == [[*answer.split(), *template.end.split(), "</s>"] for _, answer in pairs]
    encoded = processor.encode(example.turns)
    assert TOKENIZER.decode(encoded.targets, special=True).split() == [word for words in marked for word in words]


def evaluation(pixels) -> TinySource:
    source = TinySource("held/test", [qa(f"e{n}", (f"e{n}",), "is it red?", "yes") for n in range(len(pixels))], {f"e{n}": png(p) for n, p in enumerate(pixels)})
    source.facts = facts.gather(list(source.images), source.read_image)
    return source


def test_an_evaluation_image_in_the_training_data_is_found():
    rng = np.random.default_rng(0)
    pictures = [np.kron(rng.integers(0, 256, (8, 8, 3), np.uint8), np.ones((4, 4, 1), np.uint8)) for _ in range(6)]
    train = TinySource("mine/train", [qa(f"q{n}", (f"p{n}",), "is it red?", "yes") for n in range(4)], {f"p{n}": png(p) for n, p in enumerate(pictures[:4])})
    train.facts = facts.gather(list(train.images), train.read_image)
    other, same = evaluation(pictures[4:]), evaluation([pictures[4], pictures[2][::2, ::2], pictures[5]])
    assert preflight.overlap("task", other, {"align": [train], "instruct": [train]}, 0.0) == ([], [])
    (problem,), _ = preflight.overlap("task", same, {"align": [train]}, 0.0)
    assert problem.startswith("evaluate: 1 of 3 images of task are in the training data of stages.align") and "e1 is p2" in problem
    problems, notes = preflight.overlap("task", same, {"align": [train]}, 0.5)
    assert not problems and "which is tolerated" in notes[0]
    _, notes = preflight.overlap("task", same, {"align": [captions()]}, 0.0)
    assert notes == ["task: whether its images are in captions is not checked: captions has no manifest"]


def test_all_reasons_are_said_at_once():
    preflight.refuse([])
    with pytest.raises(UserError, match="preflight: one | two"):
        preflight.refuse(["one", "two"])
