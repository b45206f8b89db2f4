"""Rows of images in tiles: planned from sizes, filled with what each image is cut into."""
import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.images_test import HALF
from tests.data.tiny import PROCESSOR, SHAPES, TILED, TOKENIZER, qa, shapes, texts
from vlmjax.data import facts, images, measure, preflight, shards, tiles
from vlmjax.data.batch import BatchShape, check
from vlmjax.data.datasets import built
from vlmjax.data.pipeline import Pipeline

COUNTS = {key: count for key, (*_, count) in SHAPES.items()}
SHAPE = BatchShape(rows=2, length=64, images=7, targets=12, size=8)


def pipeline(*sources, shape=SHAPE, seed=0, per_group=2, **more):
    return Pipeline([(source, 1.0) for source in sources or (shapes(), texts())], TILED, "next_token", shape, seed, per_group, **more)


def with_facts(source):
    source.facts = facts.gather(list(source.images), source.read_image)
    return source


def test_sizes_come_from_a_manifest_or_from_headers(monkeypatch):
    plain, known = shapes(), with_facts(shapes())
    monkeypatch.setattr("vlmjax.data.images.decode", lambda data: pytest.fail("decoded"))
    for keys in (None, list(COUNTS)):
        assert tiles.count(plain, TILED.layout, keys).of(COUNTS) == tuple(COUNTS.values())
    known.images = {}
    assert tiles.count(known, TILED.layout).of(COUNTS) == tuple(COUNTS.values())
    assert tiles.count(plain, PROCESSOR.layout) is tiles.count(plain, None) is None


def test_an_image_whose_size_cannot_be_read_is_one_tile():
    source = shapes()
    source.images |= {"wide": b"<html>", "tall": FileNotFoundError(2, "No such file or directory"), "large": HALF["png"]}
    large = TILED.layout.count(40, 40)
    assert tiles.count(source, TILED.layout).of(COUNTS) == (1, 1, 1, large) and tiles.count(with_facts(source), TILED.layout).of(COUNTS) == (1, 1, 1, 1)


def test_a_built_set_is_planned_as_its_source_and_reads_no_example_again(tmp_path, monkeypatch):
    shards.build(shapes(), tmp_path / "mine", "spec", 1, 3)
    whole, part = (built.open_source(tmp_path, name, "all") for name in ("mine", "mine[2:6]"))
    table = lambda source: measure.table(source, TILED, "next_token", 0, tiles.count(source, TILED.layout))
    of_source, first = table(shapes()), table(whole)
    assert of_source.images.tolist() == [1, 3, 4, 5, 3, 5, 0] and first.digest() == of_source.digest()
    assert table(part).images.tolist() == [4, 5, 3, 5]
    monkeypatch.setattr(built.Examples, "__getitem__", lambda *_: pytest.fail("read again"))
    assert table(whole).digest() == first.digest() and table(part).images.tolist() == [4, 5, 3, 5]
    # One file serves every layout, also those that cut nothing.
    assert measure.table(whole, PROCESSOR, "next_token", 0).images.tolist() == [1, 1, 1, 1, 1, 2, 0]
    six = dataclasses.replace(TILED.layout, tiles=1)
    assert measure.table(whole, type(TILED)(TOKENIZER, TILED.template, six), "next_token", 0, tiles.count(whole, six)).images.sum() == 7


def cut(source, key):
    return images.prepare(source.images[key], TILED.layout)


def check_rows(made, source):
    """Every example has its tiles in its slots → ids that came."""
    seen = []
    for step in range(made.steps(1)):
        batch = made.batch(step)
        check(batch, "next_token", made.shape, TOKENIZER.vocabulary)
        for b, row in enumerate(made._rows_of(step)):
            want = [tile for piece in row for key in made.example(piece[0]).images for tile in cut(source, key)]
            np.testing.assert_array_equal(batch["image_mask"][b], np.arange(made.shape.images) < len(want))
            np.testing.assert_array_equal(batch["pixels"][b, : len(want)], np.array(want, np.uint8).reshape(-1, 8, 8, 3))
            slots = batch["image_slots"][b]
            assert slots[slots >= 0].tolist() == list(range(4 * len(want)))
            seen += [made.example(i).id for piece in row for i in piece]
    return seen


@given(st.integers(0, 99), st.integers(5, 20), st.integers(1, 3), st.booleans())
@settings(max_examples=20, deadline=None)
def test_rows_hold_the_tiles_of_their_images_and_no_budget_is_passed(seed, places, per_group, manifest):
    source = with_facts(shapes()) if manifest else shapes()
    made = pipeline(source, texts(), shape=BatchShape(2, 64, places, 12, 8), seed=seed, per_group=per_group)
    assert set(check_rows(made, source)) == {e.id for e in [*source.examples, *texts().examples]}
    for row in made.rows(0):
        assert sum(made.table.images[piece[0]] for piece in row) <= places


def test_an_image_with_more_tiles_than_a_row_has_places_is_left_out():
    made = pipeline(shape=dataclasses.replace(SHAPE, images=4), max_unusable=1.0)
    assert {made.example(i).id: reason for i, reason in made.unusable.items()} == {id_: "needs 5 images (images), the row has 4" for id_ in ("large", "both")}


@pytest.mark.parametrize("key, data", [("wide", b""), ("tall", FileNotFoundError(2, "No such file or directory")), ("large", HALF["png"])])
def test_a_broken_image_keeps_its_places_with_weight_0(key, data):
    source = shapes()
    source.images[key] = data
    made = pipeline(source)
    broken = {e.id for e in source.examples if key in e.images}
    faults = []
    for step in range(made.steps(1)):
        batch = made.batch(step)
        for b, row in enumerate(made._rows_of(step)):
            lost = [made.example(piece[0]).id in broken for piece in row]
            want = np.repeat([not gone for gone in lost], [made.table.images[piece[0]] for piece in row])
            assert batch["image_mask"][b, : len(want)].tolist() == want.tolist() and not batch["pixels"][b][~batch["image_mask"][b]].any()
            weights = np.repeat([not gone for gone, piece in zip(lost, row) for _ in piece], [made.table.supervised[i] for piece in row for i in piece])
            np.testing.assert_array_equal(batch["weights"][b, : len(weights)], weights)
        faults += made.faults(step)
    assert {fault.example for fault in faults} == broken


def test_an_image_that_has_changed_since_rows_were_planned_is_broken():
    source = shapes()
    made = pipeline(source, texts())
    source.images["wide"] = source.images["large"]
    for step in range(made.steps(1)):
        made.batch(step)
    found = [fault for step in range(made.steps(1)) for fault in made.faults(step)]
    assert {fault.example for fault in found} == {"wide", "wide2"} and {fault.reason for fault in found} == {"has 5 tiles, and 3 when the rows were planned"}


def test_preflight_shows_tiles_and_their_tokens():
    made = pipeline()
    shown = preflight.show(TILED, [[qa("both", ("tall", "square"), "is it red?", "yes")], [made.example(6)]], tiles=[(4, 1), ()])
    assert [text for kind, text in shown if kind == "image"] == ["4 tiles, 16", "4"]
    found = preflight.examine("stages.x", made, preflight.PreflightConfig(samples=9, images=2), 0.0, 0.0)
    spans = [text for row in found.samples for kind, text in row if kind == "image"]
    assert sorted(spans) == sorted(["4", "4", "3 tiles, 12", "4 tiles, 16", "4 tiles, 16", "5 tiles, 20"] + ["3 tiles, 12"] * (len(spans) - 6))
    assert found.images == 4 and "the headers of all were read" in found.notes[0] and not found.problems
