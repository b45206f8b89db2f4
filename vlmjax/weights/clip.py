"""CLIP: transformers' names (clip/modeling_clip.py) and OpenAI's own (clip/model.py)."""
from collections.abc import Mapping
from typing import Any

from vlmjax.models.clip import TextConfig
from vlmjax.models.vit import ViTConfig
from vlmjax.weights.family import OUR_ACTIVATIONS, Config, Family
from vlmjax.weights.table import AS_IS, CONV, FLAT, LINEAR, LINEAR_2, Entry, prefixed

# transformers/models/clip/configuration_clip.py
VISION_DEFAULTS = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "image_size": 224, "patch_size": 32,
                   "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
TEXT_DEFAULTS = {"vocab_size": 49408, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8,
                 "max_position_embeddings": 77, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}


def _norm(foreign: str, ours: str) -> tuple[Entry, ...]:
    return Entry(f"{foreign}.weight", f"{ours}/scale"), Entry(f"{foreign}.bias", f"{ours}/bias")


def _dense(foreign: str, ours: str) -> tuple[Entry, ...]:
    return Entry(f"{foreign}.weight", f"{ours}/kernel", LINEAR), Entry(f"{foreign}.bias", f"{ours}/bias")


_BLOCK = (
    *_norm("layer_norm1", "norm1"), *_norm("layer_norm2", "norm2"), *_dense("mlp.fc1", "mlp/up"), *_dense("mlp.fc2", "mlp/down"),
    *(entry for n in "qkv" for entry in (Entry(f"self_attn.{n}_proj.weight", f"attention/{n}/kernel", LINEAR), Entry(f"self_attn.{n}_proj.bias", f"attention/{n}/bias", FLAT))),
    Entry("self_attn.out_proj.weight", "attention/o/kernel", LINEAR_2), Entry("self_attn.out_proj.bias", "attention/o/bias"),
)  # fmt: skip
_OPENAI_BLOCK = (
    *_norm("ln_1", "norm1"), *_norm("ln_2", "norm2"), *_dense("mlp.c_fc", "mlp/up"), *_dense("mlp.c_proj", "mlp/down"),
    Entry("attn.in_proj_weight", tuple(f"attention/{n}/kernel" for n in "qkv"), LINEAR), Entry("attn.in_proj_bias", tuple(f"attention/{n}/bias" for n in "qkv"), FLAT),
    Entry("attn.out_proj.weight", "attention/o/kernel", LINEAR_2), Entry("attn.out_proj.bias", "attention/o/bias"),
)  # fmt: skip

# Everything up to the last block; the norm that follows belongs to the contrast head.
VISION = (
    Entry("embeddings.class_embedding", "class_token"), Entry("embeddings.patch_embedding.weight", "patch_embed/kernel", CONV),
    Entry("embeddings.position_embedding.weight", "position_embed"), *_norm("pre_layrnorm", "pre_norm"),
    *prefixed(_BLOCK, "encoder.layers.{i}.", "layers/{i}/"),
)  # fmt: skip
_TEXT = (
    Entry("embeddings.token_embedding.weight", "embed"), Entry("embeddings.position_embedding.weight", "position_embed"),
    *prefixed(_BLOCK, "encoder.layers.{i}.", "layers/{i}/"), *_norm("final_layer_norm", "norm"),
)  # fmt: skip
_CURRENT = (
    *prefixed(VISION, "vision_model.", "encoder/"), *prefixed(_TEXT, "text_model.", "text_tower/"),
    *_norm("vision_model.post_layernorm", "contrast_head/vision_norm"),
    Entry("visual_projection.weight", "contrast_head/vision_projection", LINEAR), Entry("text_projection.weight", "contrast_head/text_projection", LINEAR),
    Entry("logit_scale", "contrast_head/logit_scale"),
)  # fmt: skip
_OPENAI = (
    Entry("visual.class_embedding", "encoder/class_token"), Entry("visual.conv1.weight", "encoder/patch_embed/kernel", CONV),
    Entry("visual.positional_embedding", "encoder/position_embed"), *_norm("visual.ln_pre", "encoder/pre_norm"),
    *prefixed(_OPENAI_BLOCK, "visual.transformer.resblocks.{i}.", "encoder/layers/{i}/"), *_norm("visual.ln_post", "contrast_head/vision_norm"),
    Entry("token_embedding.weight", "text_tower/embed"), Entry("positional_embedding", "text_tower/position_embed"),
    *prefixed(_OPENAI_BLOCK, "transformer.resblocks.{i}.", "text_tower/layers/{i}/"), *_norm("ln_final", "text_tower/norm"),
    # The projections are plain matrices here, not torch's Linear.
    Entry("visual.proj", "contrast_head/vision_projection", AS_IS), Entry("text_projection", "contrast_head/text_projection", AS_IS),
    Entry("logit_scale", "contrast_head/logit_scale"),
)  # fmt: skip


def vision_sizes(c: Config, feature_layer: int = -2) -> ViTConfig:
    return ViTConfig(size=c("image_size"), patch=c("patch_size"), width=c("hidden_size"), layers=c("num_hidden_layers"), heads=c("num_attention_heads"),
                     mlp=c("intermediate_size"), activation=c.activation("hidden_act"), eps=c("layer_norm_eps"), feature_layer=feature_layer)


def vision_config(v: ViTConfig) -> dict[str, Any]:
    return {"model_type": "clip_vision_model", "image_size": v.size, "patch_size": v.patch, "hidden_size": v.width, "num_hidden_layers": v.layers,
            "num_attention_heads": v.heads, "intermediate_size": v.mlp, "hidden_act": OUR_ACTIVATIONS[v.activation], "layer_norm_eps": v.eps}


def vision_misfit(v: ViTConfig) -> str:
    if not (v.class_token and v.pre_norm) or v.final_norm or v.patch_bias or v.layer_scale is not None:
        return "the encoder is not built like CLIP's (class token, norm before the blocks, no bias of patches, no layer scale)"
    return ""


def _sizes(c: Config) -> dict[str, Any]:
    t = c.part("text_config", TEXT_DEFAULTS)
    text = TextConfig(vocab=t("vocab_size"), length=t("max_position_embeddings"), width=t("hidden_size"), layers=t("num_hidden_layers"), heads=t("num_attention_heads"),
                      mlp=t("intermediate_size"), joint=c("projection_dim"), activation=t.activation("hidden_act"), eps=t("layer_norm_eps"))
    return {"encoder": vision_sizes(c.part("vision_config", VISION_DEFAULTS)), "text_tower": text}


def _config(sizes: Mapping[str, Any]) -> dict[str, Any]:
    t = sizes["text_tower"]
    text = {"model_type": "clip_text_model", "vocab_size": t.vocab, "max_position_embeddings": t.length, "hidden_size": t.width, "num_hidden_layers": t.layers,
            "num_attention_heads": t.heads, "intermediate_size": t.mlp, "projection_dim": t.joint, "hidden_act": OUR_ACTIVATIONS[t.activation], "layer_norm_eps": t.eps}
    return {"architectures": ["CLIPModel"], "model_type": "clip", "projection_dim": t.joint, "text_config": text,
            "vision_config": vision_config(sizes["encoder"]) | {"projection_dim": t.joint}}


FAMILY = Family("clip", ("encoder", "text_tower", "contrast_head"), _sizes, _config, {"transformers": _CURRENT, "openai": _OPENAI}, {"projection_dim": 512},
                ignored=(r"(text|vision)_model\.embeddings\.position_ids", "input_resolution", "context_length", "vocab_size"), text_key="text_config", misfit=lambda sizes: vision_misfit(sizes["encoder"]))
