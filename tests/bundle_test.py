import dataclasses
import io
import json

import jax
import ml_dtypes
import numpy as np
import pytest
from PIL import Image

import vlmjax
from tests.evaluate import tiny
from tests.train import tiny as train_tiny
from vlmjax import bundle, decode, param_rules, pretrained, sharding
from vlmjax.data.example import Turn
from vlmjax.errors import UserError
from vlmjax.weights import store

IMAGE = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
PROMPTS = ["<image>is it red?", "what color is it?"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    (run / "config.json").write_text('{"fingerprint": "of the run"}')
    pretrained.save(tiny.model(), run / "model")
    return run


def test_what_is_saved_is_loaded(saved):
    loaded = vlmjax.load(saved)
    assert sorted(p.name for p in (saved / "model").iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert (loaded.template, loaded.layout) == (tiny.model().template, tiny.LAYOUT)
    assert loaded.parts == tiny.model().parts
    jax.tree.map(np.testing.assert_array_equal, loaded.params, tiny.model().params)
    images = [[IMAGE], []]
    assert loaded.generate(PROMPTS, images, max_new_tokens=4) == tiny.model().generate(PROMPTS, images, max_new_tokens=4)
    # The encoder's last block belongs to CLIP; the language model reads the one before and does not compute it.
    assert sum(loaded.clip.encoder.segments) == sum(loaded.vlm.encoder.segments) + 1


def test_only_what_exists_is_written(tmp_path):
    language = tiny.model(without=("encoder", "projector", "text_tower", "contrast_head"))
    pretrained.save(language, tmp_path)
    assert {path.split("/")[0] for path in store.load(tmp_path)} == {"decoder"}
    loaded = pretrained.load(tmp_path)
    assert loaded.clip is None and loaded.vlm.encoder is None and list(loaded.parts) == ["decoder"]
    with pytest.raises(UserError, match="no text tower and contrast head"):
        loaded.image_features([IMAGE])
    towers = tiny.model(without=("projector", "decoder"))
    pretrained.save(towers, tmp_path)
    assert pretrained.load(tmp_path).vlm is None
    with pytest.raises(UserError, match="no language model"):
        pretrained.load(tmp_path).generate(["is it red?"])


def test_a_raw_prompt_is_continued_as_its_logits_say():
    model = tiny.model()
    logits = model.logits(PROMPTS[0], [IMAGE])
    assert logits.shape == (1 + 4 + 4, 48) and logits.dtype == np.float32  # <s>, 4 image tokens, is it red ?
    first = model.tokenizer.decode([logits[-1].argmax()])
    encoded = io.BytesIO()
    Image.fromarray(IMAGE).save(encoded, "png")
    for image in (IMAGE, Image.fromarray(IMAGE), encoded.getvalue()):
        assert model.generate(PROMPTS[:1], [[image]], max_new_tokens=1) == [first]
    assert not np.allclose(logits[-1], model.logits(PROMPTS[0], [255 - IMAGE])[-1])


def test_an_image_is_shown_in_tiles_and_its_tiles_are_the_image():
    """Two images of three and one places in one prompt; grown token by token, replied to, and given as what `tiles` made."""
    plain = dataclasses.replace(tiny.model(), _programs={})
    model = dataclasses.replace(plain, layout=dataclasses.replace(tiny.LAYOUT, resize="squash", tiles=2))
    wide = np.random.default_rng(1).integers(0, 256, (16, 40, 3), np.uint8)
    made = model.tiles(wide)
    assert made.shape == (3, 16, 16, 3) and model.tiles(made) is made and model.tiles(IMAGE).shape == (1, 16, 16, 3)
    np.testing.assert_array_equal(model.pixels(wide), made[-1])
    prompt, images = "<image>is it red?<image>", [wide, IMAGE]
    logits = model.logits(prompt, images)
    assert logits.shape == (1 + 12 + 4 + 4, 48)
    np.testing.assert_array_equal(model.logits(prompt, [made, IMAGE]), logits)
    # The same model without tiles, given each tile as an image of its own, computes the same.
    np.testing.assert_allclose(plain.logits("<image><image><image>is it red?<image>", [*made, IMAGE]), logits, rtol=1e-5, atol=1e-5)
    assert model.generate([prompt, "what color is it?"], [images, []], 3)[0] == model.generate([prompt], [images], 3)[0]
    turns = (Turn("user", "<image>what color is it?"),)
    assert "".join(model.stream(turns, [wide], 3)) == model.reply(turns, [made], 3)
    with pytest.raises(UserError, match=r"an array is u8\[height, width, 3\], not uint8\[3, 8, 8, 3\]"):
        model.tiles(made[:, :8, :8])
    with pytest.raises(UserError, match="1 images, but it marks 2 places with <image>"):
        model.reply((Turn("user", "<image><image>is it red?"),), [wide])


def test_towers_give_features():
    model = tiny.model()
    texts = model.text_features(["red", "blue square"])
    assert texts.shape == (2, 16) and model.image_features([IMAGE]).shape == (1, 16)
    np.testing.assert_allclose(model.text_features(["blue square"] * 2)[0], texts[1], rtol=1e-6)


@pytest.mark.parametrize("prompts, images, message", [
    (["<image>is it red?"], None, "prompt 0: marks 1 places with <image>, but has 0 images"),
    (["is it red?"], [[IMAGE]], "prompt 0: marks 0 places with <image>, but has 1 images"),
    (["is it red?"], [], "0 lists for 1 prompts"),
    (["<image>"], [[IMAGE[..., 0]]], r"not uint8\[16, 16\]"),
    (["is it purple?"], None, "'purple'"),
])
def test_wrong_prompts_are_refused(prompts, images, message):
    with pytest.raises(UserError, match=message):
        tiny.model().generate(prompts, images)


def spoil(run, path, arrays=lambda arrays: arrays, config=lambda config: config):
    store.save(path, arrays(dict(store.load(run / "model"))))
    for name in ("config.json", "tokenizer.json"):
        (path / name).write_text((run / "model" / name).read_text())
    about = json.loads((path / "config.json").read_text())
    config(about)
    (path / "config.json").write_text(json.dumps(about))


BIAS = "encoder/layers/1/mlp/up/bias"


@pytest.mark.parametrize("damage, message", [
    (dict(arrays=lambda a: {k: v for k, v in a.items() if k != BIAS}), f"lacks 1 parameters, the first is {BIAS}"),
    (dict(arrays=lambda a: a | {"decoder/other": a[BIAS]}), "does not know, 1 parameters, the first is decoder/other"),
    (dict(arrays=lambda a: a | {BIAS: a[BIAS][1:]}), rf"{BIAS} is float32\[31\], its config asks for float32\[32\]"),
    (dict(arrays=lambda a: a | {BIAS: a[BIAS].astype(np.float16)}), rf"{BIAS} is float16\[32\]"),
    (dict(config=lambda c: c["components"]["encoder"].update(depth=3)), "config.json: components.encoder.depth: no such key"),
    (dict(config=lambda c: c["components"].pop("decoder")), "a projector needs an encoder and a decoder"),
    (dict(config=lambda c: c.pop("layout")), "config.json: lacks layout"),
])
def test_a_model_that_is_not_what_its_config_says_is_refused(saved, tmp_path, damage, message):
    spoil(saved, tmp_path, **damage)
    with pytest.raises(UserError, match=message) as error:
        pretrained.load(tmp_path)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_a_directory_without_a_model_is_refused(tmp_path, saved):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="holds no model"):
        pretrained.load(tmp_path)
    with pytest.raises(UserError, match="dtype: 'float' is not one of"):
        pretrained.load(saved, dtype="float")


def test_bfloat16_is_for_matrices(saved):
    flat = param_rules.flatten(pretrained.load(saved, dtype="bfloat16").params)
    assert flat["decoder/layers/0-1/mlp/up/kernel"].dtype == flat["decoder/embed"].dtype == ml_dtypes.bfloat16
    assert flat["decoder/layers/0-1/norm1/scale"].dtype == flat["contrast_head/logit_scale"].dtype == np.float32


def test_a_mesh_changes_nothing(saved):
    """Parameters split over the mesh, rows that do not divide by it; also when trained parameters come on a mesh."""
    mesh = sharding.make_mesh(sharding.MeshConfig(fsdp=4, tensor=2))
    split = pretrained.load(saved, mesh=mesh)
    assert not split.params["decoder"]["embed"].sharding.is_fully_replicated
    images = [[IMAGE], []]
    assert split.generate(PROMPTS, images, max_new_tokens=4) == tiny.model().generate(PROMPTS, images, max_new_tokens=4)
    batch = split.raw_prompts(PROMPTS, images)[0]
    assert np.array_equal([*split.grow(batch, 4)][-1], split.answer(batch, 4))  # token by token, the state of answers lying on the mesh
    assert all(np.array_equal(leaf, tiny.parameters()[path]) for path, leaf in split.by_layer().items())
    placed = {path: jax.device_put(leaf, sharding.replicated(mesh)) for path, leaf in tiny.parameters().items()}
    again = bundle.make(train_tiny.modules(), placed, tiny.TOKENIZER, split.template, split.layout)
    assert again.mesh == mesh and again.params["decoder"]["embed"].sharding == split.params["decoder"]["embed"].sharding




def test_a_program_is_compiled_once_for_all_temperatures():
    model = tiny.model()
    model.generate(PROMPTS[1:], None, 4, decode.Sampling(0.5, 3), seed=1)
    programs = dict(model._programs)
    model.generate(PROMPTS[1:], None, 4, decode.Sampling(2.0, 0, 0.9), seed=2)
    assert model._programs == programs and [fn._cache_size() for fn in programs.values()] == [1] * len(programs)
