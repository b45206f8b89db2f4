"""The numbers of a heat map are what the model itself says of an answer when image tokens are replaced."""
import base64
import dataclasses
import functools
import io

import jax
import numpy as np
import pytest
from PIL import Image

from tests.data.tiny import TinySource, png
from tests.evaluate import tiny
from vlmjax import bundle, sharding
from vlmjax.data.conversation import TEMPLATES
from vlmjax.data.example import Example, Turn
from vlmjax.evaluate import dependence
from vlmjax.evaluate.task import Item
from vlmjax.layout import ImageLayout

P = tiny.LAYOUT.tokens_per_image
ANSWERS = [("is it red?", "yes"), ("what color is it?", "blue square"), ("is it blue?", "no")]


def examples():
    return [Example(str(n), ("i",), (Turn("user", f"<image>{question}"), Turn("assistant", answer))) for n, (question, answer) in enumerate(ANSWERS)]


def pictures(count, size=16):
    return list(np.random.default_rng(0).integers(0, 256, (count, size, size, 3)).astype(np.uint8))


@functools.cache
def program(name):
    return jax.jit(getattr(tiny.model().vlm, name))


def tokens(pixels):
    """f[P, D] of one image."""
    return np.asarray(program("image_tokens")(tiny.model().params, pixels[None, None])[0])


def log_probability(example, image_tokens):
    """One row by itself, from its logits, in float64."""
    model = tiny.model()
    row = {key: value[None] for key, value in model.processor.row([[example]], 16, 1, 4)[0].items()}
    logits = np.asarray(program("logits")(model.params, row | {"image_tokens": image_tokens[None]}), np.float64)[0]
    return sum((line[target] - np.log(np.sum(np.exp(line)))) * (weight > 0) for line, target, weight in zip(logits, row["targets"][0], row["weights"][0]))


def test_each_number_is_the_answer_with_those_tokens_replaced():
    model, images = tiny.model(), pictures(3)
    mean = np.random.default_rng(1).normal(size=(P, 16)).astype(np.float32)
    found = dependence.log_probabilities(model, examples(), images, mean, batch_rows=5)
    assert found.shape == (3, 2 + P)
    for example, image, numbers in zip(examples(), images, found):
        own = tokens(image)
        variants = [own, mean] + [np.where(np.arange(P)[:, None] == place, mean, own) for place in range(P)]
        np.testing.assert_allclose(numbers, [log_probability(example, variant) for variant in variants], rtol=1e-4)
    assert np.ptp(found, axis=1).min() > 1e-2  # the numbers differ, so the comparison could have failed


def test_an_answer_is_scored_as_the_door_scores_its_raw_text():
    model, (image,) = tiny.model(), pictures(1)
    logits = np.asarray(model.logits("<image>is it red? yes</s>", [image]), np.float64)
    log_p = logits - np.log(np.sum(np.exp(logits), axis=-1, keepdims=True))
    ids = [*model.tokenizer.encode("yes"), model.tokenizer.eos]
    want = sum(log_p[len(log_p) - len(ids) - 1 + n, id_] for n, id_ in enumerate(ids))
    found = dependence.log_probabilities(model, examples()[:1], [image], np.zeros((P, 16), np.float32))
    assert found[0, 0] == pytest.approx(want, rel=1e-4)


def test_a_token_that_is_the_mean_already_takes_nothing():
    model, images = tiny.model(), pictures(1)
    mean = np.zeros((P, 16), np.float32)
    mean[2] = tokens(images[0])[2]
    found = dependence.log_probabilities(model, examples()[:1], images, mean)[0]
    falls = np.abs(found[0] - found[2:])
    assert falls[2] < 1e-4 and np.delete(falls, 2).min() > 1e-3


@pytest.mark.parametrize("batch_rows", [1, 50])
def test_batches_and_meshes_change_nothing(batch_rows):
    model, images, reports = tiny.model(), pictures(3), []
    mean = dependence.mean_tokens(model, images)
    want = dependence.log_probabilities(model, examples(), images, mean, 5, lambda done, total: reports.append((done, total)))
    assert reports == [(5, 18), (10, 18), (15, 18), (18, 18)]
    mesh = sharding.make_mesh(sharding.MeshConfig(fsdp=4, tensor=2))
    split = bundle.make(tiny.tiny.modules(), tiny.parameters(), tiny.TOKENIZER, TEMPLATES["plain_qa"], tiny.LAYOUT, mesh)
    np.testing.assert_allclose(dependence.mean_tokens(split, images), mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(dependence.log_probabilities(split, examples(), images, mean, batch_rows), want, rtol=1e-4)


def test_the_mean_token_of_a_place_is_over_the_images():
    model, images = tiny.model(), pictures(11)
    np.testing.assert_allclose(dependence.mean_tokens(model, images), np.mean([tokens(image) for image in images], axis=0), rtol=1e-4, atol=1e-5)


def predictions(images=10, answer=lambda n: "yes"):
    source = TinySource("t", [], {f"i{n}": png(picture) for n, picture in enumerate(pictures(images, 20))})
    items = [Item(f"t/{n}", f"i{n}", (Turn("user", "<image>is it red?"),), "yes" if n % 3 else "no", "polar") for n in range(images)]
    rows = [{"id": item.id, "image": item.image, "kind": item.kind, "control": control, "prediction": answer(n), "correct": answer(n) == item.answer}
            for control in ("real", "blind") for n, item in enumerate(items)]
    return source, items, rows


def measure(model, made, each=2, **more):
    return dependence.measure(model, tiny.TASK, *made, each, **more)


def test_maps_are_of_real_answers_and_show_what_the_model_saw():
    """Of images of 20 pixels in patches of 8 the last four rows and columns are in no token."""
    parts = tiny.tiny.modules()
    parts["encoder"] = parts["encoder"].clone(config=dataclasses.replace(parts["encoder"].config, size=20))
    model = bundle.make(parts, tiny.parameters(), tiny.TOKENIZER, TEMPLATES["plain_qa"], ImageLayout(size=20, patch=8))
    source, items, rows = made = predictions()
    found = measure(model, made)
    right = {row["id"]: row["correct"] for row in rows}
    assert [right[one["id"]] for one in found["maps"]] == [False, False, True, True] and found["left_out"] == {} and found["mean_of"] == 10
    for one in found["maps"]:
        assert np.shape(one["falls"]) == (2, 2) and one["log_probability"] < 0 and one["prediction"] == "yes"
        key = next(row["image"] for row in rows if row["id"] == one["id"])
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(one["view"])))), model.pixels(source.read_image(key))[:16, :16])


def test_what_cannot_be_measured_is_said_or_has_no_map(capsys):
    model = tiny.model()
    found = measure(model, predictions(answer=lambda n: "purple" if n % 2 else "yes"), each=10)
    assert found["left_out"].keys() == {f"t/{n}" for n in range(1, 10, 2)} and all("'purple'" in why for why in found["left_out"].values()) and len(found["maps"]) == 5
    assert measure(model, predictions(dependence.FEWEST - 1)) is None and "no heat maps" in capsys.readouterr().out
    assert measure(dataclasses.replace(model, layout=dataclasses.replace(model.layout, tokens=3)), predictions()) is None
    assert "no heat maps: the 3 image tokens of this model stand for no squares of the image" in capsys.readouterr().out
    assert measure(tiny.model(("decoder",)), predictions()) is None and measure(tiny.model(("projector",)), predictions()) is None
    tiled = dataclasses.replace(model, layout=dataclasses.replace(model.layout, resize="squash", tiles=6))
    assert measure(tiled, predictions()) is None and "tiny: no heat maps: they are of images that are one tile, and this model cuts an image into up to 6" in capsys.readouterr().out
    source, items, rows = predictions()
    assert dependence.measure(model, tiny.CHOICE, source, items, rows, 2) is None


def test_without_maps_an_earlier_file_goes(tmp_path):
    dependence.write(tmp_path, "t", {"maps": []})
    assert (tmp_path / "maps" / "t.json").exists()
    for _ in range(2):
        dependence.write(tmp_path, "t", None)
        assert not (tmp_path / "maps" / "t.json").exists()
