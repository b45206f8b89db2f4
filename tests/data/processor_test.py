import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.tiny import LAYOUT, PROCESSOR, TILED, TOKENIZER, captions, qa, questions, texts
from vlmjax.data.conversation import TEMPLATES
from vlmjax.data.example import Example, Turn
from vlmjax.data.processor import Processor
from vlmjax.errors import UserError

BOS, EOS, IMG = TOKENIZER.bos, TOKENIZER.eos, TOKENIZER.image
PAIR = [qa("a", ("k",), "is it red?", "yes"), qa("b", ("k",), "what color is it?", "red")]


def ids(text):
    return TOKENIZER.encode(text)


def test_two_questions_about_one_image_and_a_text():
    """A whole row, by hand."""
    text = Example("t", (), (Turn("assistant", "no"),))
    row, keys = PROCESSOR.row([PAIR, [text]], length=24, images=2, targets=8)
    assert keys == ["k"]
    expected = {
        "tokens": [BOS, IMG, IMG, IMG, IMG, *ids("is it red? yes"), EOS, *ids("what color is it? red"), EOS, BOS, *ids("no"), EOS, 0, 0, 0],
        "segments": [1] * 5 + [2] * 6 + [3] * 7 + [4] * 3 + [0] * 3,
        "parents": [0] * 5 + [1] * 6 + [1] * 7 + [0] * 6,
        "positions": [0, 1, 2, 3, 4, *range(5, 11), *range(5, 12), 0, 1, 2, 0, 0, 0],
        "image_slots": [-1, 0, 1, 2, 3] + [-1] * 19,
        "prefix": [False] * 24,
        "targets": [*ids("yes"), EOS, *ids("red"), EOS, *ids("no"), EOS, 0, 0],
        "target_positions": [8, 9, 15, 16, 18, 19, 0, 0],
        "weights": [1, 1, 1, 1, 1, 1, 0, 0],
    }
    assert set(row) == set(expected)
    for key, values in expected.items():
        np.testing.assert_array_equal(row[key], values, err_msg=key)


def test_the_second_group_s_image_has_the_next_slots_and_who_shares_with_nobody_is_one_segment():
    row, keys = PROCESSOR.row([[PAIR[0]], [qa("c", ("x", "y"), "is it red?", "no")]], length=40, images=3, targets=4)
    assert keys == ["k", "x", "y"]
    slots = row["image_slots"]
    np.testing.assert_array_equal(slots[slots >= 0], np.arange(12))
    assert (row["tokens"][slots >= 0] == IMG).all() and set(row["segments"][slots >= 4]) == {2}
    assert sorted(set(row["segments"])) == [0, 1, 2] and not row["parents"].any()


def test_an_answer_right_behind_the_image_is_predicted_by_the_image():
    row, _ = PROCESSOR.row([[captions().examples[0], qa("d", ("i0",), "", "red")]], length=24, images=1, targets=8)
    assert row["target_positions"][:6].tolist() == [4, 5, 6, 7, 4, 9]
    assert row["targets"][:6].tolist() == [*ids("a red square"), EOS, *ids("red"), EOS]


def test_an_answer_before_the_last_image_is_supervised_for_each_example_that_shares_it():
    history = (Turn("user", "<image>is it red?"), Turn("assistant", "yes"), Turn("user", "<image>what color is it?"))
    group = [Example(str(i), ("x", "y"), (*history, Turn("assistant", answer))) for i, answer in enumerate(("red", "blue"))]
    table = PROCESSOR.measure(group)
    assert [getattr(table, name).tolist() for name in ("head", "tail", "supervised", "images", "group")] == [[15, 15], [7, 7], [4, 4], [2, 2], [0, 0]]
    row, _ = PROCESSOR.row([group], length=32, images=2, targets=8)
    assert row["target_positions"].tolist() == [8, 9, 19, 20, 8, 9, 26, 27]
    assert row["weights"].sum() == 8


def test_what_a_token_counts_follows_from_its_example_alone():
    long, short = qa("d", ("k",), "", "a red square"), PAIR[0]
    for weighting, of_four, of_two in (("token", 1, 1), ("example", 1 / 4, 1 / 2), ("sqrt", 1 / 2, 2**-0.5)):
        row, _ = PROCESSOR.row([[long, short], [short]], length=40, images=2, targets=10, weighting=weighting)
        np.testing.assert_array_equal(row["weights"], np.float32([of_four] * 4 + [of_two] * 4 + [0] * 2))


@given(st.lists(st.sampled_from([*questions().examples, *captions().examples, *texts().examples]), min_size=1, max_size=6))
def test_every_target_is_the_token_behind_its_place(examples):
    numbers = PROCESSOR.measure(examples).group.tolist()
    groups = [[e for e, n in zip(examples, numbers) if n == number] for number in dict.fromkeys(numbers)]
    row, _ = PROCESSOR.row(groups, length=128, images=8, targets=64)
    answers = [[*ids(e.turns[-1].text), EOS] for group in groups for e in group]
    real = row["weights"] > 0
    assert row["targets"][real].tolist() == [id_ for answer in answers for id_ in answer]
    segments, positions, parents = row["segments"], row["positions"], row["parents"]
    for target, place in zip(row["targets"][real], row["target_positions"][real]):
        behind = (positions == positions[place] + 1) & ((segments == segments[place]) | (parents == segments[place])) & (row["tokens"] == target)
        assert segments[place] > 0 and behind.any()


def test_rows_are_row_by_row():
    groups = [[[e] for e in questions().examples[:2]], [], [[e] for e in texts().examples]]
    together, keys = PROCESSOR.rows(groups, 64, 2, 40)
    for r, row in enumerate(groups):
        alone, alone_keys = PROCESSOR.row(row, 64, 2, 40)
        assert keys[r] == alone_keys
        for key, values in alone.items():
            np.testing.assert_array_equal(together[key][r], values, err_msg=key)
            assert together[key].dtype == values.dtype


def test_an_image_of_several_tiles_is_as_many_places_one_after_the_other():
    """By hand: two questions about an image of three tiles, then one about images of two and one."""
    pair = [qa("c", ("x", "y"), "is it red?", "no")]
    row, keys = TILED.row([PAIR, pair], length=60, images=6, targets=8, tiles=[(3,), (2, 1)])
    assert keys == ["k", "k", "k", "x", "x", "y"]
    tail = [*ids("is it red? yes"), EOS, *ids("what color is it? red"), EOS]
    np.testing.assert_array_equal(row["tokens"][:26], [BOS, *[IMG] * 12, *tail])
    np.testing.assert_array_equal(row["image_slots"], [-1, *range(12), *[-1] * 14, *range(12, 24), *[-1] * 21])
    assert row["positions"][13] == row["positions"][19] == 13 and row["segments"][26] == 4 and row["tokens"][39:43].tolist() == ids("is it red?")
    for example, tiles, targets in ((PAIR[0], (3,), 2), (pair[0], (2, 1), 2)):
        assert TILED.lengths(example, tiles) == (1 + 4 * sum(tiles), 6, targets, sum(tiles))


def test_the_marks_of_a_family_stand_once_around_an_image():
    around = [TOKENIZER.encode(word)[0] for word in ("square", "blue")]
    tokenizer = type(TOKENIZER)(TOKENIZER._backend, {"bos": BOS, "eos": EOS, "image": IMG}, (), around)
    head = Processor(tokenizer, TILED.template, TILED.layout).encode(PAIR[0].turns, tiles=(3,)).head
    assert head.tokens.tolist() == [BOS, around[0], *[IMG] * 12] and head.slots.tolist() == [-1, -1, *range(12)]


@given(st.lists(st.lists(st.integers(1, 5), max_size=3), min_size=1, max_size=5))
def test_what_an_example_needs_is_what_its_tiles_have(tiles):
    """Lengths from a table that is cut, from laying out, and from the row: the same; each tile has P slots of its own, in order."""
    examples = [qa(f"e{n}", tuple(f"{n}.{i}" for i in range(len(own))), "is it red?", "yes") for n, own in enumerate(tiles)]
    table = TILED.cut(TILED.measure(examples), np.array([sum(own) for own in tiles]))
    row, keys = TILED.row([[e] for e in examples], 400, 80, 40, tiles=[tuple(own) for own in tiles])
    for i, (example, own) in enumerate(zip(examples, tiles)):
        need = TILED.lengths(example, tuple(own))
        assert table.need(i) == (need.head + need.tail, need.images, need.supervised) and need.images == sum(own)
        assert need.tail + need.head == PROCESSOR.lengths(example).head + PROCESSOR.lengths(example).tail + 4 * (sum(own) - len(own))
    total = sum(map(sum, tiles))
    slots = row["image_slots"]
    assert len(keys) == total and slots[slots >= 0].tolist() == list(range(4 * total))
    assert keys == [f"{n}.{i}" for n, own in enumerate(tiles) for i, count in enumerate(own) for _ in range(count)]
    assert (row["segments"] > 0).sum() == (table.head + table.tail).sum()


def test_ones_are_as_if_nothing_was_said():
    for one, other in zip(PROCESSOR.rows([[PAIR], []], 24, 1, 8), PROCESSOR.rows([[PAIR], []], 24, 1, 8, tiles=[[(1,)], []])):
        np.testing.assert_equal(one, other)


def test_tiles_of_another_number_of_images_are_refused():
    with pytest.raises(UserError, match="example a: conversation: 2 images, but it marks 1 places with <image>"):
        TILED.row([PAIR], 60, 6, 8, tiles=[(1, 2)])


def test_a_prompt_row_is_the_training_row_without_answers():
    trained, _ = PROCESSOR.row([PAIR], length=24, images=1, targets=8)
    asked, keys = PROCESSOR.prompt_row([(("k",), [e.turns[:1] for e in PAIR])], length=24, images=1, questions=3)
    assert keys == ["k"]
    assert asked["weights"].tolist() == [1, 1, 0] and asked["targets"].tolist() == [0, 0, 0]
    for example, place, segment, first_target in zip(PAIR, asked["target_positions"], (2, 3), (0, 2)):
        prompt = asked["tokens"][asked["segments"] == segment].tolist()
        assert prompt == ids(example.turns[0].text.removeprefix("<image>"))
        assert trained["tokens"][trained["segments"] == segment][: len(prompt)].tolist() == prompt
        assert asked["positions"][place] == trained["positions"][trained["target_positions"][first_target]]
        assert asked["segments"][place] == segment and asked["parents"][place] == 1


def test_a_prompt_of_an_image_alone_is_answered_from_its_last_token():
    row, _ = PROCESSOR.prompt_row([(("k",), [(Turn("user", "<image>"),)])], length=8, images=1, questions=1)
    assert row["target_positions"].tolist() == [4] and row["weights"].tolist() == [1]


def test_a_caption_for_the_text_tower():
    row = PROCESSOR.caption_row("a red square", 6)
    assert row["tokens"].tolist() == [BOS, *ids("a red square"), EOS, 0]
    assert row["segments"].tolist() == [1] * 5 + [0]
    with pytest.raises(UserError, match=r"needs 5 tokens \(length\), the row has 4"):
        PROCESSOR.caption_row("a red square", 4)


@pytest.mark.parametrize(
    ["length", "images", "targets", "message"],
    [
        (17, 1, 4, r"example b: needs 18 tokens \(length\), the row has 17"),
        (18, 0, 4, r"example a: needs 1 images \(images\), the row has 0"),
        (18, 1, 3, r"example b: needs 4 supervised tokens \(targets\), the row has 3"),
    ],
)
def test_what_does_not_fit_is_named(length, images, targets, message):
    PROCESSOR.row([PAIR], 18, 1, 4)
    with pytest.raises(UserError, match=message):
        PROCESSOR.row([PAIR], length, images, targets)


def test_refusals():
    with pytest.raises(UserError, match="example t: .* holds the special token </s>"):
        PROCESSOR.lengths(Example("t", (), (Turn("assistant", "yes</s> no"),)))
    with pytest.raises(UserError, match="example t: .* no token is supervised"):
        PROCESSOR.lengths(Example("t", (), (Turn("user", "yes"),)))
    with pytest.raises(UserError, match="example a: .* no image encoder"):
        Processor(TOKENIZER, TEMPLATES["plain_qa"]).lengths(PAIR[0])
    with pytest.raises(UserError, match="1 images, but it marks 0 places"):
        PROCESSOR.prompt_row([(("k",), [(Turn("user", "is it red?"),)])], 24, 1, 1)
    with pytest.raises(ValueError, match="does not share"):
        PROCESSOR.row([[PAIR[0], qa("z", ("other",), "is it red?", "yes")]], 40, 2, 8)
    assert LAYOUT.tokens_per_image == 4
