"""InternVL 1.5 to 3 as transformers has it (internvl, the `-hf` checkpoints): InternViT, a norm and an MLP over squares of four patches, a Qwen2 or a Llama."""
from collections.abc import Mapping
from typing import Any

from vlmjax.models.projector import ProjectorConfig
from vlmjax.models.vit import ViTConfig
from vlmjax.weights import llama
from vlmjax.weights.family import OUR_ACTIVATIONS, Config, Family
from vlmjax.weights.table import CONV, FLAT, LEAD, LEAD_2, LINEAR, LINEAR_2, Entry, both, prefixed

# transformers/models/internvl/configuration_internvl.py
VISION_DEFAULTS = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 448, "patch_size": 14, "hidden_act": "gelu",
                   "layer_norm_eps": 1e-6, "layer_scale_init_value": 0.1}
DEFAULTS = {"projector_hidden_act": "gelu", "downsample_ratio": 0.5}

_BLOCK = (
    *(entry for n in "qkv" for entry in (Entry(f"attention.{n}_proj.weight", f"attention/{n}/kernel", LINEAR), Entry(f"attention.{n}_proj.bias", f"attention/{n}/bias", FLAT))),
    *both("attention.projection_layer", "attention/o", LINEAR_2, "kernel"), *both("layernorm_before", "norm1"), *both("layernorm_after", "norm2"),
    *both("mlp.fc1", "mlp/up", LINEAR, "kernel"), *both("mlp.fc2", "mlp/down", LINEAR, "kernel"), Entry("lambda_1", "scale1"), Entry("lambda_2", "scale2"),
)  # fmt: skip
_VISION = (
    Entry("embeddings.cls_token", "class_token", LEAD_2), Entry("embeddings.position_embeddings", "position_embed", LEAD),
    *both("embeddings.patch_embeddings.projection", "patch_embed", CONV, "kernel"), *prefixed(_BLOCK, "encoder.layer.{i}.", "layers/{i}/"),
)  # fmt: skip
_PROJECTOR = (*both("layer_norm", "pre_norm"), *both("linear_1", "linear_0", LINEAR, "kernel"), *both("linear_2", "linear_1", LINEAR, "kernel"))


def _layout(prefix: str, language: str, head: str) -> tuple[Entry, ...]:
    return (*prefixed(_VISION, f"{prefix}vision_tower.", "encoder/"), *prefixed(_PROJECTOR, f"{prefix}multi_modal_projector.", "projector/"), *prefixed(llama.BODY, language),
            *prefixed((llama.HEAD,), head))


def _side(c: Config, key: str) -> int:
    """Height and width of it, which are equal."""
    value = c(key)
    sides = set(value) if isinstance(value, list) else {value}
    c.check(len(sides) == 1, key, "sides that are equal")
    return sides.pop()


def _sizes(c: Config) -> dict[str, Any]:
    c.refuse("vision_feature_select_strategy", "default")
    c.refuse("vision_feature_layer", -1)
    v = c.part("vision_config", VISION_DEFAULTS)
    for key, *fine in (("model_type", "internvl_vision"), ("norm_type", "layer_norm"), ("use_qk_norm", False), ("use_absolute_position_embeddings", True), ("use_mask_token", False),
                       ("use_mean_pooling", True)):
        v.refuse(key, *fine)
    encoder = ViTConfig(size=_side(v, "image_size"), patch=_side(v, "patch_size"), width=v("hidden_size"), layers=v("num_hidden_layers"), heads=v("num_attention_heads"),
                        mlp=v("intermediate_size"), activation=v.activation("hidden_act"), eps=v("layer_norm_eps"), pre_norm=False, patch_bias=True,
                        qkv_bias=("q", "k", "v") if v.node.get("attention_bias") else (), feature_layer=-1, layer_scale=v("layer_scale_init_value"))
    return {"encoder": encoder, "projector": ProjectorConfig(activation=c.activation("projector_hidden_act"), shuffle=shuffle(c), norm=True), "decoder": llama.text_sizes(c.part("text_config"))}


def shuffle(c: Config) -> int:
    """Side of the squares of patches that become a token."""
    side = round(1 / c("downsample_ratio"))
    c.check(side * c("downsample_ratio") == 1, "downsample_ratio", "one over a whole number")
    return side


def _config(sizes: Mapping[str, Any]) -> dict[str, Any]:
    v, projector = sizes["encoder"], sizes["projector"]
    vision = {"model_type": "internvl_vision", "image_size": [v.size, v.size], "patch_size": [v.patch, v.patch], "hidden_size": v.width, "num_hidden_layers": v.layers,
              "num_attention_heads": v.heads, "intermediate_size": v.mlp, "hidden_act": OUR_ACTIVATIONS[v.activation], "layer_norm_eps": v.eps, "attention_bias": bool(v.qkv_bias),
              "layer_scale_init_value": v.layer_scale, "norm_type": "layer_norm", "use_qk_norm": False, "use_mean_pooling": True}
    return {"architectures": ["InternVLForConditionalGeneration"], "model_type": "internvl", "vision_feature_layer": -1, "vision_feature_select_strategy": "default",
            "projector_hidden_act": OUR_ACTIVATIONS[projector.activation], "downsample_ratio": 1 / projector.shuffle, "image_seq_length": v.tokens_per_image // projector.shuffle**2,
            "tie_word_embeddings": sizes["decoder"].tied, "vision_config": vision, "text_config": llama.config(sizes["decoder"])}


def misfit(sizes: Mapping[str, Any]) -> str:
    v, projector = sizes["encoder"], sizes["projector"]
    if projector.kind != "mlp":
        return f"the projector is a {projector.kind}"
    if not (v.class_token and v.patch_bias) or v.pre_norm or v.final_norm or v.layer_scale is None or v.qkv_bias not in ((), ("q", "k", "v")) or v.feature_layer != -1:
        return "the encoder is not built like InternViT (class token, bias of patches, layer scale, no norm before or behind the blocks, of which the last is read)"
    return "" if projector.depth == 2 and projector.norm else "the projector is not InternVL's (a norm and two linear maps)"


TIED = (("language_model.lm_head.weight", "language_model.model.embed_tokens.weight"),)
FAMILY = Family("internvl", ("encoder", "projector", "decoder"), _sizes, _config,
                {"transformers": _layout("", "language_model.model.", "language_model."), "transformers-4.52": _layout("model.", "model.language_model.", "")}, DEFAULTS,
                ignored=llama.IGNORED, aliases=TIED, image_key="image_token_id", text_key="text_config", tiles=True, misfit=misfit)
