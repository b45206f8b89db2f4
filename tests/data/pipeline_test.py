import collections

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.images_test import HALF, raw_png
from tests.data.tiny import PROCESSOR, TOKENIZER, TinySource, captions, qa, questions, texts
from vlmjax.data.batch import BatchShape, check
from vlmjax.data.images import MAX_PIXELS
from vlmjax.data.pipeline import Pipeline
from vlmjax.errors import UserError

SHAPE = BatchShape(rows=2, length=40, images=1, targets=12, size=8)
PAIRS = BatchShape(rows=4, length=8, images=1, targets=0, size=8)


def pipeline(sources=None, objective="next_token", shape=SHAPE, seed=0, per_group=2):
    return Pipeline(sources or [(questions(), 1.0), (texts(), 1.0)], PROCESSOR, objective, shape, seed, per_group)


def equal(a, b):
    assert set(a) == set(b)
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)


@pytest.mark.parametrize(["objective", "shape", "sources"], [("next_token", SHAPE, None), ("contrastive", PAIRS, [(captions(), 1.0)])])
def test_batches_obey_the_contract(objective, shape, sources):
    made = pipeline(sources, objective, shape)
    for step in range(4):
        check(made.batch(step), objective, shape, TOKENIZER.vocabulary)


def test_rows_that_share_an_image_are_not_for_an_attention_that_reads_segments_alone():
    for per_group in (1, 2):
        batches = [pipeline([(questions(), 1.0)], per_group=per_group).batch(step) for step in range(4)]
        if per_group == 1:
            for batch in batches:
                check(batch, "next_token", SHAPE, TOKENIZER.vocabulary, by_segments=True)
    shared = next(batch for batch in batches if batch["parents"].any())
    with pytest.raises(UserError, match="parents is used, .* set attention='plain'"):
        check(shared, "next_token", SHAPE, TOKENIZER.vocabulary, by_segments=True)


def test_text_only_rows_need_no_image():
    shape = BatchShape(rows=2, length=40, images=0, targets=30, size=8)
    check(pipeline([(texts(), 1.0)], shape=shape).batch(0), "next_token", shape, TOKENIZER.vocabulary)


def test_an_epoch_shows_every_example_once_and_steps_count_its_rows():
    made = pipeline()
    rows = [[made.example(i).id for piece in row for i in piece] for row in made.rows(0)]
    everything = [e.id for source in (questions(), texts()) for e in source.examples]
    assert sorted(id_ for row in rows for id_ in row) == sorted(everything)
    assert made.steps(1) == -(-len(rows) // 2) and made.steps(2) == -(-(len(rows) + len(made.rows(1))) // 2)
    seen = [row for step in range(made.steps(1)) for row in made.ids(step)]
    assert seen[: len(rows)] == rows
    assert sum(made.examples(step) for step in range(made.steps(1))) >= len(everything)
    assert [made.supervised(step) for step in range(3)] == [made.batch(step)["weights"].sum() for step in range(3)]
    by_example = Pipeline([(questions(), 1.0), (texts(), 1.0)], PROCESSOR, "next_token", SHAPE, 0, 2, weighting="example")
    assert [by_example.supervised(step) for step in range(3)] == [made.supervised(step) for step in range(3)]
    np.testing.assert_allclose([by_example.batch(step)["weights"].sum() for step in range(3)], [made.examples(step) for step in range(3)], rtol=1e-6)


def test_pixels_are_those_of_the_example():
    made = pipeline()
    for step in range(made.steps(2)):
        batch = made.batch(step)
        for ids, pixels, mask in zip(made.ids(step), batch["pixels"], batch["image_mask"]):
            shown = {id_[1] for id_ in ids if id_[0] == "q"}
            assert mask.sum() == len(shown)
            assert all((pixels[0] == 40 * int(n)).all() for n in shown)


def test_rows_of_a_host_are_rows_of_the_batch():
    for objective, shape, sources in (("next_token", SHAPE, None), ("contrastive", PAIRS, [(captions(), 1.0)])):
        made = pipeline(sources, objective, shape)
        equal(made.batch(3, slice(1, 2)), {key: values[1:2] for key, values in made.batch(3).items()})


def test_any_step_in_any_order_in_another_process():
    ahead, back = pipeline(), pipeline()
    last = back.batch(20)
    equal([ahead.batch(step) for step in range(21)][20], last)
    assert any((pipeline(seed=1).batch(20)[key] != last[key]).any() for key in last)


def test_the_iterator_resumes_where_it_was():
    made = pipeline()
    for prefetch in (0, 2):
        iterator = made.iterator(3, 9, prefetch)
        got = [next(iterator), next(iterator)]
        state = iterator.get_state()
        got += list(iterator)
        assert len(got) == 6
        for step, batch in enumerate(got, start=3):
            equal(batch, made.batch(step))
        again = pipeline().iterator(3, 9, prefetch)
        again.set_state(state)
        equal(next(again), made.batch(5))


def test_a_mixture_takes_whole_passes_and_another_part_each_epoch():
    made = pipeline([(questions(), 2.0), (texts(), 0.5)])
    parts = []
    for epoch in range(8):
        seen = collections.Counter(made.example(i).id for row in made.rows(epoch) for piece in row for i in piece)
        assert all(seen[e.id] == 2 for e in questions().examples)
        parts.append({id_ for id_ in seen if id_[0] == "t"})
        assert len(parts[-1]) == 3
    assert set.union(*parts) == {e.id for e in texts().examples}


def test_a_mixture_by_weights_draws_shares_of_an_epoch():
    made = Pipeline([(questions(), 1.0), (texts(), 3.0)], PROCESSOR, "next_token", SHAPE, 0, 2, mixture="weights")  # 10 and 6 examples
    seen = [collections.Counter(made.example(i).id for row in made.rows(epoch) for piece in row for i in piece) for epoch in range(10)]
    for epoch in seen:
        assert sum(n for id_, n in epoch.items() if id_[0] == "q") == 4 and sum(epoch.values()) == 16
        assert all(epoch[e.id] == 2 for e in texts().examples)
    assert {id_ for epoch in seen for id_ in epoch if id_[0] == "q"} == {e.id for e in questions().examples}


def test_equal_captions_are_positives_of_each_other():
    made = pipeline([(captions(), 1.0)], "contrastive", PAIRS)
    for step in range(3):
        numbers = dict(zip((ids[0] for ids in made.ids(step)), made.batch(step)["pair"].tolist()))
        assert numbers["c0"] == numbers["c2"] and len(set(numbers.values())) == 3
        assert made.examples(step) == 4 and made.supervised(step) == 0


MISSING, PATH_FIRST, LOCKED = FileNotFoundError(2, "No such file or directory"), UserError("/a/i1.jpg: there is no such file"), PermissionError(13, "Permission denied")
BROKEN = [(b"", "empty file"), (b"<html>404</html>", "an HTML page, not an image"), (HALF["jpeg"], "truncated (JPEG)"), (questions().images["i1"][:50], "truncated (PNG)"),
          (raw_png(30000, 30000, 8, 2, ()), f"30000 x 30000 pixels, more than the {MAX_PIXELS} allowed"), (MISSING, "No such file or directory"),
          (PATH_FIRST, "there is no such file"), (LOCKED, "Permission denied")]


def spoiled(source, data, keys=("i1",)):
    return TinySource(source.name, source.examples, {**source.images, **{key: data for key in keys}})


def check_broken(whole, made, keys, steps):
    """Batches of `made`, in which the images `keys` are broken, are those of `whole` but for what shows them → all faults."""
    found = []
    for step in range(steps):
        want, got, ids = whole.batch(step), made.batch(step), whole.ids(step)
        assert whole.faults(step) == [] and made.ids(step) == ids and made.examples(step) == whole.examples(step)
        for key in set(want) - {"weights", "pixels", "image_mask"}:
            np.testing.assert_array_equal(got[key], want[key], err_msg=key)
        shown = np.isin(want["pixels"][:, :, 0, 0, 0], [40 * int(key[1]) for key in keys]) & want["image_mask"]  # the slots of the broken images
        np.testing.assert_array_equal(got["image_mask"], want["image_mask"] & ~shown)
        np.testing.assert_array_equal(got["pixels"], np.where(shown[:, :, None, None, None], 0, want["pixels"]))
        gone = lambda id_: id_[0] in "qc" and f"i{id_[1]}" in keys
        lost = 0
        for b, row in enumerate(ids if "weights" in want else ()):
            weights = np.repeat([not gone(id_) for id_ in row], [length_of(made, id_) for id_ in row])
            np.testing.assert_array_equal(got["weights"][b], np.pad(weights, (0, made.shape.targets - len(weights))))
            lost += (~weights).sum()
        assert [fault.example for fault in made.faults(step)] == [id_ for row in ids for id_ in row if gone(id_)]
        assert sum(fault.supervised for fault in made.faults(step)) == lost
        found += made.faults(step)
    return found


@pytest.mark.parametrize(["data", "reason"], BROKEN, ids=[reason for _, reason in BROKEN])
def test_a_broken_image_takes_the_weights_of_its_examples_and_leaves_every_other_row_alone(data, reason):
    shape = BatchShape(3, 60, 2, 24, 8)
    whole, made = (pipeline([(source, 1.0), (texts(), 1.0)], shape=shape) for source in (questions(), spoiled(questions(), data)))
    found = check_broken(whole, made, {"i1"}, made.steps(2))
    assert len(found) == 4 and {fault.reason for fault in found} == {reason}  # two questions, two epochs


@given(st.sets(st.sampled_from(["i0", "i1", "i2", "i3"])), st.integers(0, 99), st.integers(1, 4), st.integers(1, 3), st.booleans())
@settings(max_examples=40, deadline=None)
def test_whatever_is_broken_every_other_row_is_the_same(keys, seed, per_group, images, contrastive):
    shape = PAIRS if contrastive else BatchShape(2, 70, images, 24, 8)
    objective, source, rest = ("contrastive", captions(), []) if contrastive else ("next_token", questions(), [(texts(), 0.5)])
    whole, made = (pipeline([(s, 1.5), *rest], objective, shape, seed, per_group) for s in (source, spoiled(source, b"", keys)))
    check_broken(whole, made, keys, made.steps(2))


def length_of(made, id_):
    return next(int(made.table.supervised[i]) for i in range(made.total) if made.example(i).id == id_)


def test_an_example_with_several_images_loses_them_all_and_its_neighbour_none():
    images = questions().images
    source = TinySource("pairs", [qa("two", ("i1", "i2"), "is it red?", "yes"), qa("one", ("i3",), "is it red?", "no")], {**images, "i2": b""})
    made = pipeline([(source, 1.0)], shape=BatchShape(1, 60, 3, 12, 8))
    batch, (ids,) = made.batch(0), made.ids(0)
    order = [name for name in ids for _ in range(2 if name == "two" else 1)]
    assert batch["image_mask"][0].tolist() == [name == "one" for name in order]
    assert [int(pixels.max()) for pixels in batch["pixels"][0]] == [120 if name == "one" else 0 for name in order]
    assert [fault[:2] for fault in made.faults(0)] == [("two", "empty file")]
    assert batch["weights"].sum() == length_of(made, "one")


def test_faults_are_those_of_the_rows_that_a_host_makes_and_every_appearance_counts():
    source = spoiled(captions(), b"")
    hosts = [pipeline([(source, 2.0)], "contrastive", PAIRS) for _ in range(3)]
    parts = (slice(None), slice(0, 2), slice(2, 4))
    for step in range(4):
        for made, part in zip(hosts, parts):
            equal(made.batch(step, part), {key: values[part] for key, values in hosts[0].batch(step).items()})
        assert hosts[0].faults(step) == hosts[1].faults(step) + hosts[2].faults(step)
    assert sum(len(hosts[0].faults(step)) for step in range(4)) == 4 and hosts[0].total == 4


def test_prefetching_makes_batches_ahead_and_loses_no_fault():
    made = pipeline([(spoiled(questions(), b""), 1.0)])
    steps = made.steps(2)
    for _ in made.iterator(0, steps, prefetch=2):
        pass
    alone = pipeline([(spoiled(questions(), b""), 1.0)])
    for step in range(steps):
        alone.batch(step)
        assert made.faults(step) == alone.faults(step)


@pytest.mark.parametrize(
    ["arguments", "message"],
    [
        ({"shape": BatchShape(2, 11, 1, 12, 8)}, r"example q1.1: needs 12 tokens \(length\), the row has 11"),
        ({"shape": BatchShape(2, 40, 0, 12, 8)}, r"example q0.0: needs 1 images \(images\), the row has 0"),
        ({"shape": BatchShape(2, 40, 1, 1, 8)}, r"example q0.0: needs 2 supervised tokens \(targets\), the row has 1"),
        ({"shape": BatchShape(2, 40, 1, 12, 16)}, "images of 16 pixels, the encoder takes 8"),
        ({"shape": BatchShape(2, 11, 1, 12, 8)}, r"\(6 of 16 examples cannot be used, max_unusable is 0\)"),
        ({"sources": [(texts(), 0.0)]}, "texts has 6 examples and 0.0 passes"),
        ({"sources": [(TinySource("empty", [], {}), 1.0)]}, "empty has 0 examples"),
        ({"sources": [(texts(), 1.0)], "objective": "contrastive"}, "example t0: has 0 images"),
        ({"sources": [(captions(), 1.0)], "objective": "contrastive", "shape": BatchShape(2, 4, 1, 0, 8)}, "example c0: caption .* needs 5 tokens"),
        ({"objective": "other"}, "'other' is not one of"),
        ({"per_group": 0}, "per_group: 0"),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_batch(arguments, message):
    with pytest.raises(UserError, match=message):
        pipeline(**arguments)


def test_what_no_row_can_hold_is_left_out_and_said_when_that_is_tolerated():
    made = Pipeline([(questions(), 1.0), (texts(), 1.0)], PROCESSOR, "next_token", BatchShape(2, 11, 1, 12, 8), 0, 2, max_unusable=0.5)
    left_out = {made.example(i).id for i in made.unusable}
    assert left_out and all("needs 12 tokens" in reason or "needs 13 tokens" in reason for reason in made.unusable.values())
    seen = {made.example(i).id for row in made.rows(0) for piece in row for i in piece}
    assert seen | left_out == {e.id for source in (questions(), texts()) for e in source.examples} and not seen & left_out


@pytest.mark.parametrize(["failures", "broken"], [(2, 0), (3, 1)])
def test_a_store_that_fails_for_a_moment_is_asked_again(monkeypatch, failures, broken):
    monkeypatch.setattr("vlmjax.data.reading.RETRIES", (0.0, 0.0))
    source, calls = captions(), []

    def read(key):
        calls.append(key)
        if key == "i1" and calls.count(key) <= failures:
            raise ConnectionResetError(104, "Connection reset by peer")
        return source.images[key]

    source.read_image = read
    made = pipeline([(source, 1.0)], shape=BatchShape(4, 40, 1, 12, 8))
    assert made.batch(0)["image_mask"].sum() == 4 - broken
    assert [fault.reason for fault in made.faults(0)] == ["Connection reset by peer"] * broken
