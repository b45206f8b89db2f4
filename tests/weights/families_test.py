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
from vlmjax.weights import llama, llava, table

VISION = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=8, patch_size=4)
CONFIGS = {
    "clip": dict(model_type="clip", projection_dim=8, vision_config=VISION, text_config=dict(hidden_size=12, intermediate_size=20, num_hidden_layers=3, num_attention_heads=2, vocab_size=40)),
    "llama": dict(model_type="llama", hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=40, rms_norm_eps=1e-5),
    "qwen2": dict(model_type="qwen2", hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=40,
                  rope_parameters={"rope_type": "default", "rope_theta": 1e6}, tie_word_embeddings=True),
}
CONFIGS["mistral"] = CONFIGS["llama"] | dict(model_type="mistral", sliding_window=6)
CONFIGS["llava"] = dict(model_type="llava", vision_config=dict(VISION, model_type="clip_vision_model"), text_config=CONFIGS["llama"], image_token_index=39)
CONFIGS["internvl"] = dict(model_type="internvl", image_token_id=39, text_config=CONFIGS["qwen2"] | dict(tie_word_embeddings=False),
                           vision_config=dict(VISION, model_type="internvl_vision", image_size=[8, 8], patch_size=[2, 2], attention_bias=True))
CONFIGS["internvl_chat"] = dict(
    model_type="internvl_chat", ps_version="v2", force_image_size=8, llm_config=dict(CONFIGS["llama"], model_type="qwen2", architectures=["Qwen2ForCausalLM"]),
    vision_config=dict(VISION, model_type="intern_vit_6b", patch_size=2, norm_type="layer_norm", qk_normalization=False, qkv_bias=True))
CONFIGS["blip-2"] = dict(model_type="blip-2", image_token_index=39, num_query_tokens=3, text_config=CONFIGS["llama"], vision_config=dict(VISION, model_type="blip_2_vision_model"),
                         qformer_config=dict(hidden_size=12, num_hidden_layers=4, num_attention_heads=2, intermediate_size=20))
CASES = [(name, layout) for name in CONFIGS for layout in weights.FAMILIES[name].layouts]


@functools.cache
def model(name, layout=""):
    """→ (family, {path by layer: abstract leaf}, {path by layer: random array})."""
    family, sizes = weights.recognise(CONFIGS[name], "config.json")
    if layout == "original-linear":
        sizes["projector"] = ProjectorConfig(depth=1)
    abstract = stacks.expand(build.abstract_params(pretrained.modules(sizes, jnp.float32, name)))
    draw = np.random.default_rng(0)
    arrays = {path: draw.normal(size=leaf.shape).astype(np.float32) for path, leaf in abstract.items()}
    unnamed = {path for entry in table.expand(family.layouts.get(layout, ()), abstract) if not entry.foreign for path in entry.paths}
    return family, abstract, {path: np.zeros_like(array) if path in unnamed else array for path, array in arrays.items()}


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
    assert mine or name == "internvl"
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
    (dict(mm_vision_tower="openai/clip-vit-large-patch14", model_type="llava_mistral", sliding_window=6, image_aspect_ratio="pad"), None),
    (dict(mm_vision_tower="google/siglip"), "mm_vision_tower 'google/siglip' is not one of openai/"),
    (dict(mm_vision_tower="openai/clip-vit-large-patch14", mm_projector_type="cabstractor"), "mm_projector_type 'cabstractor'"),
])
def test_the_config_of_the_original_checkpoints(keys, message):
    config = CONFIGS["llama"] | dict(model_type="llava") | keys
    if message:
        with pytest.raises(UserError, match=message):
            weights.recognise(config, "config.json")
        return
    _, sizes = weights.recognise(config, "config.json")
    large = "mm_projector_type" in keys
    assert (sizes["encoder"].size, sizes["encoder"].layers, sizes["projector"].depth, sizes["decoder"].width) == (336 if large else 224, 24, 2 if large else 1, 16)
    assert sizes["decoder"].window == (6 if "sliding_window" in keys else None)


@pytest.mark.parametrize("kind, keys, window", [
    ("mistral", {}, 6), ("mistral", dict(sliding_window=None), None), ("llama", dict(sliding_window=6), None), ("qwen2", dict(sliding_window=6), None),
    ("qwen2", dict(use_sliding_window=True, sliding_window=6), None), ("qwen2", dict(use_sliding_window=True, sliding_window=6, max_window_layers=0), 6),
    ("qwen2", dict(use_sliding_window=True, max_window_layers=0, layer_types=["full_attention"] * 2), None), ("qwen2", dict(use_sliding_window=True, max_window_layers=0), 4096),
])
def test_a_window_is_what_transformers_makes_of_the_keys(kind, keys, window):
    """Qwen2's lower layers, 28 unless the file says otherwise, have none even where it is in use."""
    _, sizes = weights.recognise(CONFIGS[kind] | keys, "config.json")
    assert sizes["decoder"].window == window
    family = weights.FAMILIES[llama.kind(sizes["decoder"])]
    assert weights.recognise(family.config(sizes), "config.json") == (family, sizes)


@pytest.mark.parametrize("name, group", [("qwen2", ""), ("internvl", "text_config"), ("internvl_chat", "llm_config")])
def test_angles_that_change_with_the_length_are_those_of_short_rows(name, group):
    """InternVL3's: up to max_position_embeddings they are those of theta, and what is written says the rest."""
    keys = dict(rope_scaling={"factor": 2.0, "rope_type": "dynamic", "type": "dynamic"}, rope_theta=1e6, rope_parameters=None)
    for length, want in ((dict(max_position_embeddings=512), 512), ({}, 32768)):
        config = CONFIGS[name] | ({group: CONFIGS[name][group] | keys | length} if group else keys | length)
        family, sizes = weights.recognise(config, "config.json")
        assert (sizes["decoder"].theta, sizes["decoder"].dynamic) == (1e6, (2.0, want))
        assert weights.recognise(json.loads(json.dumps(family.config(sizes))), "config.json") == (family, sizes)


def test_a_mistral_config_without_the_key_has_its_default():
    assert weights.recognise({key: value for key, value in CONFIGS["mistral"].items() if key != "sliding_window"}, "config.json")[1]["decoder"].window == 4096


def test_llavas_own_layout_names_the_class_around_the_language_model():
    """haotian-liu/LLaVA has none around Qwen2."""
    sizes = lambda kind: weights.recognise(CONFIGS["llava"] | dict(text_config=CONFIGS[kind]), "config.json")[1] | {"projector": ProjectorConfig(depth=3)}
    for kind in ("llama", "mistral"):
        config = llava.original_config(sizes(kind), pad=True) | {"vision_config": CONFIGS["llava"]["vision_config"]}
        assert config["model_type"] == f"llava_{kind}" and weights.recognise(config, "config.json")[1]["decoder"] == sizes(kind)["decoder"]
    with pytest.raises(UserError, match="a class for llama and mistral and none for qwen2, and transformers none for a projector of 3 linear maps"):
        llava.original_config(sizes("qwen2"), pad=True)


def test_a_pair_of_layers_lies_in_the_file_as_two():
    """Only the first of them has a cross-attention, whose keys are of the image."""
    family, _, arrays = model("blip-2")
    tensors = family.write(arrays)
    for path, name in (("even/cross_attention/k/kernel", "2.crossattention.attention.key"), ("odd/mlp/up/kernel", "3.intermediate_query.dense")):
        ours = arrays[f"projector/layers/1/{path}"]
        np.testing.assert_array_equal(tensors[f"qformer.encoder.layer.{name}.weight"].T, ours.reshape(len(ours), -1))
    assert arrays["projector/layers/1/even/cross_attention/k/kernel"].shape == (16, 2, 6)
    assert {name.split(".")[3] for name in tensors if ".crossattention." in name} == {"0", "2"}


def test_of_a_blip2_with_another_language_model_encoder_and_qformer_are_read():
    """What leads to that model is left, too; what no one knows is still refused."""
    _, _, arrays = model("blip-2")
    family, sizes = weights.recognise(CONFIGS["blip-2"] | dict(text_config=dict(model_type="t5", d_model=20)), "config.json")
    assert set(sizes) == {"encoder", "projector"}
    abstract = stacks.expand(build.abstract_params(pretrained.modules(sizes, jnp.float32, "t5")))
    tensors = {name: tensor for name, tensor in family.write(arrays).items() if not name.startswith("language_")}
    theirs = {"language_model.encoder.block.0.layer.0.layer_norm.weight": np.ones(20), "language_projection.weight": np.ones((20, 12)), "language_projection.bias": np.ones(20)}
    same(family.read(tensors | theirs, abstract, "dir"), {path: leaf for path, leaf in arrays.items() if not path.startswith(("decoder/", "projector/linear_0/"))})
    with pytest.raises(UserError, match=r"holds, beyond it, 1 tensor \(itm_head.weight\)"):
        family.read(tensors | theirs | {"itm_head.weight": np.ones((2, 12))}, abstract, "dir")


def test_a_tied_head_may_be_written_out():
    family, abstract, arrays = model("qwen2")
    tensors = family.write(arrays)
    same(family.read(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"]}, abstract, "dir"), arrays)


@pytest.mark.parametrize("config, message", [
    (dict(model_type="bert", architectures=["BertModel"]), r"model_type 'bert' \(BertModel\) is not known; known: blip-2, clip, "),
    (CONFIGS["llama"] | dict(hidden_act="gelu"), "hidden_act is 'gelu', and vlmjax computes only 'silu'"),
    (CONFIGS["llama"] | dict(rope_scaling={"type": "linear", "factor": 2.0}), "rope: type is 'linear'"),
    (CONFIGS["qwen2"] | dict(use_sliding_window=True, max_window_layers=1), "config.json: use_sliding_window: 1 of 2 layers have a window, and vlmjax computes one for all layers or none"),
    (CONFIGS["internvl"] | dict(vision_config=CONFIGS["internvl"]["vision_config"] | dict(use_qk_norm=True)), "vision_config: use_qk_norm is True"),
    (CONFIGS["internvl"] | dict(vision_config=CONFIGS["internvl"]["vision_config"] | dict(image_size=[8, 4])), r"vision_config: image_size is \[8, 4\], and vlmjax computes only sides that are equal"),
    (CONFIGS["internvl"] | dict(downsample_ratio=0.3), "downsample_ratio is 0.3, and vlmjax computes only one over a whole number"),
    (CONFIGS["internvl"] | dict(vision_feature_layer=-2), "vision_feature_layer is -2"),
    (CONFIGS["internvl_chat"] | dict(ps_version=None), r"ps_version is 'v1', and vlmjax computes only 'v2'"),
    (CONFIGS["internvl_chat"] | dict(select_layer=-4), "select_layer is -4"),
    (CONFIGS["internvl_chat"] | dict(force_image_size=12), "force_image_size is 12, and vlmjax computes only 8"),
    (CONFIGS["internvl_chat"] | dict(pad2square=True), "pad2square is True"),
    (CONFIGS["internvl_chat"] | dict(use_llm_lora=16), "use_llm_lora is 16"),
    (CONFIGS["internvl_chat"] | dict(vision_config=VISION), "vision_config: norm_type is 'rms_norm', and vlmjax computes only 'layer_norm', which is InternViT-300M"),
    (CONFIGS["internvl_chat"] | dict(llm_config=dict(architectures=["InternLM2ForCausalLM"])), "llm_config: architectures is 'InternLM2ForCausalLM', and vlmjax computes only Qwen2ForCausalLM or Llama"),
    (CONFIGS["blip-2"] | dict(qformer_config=dict(cross_attention_frequency=1)), "qformer_config: cross_attention_frequency is 1, and vlmjax computes only 2"),
    (CONFIGS["blip-2"] | dict(qformer_config=dict(num_hidden_layers=3)), "qformer_config: num_hidden_layers is 3, and vlmjax computes only an even number"),
    (CONFIGS["blip-2"] | dict(qformer_config=dict(use_qformer_text_input=True)), "qformer_config: use_qformer_text_input is True"),
    (CONFIGS["mistral"] | dict(sliding_window=0), "sliding_window is 0, not a number of tokens"),
    (CONFIGS["llama"] | dict(model_type="llava_llama", mm_vision_tower="openai/clip-vit-large-patch14", image_aspect_ratio="anyres"), "image_aspect_ratio is 'anyres'"),
    (CONFIGS["clip"] | dict(vision_config=VISION | dict(hidden_act="mish")), "vision_config: hidden_act 'mish' is not one of quick_gelu"),
])
def test_a_config_that_we_do_not_compute_is_refused(config, message):
    with pytest.raises(UserError, match=message):
        weights.recognise(config, "config.json")
