"""Name tables: every layout of every family is read and written without loss, and what does not fit is named."""
import functools
import json

import jax.numpy as jnp
import numpy as np
import pytest

from vlmjax import pretrained, stacks, weights
from vlmjax.errors import UserError
from vlmjax.models.projector import ProjectorConfig
from vlmjax.train import build
from vlmjax.weights import table

VISION = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=8, patch_size=4)
CONFIGS = {
    "clip": dict(model_type="clip", projection_dim=8, vision_config=VISION, text_config=dict(hidden_size=12, intermediate_size=20, num_hidden_layers=3, num_attention_heads=2, vocab_size=40)),
    "llama": dict(model_type="llama", hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=40, rms_norm_eps=1e-5),
    "qwen2": dict(model_type="qwen2", hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=40,
                  rope_parameters={"rope_type": "default", "rope_theta": 1e6}, tie_word_embeddings=True),
}
CONFIGS["llava"] = dict(model_type="llava", vision_config=dict(VISION, model_type="clip_vision_model"), text_config=CONFIGS["llama"], image_token_index=39)
CASES = [(name, layout) for name in CONFIGS for layout in weights.FAMILIES[name].layouts]


@functools.cache
def model(name, layout=""):
    """→ (family, {path by layer: abstract leaf}, {path by layer: random array})."""
    family, sizes = weights.recognise(CONFIGS[name], "config.json")
    if layout == "original-linear":
        sizes["projector"] = ProjectorConfig(depth=1)
    abstract = stacks.expand(build.abstract_params(pretrained.modules(sizes, jnp.float32, name)))
    draw = np.random.default_rng(0)
    return family, abstract, {path: draw.normal(size=leaf.shape).astype(np.float32) for path, leaf in abstract.items()}


def same(a, b):
    assert set(a) == set(b) and all(np.array_equal(a[path], b[path]) for path in b)


@pytest.mark.parametrize("name, layout", CASES)
def test_a_layout_is_read_as_it_is_written(name, layout):
    family, abstract, arrays = model(name, layout)
    tensors = table.write(arrays, family.layouts[layout])
    same(family.read(tensors, abstract, "file"), arrays)
    buffers = {"vision_model.embeddings.position_ids": np.arange(5), "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(4), "context_length": np.array(77),
               "language_model.model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(4)}
    mine = {key: value for key, value in buffers.items() if any(table.re.fullmatch(pattern, key) for pattern in family.ignored)}
    assert mine
    same(family.read({**tensors, **mine}, abstract, "file"), arrays)


@pytest.mark.parametrize("name", CONFIGS)
def test_sizes_survive_a_config_that_we_write(name):
    family, sizes = weights.recognise(CONFIGS[name], "config.json")
    assert weights.recognise(json.loads(json.dumps(family.config(sizes))), "config.json") == (family, sizes)


def test_a_matrix_of_heads_lies_as_torch_has_it():
    """y = W x per head, against the definition."""
    family, abstract, arrays = model("llama")
    tensors = family.write(arrays)
    x = np.random.default_rng(1).normal(size=16).astype(np.float32)
    q = np.einsum("D,DNH->NH", x, arrays["decoder/layers/1/attention/q/kernel"])
    np.testing.assert_allclose((tensors["model.layers.1.self_attn.q_proj.weight"] @ x).reshape(4, 4), q, rtol=1e-5)
    o = np.einsum("NH,NHD->D", q, arrays["decoder/layers/1/attention/o/kernel"])
    np.testing.assert_allclose(tensors["model.layers.1.self_attn.o_proj.weight"] @ q.reshape(-1), o, rtol=1e-4)


def test_reading_copies_nothing():
    family, abstract, arrays = model("clip")
    tensors = family.write(arrays)
    views = family.read(tensors, abstract, "file")
    assert all(np.shares_memory(views[path], tensors[foreign]) for path, foreign in family.name_of(views).items())


@pytest.mark.parametrize("name, damage, message", [
    ("clip", lambda t: t.pop("text_projection.weight"), r"lacks 1 tensor \(text_projection.weight\)"),
    ("clip", lambda t: t.update(other=np.ones(1)), r"holds, beyond it, 1 tensor \(other\)"),
    ("clip", lambda t: t.update({"logit_scale": np.ones(1)}), r"logit_scale has the shape \[1\], its config asks for \[\]"),
    ("llama", lambda t: t.update({"model.norm.weight": np.ones(8)}), r"model.norm.weight has the shape \[8\], its config asks for \[16\]"),
    ("llama", lambda t: [t.pop(k) for k in list(t) if ".layers.1." in k], r"lacks 9 tensors \(model.layers.1.input_layernorm.weight, .* …\)"),
    ("llama", lambda t: t.update({k.replace("layers.1.", "layers.2."): v for k, v in t.items() if "layers.1." in k}), r"holds, beyond it, 9 tensors"),
    ("qwen2", lambda t: t.update({"lm_head.weight": np.ones((40, 16))}), "ties lm_head.weight to model.embed_tokens.weight, but the file holds two different"),
])
def test_what_does_not_fit_is_named(name, damage, message):
    family, abstract, arrays = model(name)
    tensors = family.write(arrays)
    damage(tensors)
    with pytest.raises(UserError, match=f"^dir: .*{message}"):
        family.read(tensors, abstract, "dir")


def test_what_nobody_computes_with_is_carried_along():
    norm = {"carried/vision_norm/scale": np.ones(16), "carried/vision_norm/bias": np.zeros(16)}
    for layout in weights.FAMILIES["llava"].layouts:
        family, abstract, arrays = model("llava", layout)
        tensors = table.write(arrays | norm, family.layouts[layout])
        assert len(tensors) == len(arrays) + 2 and sum("post_layernorm" in name for name in tensors) == 2
        same(family.read(tensors, abstract, "file"), arrays | norm)


@pytest.mark.parametrize("keys, message", [
    (dict(mm_vision_tower="openai/clip-vit-large-patch14-336", mm_projector_type="mlp2x_gelu", mm_vision_select_layer=-2), None),
    (dict(mm_vision_tower="openai/clip-vit-large-patch14"), None),
    (dict(mm_vision_tower="google/siglip"), "mm_vision_tower 'google/siglip' is not one of openai/"),
    (dict(mm_vision_tower="openai/clip-vit-large-patch14", mm_projector_type="cabstractor"), "mm_projector_type 'cabstractor'"),
])
def test_the_config_of_the_original_checkpoints(keys, message):
    config = CONFIGS["llama"] | keys | dict(model_type="llava")
    if message:
        with pytest.raises(UserError, match=message):
            weights.recognise(config, "config.json")
        return
    _, sizes = weights.recognise(config, "config.json")
    large = "mm_projector_type" in keys
    assert (sizes["encoder"].size, sizes["encoder"].layers, sizes["projector"].depth, sizes["decoder"].width) == (336 if large else 224, 24, 2 if large else 1, 16)


def test_a_tied_head_may_be_written_out():
    family, abstract, arrays = model("qwen2")
    tensors = family.write(arrays)
    same(family.read(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"]}, abstract, "dir"), arrays)


@pytest.mark.parametrize("config, message", [
    (dict(model_type="bert", architectures=["BertModel"]), r"model_type 'bert' \(BertModel\) is not known; known: clip, "),
    (CONFIGS["llama"] | dict(hidden_act="gelu"), "hidden_act is 'gelu', and vlmjax computes only 'silu'"),
    (CONFIGS["llama"] | dict(rope_scaling={"type": "linear", "factor": 2.0}), "rope: type is 'linear'"),
    (CONFIGS["qwen2"] | dict(use_sliding_window=True), "use_sliding_window is True"),
    (CONFIGS["clip"] | dict(vision_config=VISION | dict(hidden_act="mish")), "vision_config: hidden_act 'mish' is not one of quick_gelu"),
])
def test_a_config_that_we_do_not_compute_is_refused(config, message):
    with pytest.raises(UserError, match=message):
        weights.recognise(config, "config.json")
