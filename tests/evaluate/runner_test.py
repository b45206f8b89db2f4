import dataclasses
import functools
import json

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from tests.data.tiny import TinySource, png
from tests.evaluate import tiny
from vlmjax.errors import UserError
from vlmjax.evaluate import runner, scoring
from vlmjax.evaluate.controls import derangement


def values(results, metric="exact_match"):
    return {control: results[control][metric]["value"] for control in ("real", "blind", "shuffled", "prior") if control in results}


def test_each_control_shows_what_it_says():
    results, predictions = runner.evaluate(tiny.oracle(), tiny.TASK, "", batch_rows=2)
    assert values(results)["real"] == 1.0 and values(results)["blind"] == 0.0
    items = tiny.items()
    assert [row["id"] for row in predictions[: len(items)]] == [item.id for item in items]
    assert {row["prediction"] for row in predictions if row["control"] == "blind"} == {"gray"}
    other = derangement((item.image for item in items), 0)
    same_color = np.mean([(int(item.image[1:]) - int(other[item.image][1:])) % 2 == 0 for item in items])
    assert values(results)["shuffled"] == pytest.approx(same_color)
    asked = [row for row in predictions if row["control"] == "prior"]
    assert [row["prediction"] for row in asked] == [tiny.prior("").get(item.question, "") for item in items]
    assert results["unparsed"] == {"real": 0, "blind": 15, "shuffled": 0, "prior": sum(row["prediction"] == "" for row in asked)}
    assert results["real"]["exact_match"]["n"] == 15 and results["real"]["exact_match/color"]["n"] == sum(item.kind == "color" for item in items)


def test_each_prompt_and_image_is_answered_once_by_one_program():
    oracle = tiny.oracle()
    runner.evaluate(oracle, tiny.TASK, "", batch_rows=3)
    # The images of one color are the same pixels under different keys: at most one answer per key.
    prompts = {item.question for item in tiny.items()}
    assert sum(count for (_, pixels), count in oracle.seen.items() if pixels[0] == 128) == len(prompts)
    assert sum(oracle.seen.values()) < 3 * len(tiny.items())
    assert len(oracle.shapes) == 1


@pytest.mark.parametrize("batch_rows", [1, 4, 50])
def test_answers_do_not_depend_on_batches_or_on_other_controls(batch_rows):
    together = runner.evaluate(tiny.oracle(), tiny.TASK, "", batch_rows=7)[1]
    for control in ("real", "shuffled"):
        alone = runner.evaluate(tiny.oracle(), tiny.TASK, "", controls=(control,), batch_rows=batch_rows)[1]
        assert alone == [row for row in together if row["control"] == control]


def test_a_limit_keeps_the_same_other_images():
    few, many = (runner.evaluate(tiny.oracle(), tiny.TASK, "", controls=("shuffled",), limit=limit)[1] for limit in (1, None))
    assert few == many[:1]


def test_a_sample_is_of_whole_images_and_keeps_the_same_other_images():
    whole, (results, some) = (runner.evaluate(tiny.oracle(), tiny.TASK, "", controls=("real", "shuffled"), sample=n, seed=3) for n in (None, 7))
    assert len(some) == 14 and results["provenance"]["sample"] == 7 and all(row in whole[1] for row in some)
    asked = [row["image"] for row in some if row["control"] == "real"]
    of = lambda image: sum(item.image == image for item in tiny.items())
    assert sum(asked.count(image) < of(image) for image in set(asked)) <= 1
    items = tiny.items()
    assert runner.draw(items, 10**6, 0) == items and len({tuple(i.id for i in runner.draw(items, 3, seed)) for seed in range(20)}) > 1


def test_images_of_several_tiles_are_asked_about_in_one_program_and_grey_has_as_many():
    """Images of one, three and four places; the derangement shows an item one of another number."""
    sides = {f"i{n}": ((16, 16), (16, 32), (48, 16))[n % 3] for n in range(5)}
    source = TinySource("tiny", [], {key: png(np.full((*sides[key], 3), tiny.COLORS[("red", "blue")[int(key[1]) % 2]], np.uint8)) for key in sides})
    oracle = dataclasses.replace(tiny.oracle(), layout=dataclasses.replace(tiny.LAYOUT, resize="squash", tiles=3))
    task = dataclasses.replace(tiny.TASK, open=lambda data_dir, split: (source, tiny.items()))
    results, predictions = runner.evaluate(oracle, task, "", batch_rows=2)
    plain = runner.evaluate(tiny.oracle(), tiny.TASK, "", batch_rows=2)[1]
    assert predictions == plain and values(results)["real"] == 1.0 and len(oracle.shapes) == 1
    count = {key: oracle.layout.count(width, height) for key, (height, width) in sides.items()}
    other = derangement(count, 0)
    asked = {(item.question, color(key), count[key]) for item in tiny.items() for key in (item.image, other[item.image])}
    asked |= {(item.question, "gray", count[item.image]) for item in tiny.items()}
    assert set(count.values()) == {1, 3, 4} and oracle.shown == asked
    with pytest.raises(UserError, match=r"item t/\d/\d: its prompt needs \d+ tokens \(length\), 20 are available"):
        runner.evaluate(oracle, task, "", length=20)


def color(key):
    return ("red", "blue")[int(key[1]) % 2]


def test_two_towers_choose_the_nearest_text():
    results, predictions = runner.evaluate(tiny.oracle(), dataclasses.replace(tiny.CHOICE, open=lambda *_: (tiny.source(), colors())), "", batch_rows=2)
    assert values(results, "accuracy")["real"] == 1.0
    assert {row["prediction"] for row in predictions if row["control"] == "blind"} == {"blue"}


def colors():
    return [item for item in tiny.items() if item.kind == "color"]


def test_what_does_not_fit_or_does_not_exist_is_refused():
    evaluate = functools.partial(runner.evaluate, task=tiny.TASK, data_dir="")
    with pytest.raises(UserError, match=r"item t/1/1: its prompt needs 10 tokens \(length\), 9 are available"):
        evaluate(tiny.oracle(), length=9)
    with pytest.raises(UserError, match="--control: 'blnd' is not known; did you mean 'blind'"):
        evaluate(tiny.oracle(), controls=("blnd",))
    with pytest.raises(UserError, match="are at least 1"):
        evaluate(tiny.oracle(), limit=0)
    with pytest.raises(UserError, match="no image encoder"):
        evaluate(tiny.model(without=("encoder", "projector", "text_tower", "contrast_head")))
    with pytest.raises(UserError, match="no text tower"):
        evaluate(tiny.model(without=("text_tower", "contrast_head")), task=tiny.CHOICE)
    broken = tiny.source()
    broken.images["i3"] = b"not an image"
    with pytest.raises(UserError, match="tiny: image i3: not a readable image"):
        evaluate(tiny.oracle(), task=dataclasses.replace(tiny.TASK, open=lambda *_: (broken, tiny.items())))


def test_results_are_merged_and_predictions_can_be_scored_again(tmp_path):
    results, predictions = runner.evaluate(tiny.oracle(), tiny.TASK, "")
    runner.write(tmp_path, "other", {"real": {}}, [])
    runner.write(tmp_path, "tiny", results, predictions)
    assert list(runner.read_results(tmp_path)) == ["other", "tiny"]
    assert runner.read_results(tmp_path)["tiny"] == json.loads(json.dumps(results))
    stored = runner.read_predictions(tmp_path, "tiny")
    assert stored == predictions
    assert {**scoring.rescore(stored, tiny.TASK), "provenance": results["provenance"]} == results
    assert scoring.rescore(stored, dataclasses.replace(tiny.TASK, parse=lambda text: None))["real"]["exact_match"]["value"] == 0
    assert "exact_match/color" in scoring.table({"tiny": results})
    with pytest.raises(UserError, match="nope.jsonl: is missing"):
        runner.read_predictions(tmp_path, "nope")


def test_provenance_changes_with_the_data():
    first = runner.data_hash(tiny.source(), tiny.items())
    spoiled = tiny.source()
    spoiled.images["i0"] += b"."
    assert first == runner.data_hash(tiny.source(), tiny.items())
    assert len({first, runner.data_hash(spoiled, tiny.items()), runner.data_hash(tiny.source(), tiny.items()[:-1])}) == 3


@hypothesis.given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 6)), min_size=1, max_size=40), st.integers(9, 40))
def test_plan_asks_every_request_once_within_its_shape(asked, length):
    requests = [runner.Request((), f"i{image}" if image else None) for image, _ in asked]
    lengths = [("head", 3, tail) if image else ("", 0, tail) for image, tail in asked]
    rows, T, Q = runner.plan(requests, lengths, length)
    assert sorted(i for row in rows for i in row) == list(range(len(asked)))
    for row in rows:
        assert len({requests[i].shown for i in row}) == 1 and len(row) <= Q
        assert lengths[row[0]][1] + sum(lengths[i][2] for i in row) <= T <= length


def test_the_dearer_a_token_the_more_questions_share_an_image():
    requests = [runner.Request((), str(image)) for image in range(20) for _ in range(12)]
    lengths = [("head", 90, 18)] * len(requests)
    counts = [runner.plan(requests, lengths, 2048, per_token)[2] for per_token in (0.0, 1e4)]
    assert counts[0] < counts[1] == 12


def test_two_items_of_one_id_are_refused():
    twice = dataclasses.replace(tiny.TASK, open=lambda data_dir, split: (tiny.source(), [*tiny.items(), tiny.items()[3]]))
    with pytest.raises(UserError, match="^tiny: 2 items have the id 't/2/0'$"):
        twice.read("")


@pytest.mark.parametrize("line, said", [("", "is empty; there is nothing to score again"), ("[1]", "line 1: is .1., not an object"), ('{"id": "a"}', "line 1: has no 'question'"),
                                        ('{"id": "a", "image": null, "question": "?", "answer": "b", "kind": "", "control": "real", "prediction": null}', "line 1: prediction: None is not a text")])
def test_predictions_that_are_damaged_are_said(tmp_path, line, said):
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions" / "tiny.jsonl").write_text(line)
    with pytest.raises(UserError, match=said):
        runner.read_predictions(tmp_path, "tiny")
