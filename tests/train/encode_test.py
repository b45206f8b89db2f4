"""A frozen encoder that computes each image once: the same losses, and features that nothing else finds."""
import collections
import dataclasses
import json
import types

import jax
import numpy as np
import pytest

from tests.data.tiny import TOKENIZER, TinySource, png, qa, texts
from tests.train import tiny
from vlmjax import sharding
from vlmjax.data.batch import check
from vlmjax.data.conversation import TEMPLATES
from vlmjax.data.features import Damaged
from vlmjax.data.pipeline import Pipeline
from vlmjax.data.processor import Processor
from vlmjax.errors import UserError
from vlmjax.layout import ImageLayout
from vlmjax.models.lora import LoRAConfig
from vlmjax.train import build, encode, metrics, speed
from vlmjax.train.proof import ProofError
from vlmjax.train.truth import Truth

INSTRUCT = (("encoder/.*", False), (".*", True))
IMAGES = {f"i{n}": png(np.random.default_rng(n).integers(0, 256, (16, 20, 3), np.uint8)) for n in range(8)}


def stage(once=True, **more):
    return tiny.stage("instruct", **{"trainable": INSTRUCT, "batch": 2, "length": 40, "images": 3, "targets": 16, "steps": 3, "encode_once": once, **more})


def data(made, images=IMAGES, resize="crop", tiles=1):
    source = TinySource("questions", [qa(f"q{n}", (f"i{n}",), "is it red?", "yes") for n in range(8)], images)
    processor = Processor(TOKENIZER, TEMPLATES["plain_qa"], ImageLayout(16, 8, resize, tiles=tiles))
    return Pipeline([(source, 1.0), (texts(), 1.0)], processor, "next_token", dataclasses.replace(made.shape, features=None), 0, 1)


def encoder(made, seed=0):
    return Truth("unused", tiny.modules(), {}, seed, made.mesh).load(("encoder",), ())


def once(made, root, images=IMAGES, by_layer=None, progress=lambda done, of: None, resize="crop"):
    """→ (what the record says, what was said, the pipeline)."""
    said, pipeline = [], data(made, images, resize)
    return encode.once(made, by_layer or encoder(made), pipeline, root, said.append, progress), said, pipeline


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    root = tmp_path_factory.mktemp("features")
    made = stage()
    return made, root, once(made, root)


def test_losses_are_those_of_a_step_that_encodes(tmp_path, encoded):
    made, _, (found, said, pipeline) = encoded
    assert found["images"] == found["encoded"] == 8 and found["hits"] == found["broken"] == 0 and "encodes 8 of 8 images once, 0.0 MB" in said[0]
    plain = stage(False)
    outcomes = {"plain": tiny.run(plain, tmp_path / "plain", data=data(plain)), "once": tiny.run(made, tmp_path / "once", data=pipeline)}
    rows = {name: metrics.read(tmp_path / name, "instruct") for name in outcomes}
    assert len(rows["once"]) == 3 and [row["batch"] for row in rows["plain"]] == [row["batch"] for row in rows["once"]]
    for a, b in zip(rows["plain"], rows["once"]):
        assert set(a) == set(b)
        for key in set(a) - set(speed.KEYS):
            np.testing.assert_allclose(b[key], a[key], rtol=1e-6 if key == "loss" else 1e-4, err_msg=key)
    record = outcomes["once"].record
    assert "encoder" not in record["frozen"] and "encoder" not in record["optimizer_bytes"] and record["flops_per_step"] < outcomes["plain"].record["flops_per_step"]
    assert not any("encoder" in path for path in made.labels) and "pixels" not in made.abstract_batch()


def test_features_are_bitwise_what_the_encoder_gives(encoded):
    made, _, (_, _, pipeline) = encoded
    plain = stage(False)
    params = {"encoder": jax.tree.map(np.asarray, encode.param_rules.unflatten(encode.stacks.place(encoder(made), made.encoder.params))["encoder"])}
    batch, want = pipeline.batch(0), data(plain).batch(0)
    check(batch, "next_token", made.shape, 48)
    got = jax.jit(lambda own, pixels: encode.vlm.features(made.encoder.module, own, pixels))(params["encoder"], want["pixels"].reshape(6, 16, 16, 3))
    np.testing.assert_array_equal(batch["features"].reshape(6, 4, 16)[want["image_mask"].ravel()], np.asarray(got)[want["image_mask"].ravel()])
    assert not batch["features"][~batch["image_mask"]].any() and batch["image_mask"].any()
    for key in set(want) - {"pixels"}:
        np.testing.assert_array_equal(batch[key], want[key])


def test_a_qformer_reads_the_class_token_too(encoded, tmp_path):
    """Its features are others than those of the same encoder for a projector that does not."""
    parts = lambda: tiny.modules(projector=build.Component("test-qformer"))
    made, plain = stage(parts=parts()), stage(False, parts=parts())
    found, _, pipeline = once(made, tmp_path)
    assert found["key"] != encoded[2][0]["key"] and made.shape.features.patches == 5
    batch, want = pipeline.batch(0), data(plain).batch(0)
    own = encode.param_rules.unflatten(encode.stacks.place(encoder(made), made.encoder.params))["encoder"]
    got = jax.jit(lambda own, pixels: encode.vlm.features(made.encoder.module, own, pixels, tokens=5))(own, want["pixels"].reshape(6, 16, 16, 3))
    seen = want["image_mask"].ravel()
    np.testing.assert_array_equal(batch["features"].reshape(6, 5, 16)[seen], np.asarray(got)[seen])


def test_every_tile_of_an_image_has_features_of_its_own(encoded, tmp_path):
    """Images of 3, 4 and 1 tiles, as many at once as there is room for: what the encoder gives of each tile, in the order of its places."""
    made, plain, said = stage(images=4, steps=4), stage(False, images=4, steps=4), []
    pictures = {f"i{n}": png(np.random.default_rng(n).integers(0, 256, sides, np.uint8)) for n, sides in enumerate([(16, 32, 3), (16, 20, 3), (48, 16, 3)] * 3)}
    pipeline, pixels = data(made, pictures, "squash", 3), data(plain, pictures, "squash", 3)
    found = encode.once(made, encoder(made), pipeline, tmp_path, said.append)
    shown = {n for step in range(4) for row in pixels.ids(step) for n in row if n[0] == "q"}
    tiles = sum((3, 1, 4)[int(id_[1]) % 3] for id_ in shown)
    assert found["images"] == found["encoded"] == len(shown) and found["bytes"] == tiles * made.shape.features.nbytes and found["key"] != encoded[2][0]["key"]
    params = encode.param_rules.unflatten(encode.stacks.place(encoder(made), made.encoder.params))["encoder"]
    for step in range(4):
        batch, want = pipeline.batch(step), pixels.batch(step)
        for key in set(want) - {"pixels"}:
            np.testing.assert_array_equal(batch[key], want[key])
        got = encode.vlm.features(made.encoder.module, params, want["pixels"].reshape(8, 16, 16, 3))
        np.testing.assert_allclose(batch["features"].reshape(8, 4, 16), np.where(want["image_mask"].reshape(8, 1, 1), got, 0), rtol=1e-4, atol=1e-5)
    again = encode.once(made, encoder(made), data(made, pictures, "squash", 3), tmp_path, said.append)
    assert (again["hits"], again["encoded"], again["key"]) == (len(shown), 0, found["key"])


def test_a_second_run_encodes_nothing(encoded, monkeypatch):
    made, root, (first, _, pipeline) = encoded
    monkeypatch.setattr(encode.vlm, "features", lambda *_: pytest.fail("encoded again"))
    found, said, again = once(made, root)
    assert (found["hits"], found["encoded"], found["key"]) == (8, 0, first["key"]) and "the features of all 8 images are in" in said[0]
    np.testing.assert_array_equal(again.batch(1)["features"], pipeline.batch(1)["features"])


def flipped(by_layer):
    """One bit of one weight is another."""
    out, path = dict(by_layer), "encoder/layers/1/mlp/up/kernel"
    bits = np.array(out[path]).view(np.uint32)
    bits[3, 5] ^= 1
    out[path] = bits.view(np.float32)
    return out


@pytest.mark.parametrize("change", ["a bit of the encoder", "the resize rule", "the type of activations", "the storage of what is frozen", "the feature layer", "the versions"])
def test_features_of_anything_else_are_never_found(encoded, tmp_path, monkeypatch, change):
    made, root, (first, _, _) = encoded
    more = {}
    if change == "a bit of the encoder":
        more["by_layer"] = flipped(encoder(made))
    elif change == "the resize rule":
        more["resize"] = "squash"
    elif change == "the type of activations":
        made = stage(precision=build.Precision(compute="bfloat16"), parts=tiny.modules("bfloat16"))
    elif change == "the storage of what is frozen":
        made = stage(precision=build.Precision(compute="float32", frozen="bfloat16"))
    elif change == "the feature layer":
        parts = tiny.modules()
        parts["encoder"] = parts["encoder"].clone(config=dataclasses.replace(parts["encoder"].config, feature_layer=-1))
        made = stage(parts=parts)
    else:
        monkeypatch.setattr(encode.importlib.metadata, "version", lambda name: "another")
    found, _, _ = once(made, root, **more)
    assert found["key"] != first["key"] and (found["hits"], found["encoded"]) == (0, 8)


def test_a_changed_image_is_encoded_and_one_of_another_name_is_found(encoded):
    made, root, _ = encoded
    other = {**IMAGES, "i3": png(np.zeros((16, 16, 3), np.uint8)), "i5": IMAGES["i1"]}
    found, _, pipeline = once(made, root, other)
    assert (found["images"], found["hits"], found["encoded"]) == (7, 6, 1)
    shown = {id_: pipeline.batch(step)["features"][row, slot] for step in range(3) for row, ids in enumerate(pipeline.ids(step)) for slot, id_ in enumerate(i for i in ids if i[0] == "q")}
    np.testing.assert_array_equal(shown["q5"], shown["q1"])
    assert (shown["q3"] != shown["q1"]).any()


def test_broken_images_are_what_they_are_without(encoded, tmp_path):
    made, root, _ = encoded
    broken = {**IMAGES, "i1": b"", "i4": IMAGES["i4"][:60], "i6": UserError("i6: is not there")}
    found, _, pipeline = once(made, root, broken)
    plain = data(stage(False), broken)
    assert found["broken"] == 3 and found["encoded"] == 0
    for step in range(3):
        want, got = plain.batch(step), pipeline.batch(step)
        assert plain.faults(step) == pipeline.faults(step)
        for key in set(want) - {"pixels"}:
            np.testing.assert_array_equal(want[key], got[key])
        assert not got["features"][~got["image_mask"]].any()
    assert sum(len(plain.faults(step)) for step in range(3)) >= 3


def test_a_pass_that_is_killed_loses_its_last_part_only(tmp_path, monkeypatch):
    made = stage()
    monkeypatch.setattr(encode, "PART_BYTES", 1)  # a part for every six images: a micro-batch

    def kill(done, of):
        if done > 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        once(made, tmp_path, progress=kill)
    found, said, _ = once(made, tmp_path)
    assert (found["hits"], found["encoded"]) == (6, 2) and "not whole" not in said[0]


def test_a_part_that_is_not_whole_does_not_count_and_a_damaged_record_stops(encoded, tmp_path):
    made, _, _ = encoded
    found, _, _ = once(made, tmp_path)
    (file,) = (tmp_path / found["key"]).glob("*.array_record")
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    again, said, _ = once(made, tmp_path)
    assert (again["hits"], again["encoded"]) == (0, 8) and "1 parts there are not whole" in said[0]
    file.unlink()
    (index,) = (path for path in (tmp_path / found["key"]).glob("*.json") if path.name not in ("about.json", file.with_suffix(".json").name))
    part = json.loads(index.read_text())
    index.write_text(json.dumps({**part, "images": [[sha, crc ^ 1] for sha, crc in part["images"]]}))
    again, _, pipeline = once(made, tmp_path)
    assert again["encoded"] == 0
    with pytest.raises(Damaged, match="is not what was written; remove .* and run again"):  # and no image is taken to be broken
        pipeline.batch(0)
    index.write_text(index.read_text()[:50])
    assert once(made, tmp_path)[0]["encoded"] == 8


def test_a_disk_without_room_is_refused_before_anything_is_encoded(tmp_path, monkeypatch):
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(encode.shutil, "disk_usage", lambda path: usage(0, 0, 2000))
    with pytest.raises(UserError, match=r"stages.instruct.encode_once: the features of 8 images are 0.0 GB, and .* has room for 0.0; make it a link to a larger disk, or set it to False"):
        once(stage(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_eight_devices_make_the_features_of_one(encoded, tmp_path):
    _, _, (_, _, one) = encoded
    mesh = sharding.make_mesh(sharding.MeshConfig(replica=1, fsdp=4, tensor=2))
    made = stage(mesh=mesh, batch=4)
    found, _, pipeline = once(made, tmp_path)
    assert found["encoded"] == 8
    np.testing.assert_allclose(sorted(pipeline.batch(0)["features"].sum((2, 3)).ravel()), sorted(np.concatenate([one.batch(step)["features"].sum((2, 3)).ravel() for step in (0, 1)])), rtol=1e-4, atol=1e-4)


def dropping():
    parts = tiny.modules()
    parts["encoder"] = parts["encoder"].clone(config=dataclasses.replace(parts["encoder"].config, lora=LoRAConfig(rank=2, alpha=4.0, dropout=0.1)))
    return parts


@pytest.mark.parametrize("more, message", [
    (dict(trainable=((r"encoder/layers/1/mlp/.*", True), ("encoder/.*", False), (".*", True))), r"encoder/layers/1/mlp/down/bias learns in this stage, .*freeze encoder/\.\*"),
    (dict(objective="contrastive", trainable=((".*", True),), length=8, images=1), "a contrastive stage has no use for it"),
    (dict(images=0, trainable=((".*", True),)), "the stage has no images"),
    (dict(parts="dropping"), "adapters of the encoder drop out"),
])
def test_what_has_no_features_to_keep_is_refused(more, message):
    more = {**more, "parts": dropping()} if more.get("parts") else more
    with pytest.raises(UserError, match=rf"^stages.instruct.encode_once: .*{message}"):
        stage(**more)


def test_several_processes_are_refused():
    mesh = types.SimpleNamespace(devices=np.array([types.SimpleNamespace(process_index=n) for n in (0, 1)]), shape={"replica": 1, "fsdp": 2, "tensor": 1})
    with pytest.raises(UserError, match="stages.align.encode_once: features are kept by one process, and this mesh has several; set it to False"):
        tiny.config(encode_once=True).check("stages.align", mesh)


def test_a_stage_does_not_go_on_with_the_features_of_another_encoder(tmp_path, encoded):
    made, _, (found, _, pipeline) = encoded
    compiled = made.compile()
    tiny.run(made, tmp_path, data=pipeline, compiled=compiled, about={"encoder_sha256": found["encoder_sha256"]})
    with pytest.raises(ProofError, match="the frozen parameters are not those its checkpoint"):
        tiny.run(made, tmp_path, data=pipeline, compiled=compiled, about={"encoder_sha256": "another"})
