"""BLIP-2 as transformers has it (blip_2) with a language model of Llama's names, which is MiniGPT-4's build: EVA ViT-g, a norm, a Q-Former, one linear map, Vicuna.

Of a checkpoint with another language model (OPT, T5) encoder and Q-Former are read, for a run to put them before one of its own, as MiniGPT-4 did.
"""
from collections.abc import Mapping
from typing import Any

from vlmjax.models.qformer import GROUP, QFormerConfig
from vlmjax.models.vit import ViTConfig
from vlmjax.weights import llama
from vlmjax.weights.family import OUR_ACTIVATIONS, Config, Family
from vlmjax.weights.table import CONV, FLAT, LEAD, LEAD_2, LINEAR, LINEAR_2, Entry, both, prefixed

# transformers/models/blip_2/configuration_blip_2.py
VISION_DEFAULTS = {"hidden_size": 1408, "intermediate_size": 6144, "num_hidden_layers": 39, "num_attention_heads": 16, "image_size": 224, "patch_size": 14, "hidden_act": "gelu",
                   "layer_norm_eps": 1e-6, "qkv_bias": True}
QFORMER_DEFAULTS = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072, "hidden_act": "gelu", "layer_norm_eps": 1e-12}
DEFAULTS = {"num_query_tokens": 32}

_BLOCK = (
    Entry("self_attn.qkv.weight", tuple(f"attention/{n}/kernel" for n in "qkv"), LINEAR), Entry("self_attn.qkv.bias", tuple(f"attention/{n}/bias" for n in "qkv"), FLAT),
    *both("self_attn.projection", "attention/o", LINEAR_2, "kernel"), *both("layer_norm1", "norm1"), *both("layer_norm2", "norm2"),
    *both("mlp.fc1", "mlp/up", LINEAR, "kernel"), *both("mlp.fc2", "mlp/down", LINEAR, "kernel"),
)  # fmt: skip
_VISION = (
    Entry("embeddings.class_embedding", "class_token", LEAD_2), Entry("embeddings.position_embedding", "position_embed", LEAD), *both("embeddings.patch_embedding", "patch_embed", CONV, "kernel"),
    *prefixed(_BLOCK, "encoder.layers.{i}.", "layers/{i}/"), *both("post_layernorm", "final_norm"),
)  # fmt: skip


def _attention(foreign: str, ours: str, norm: str) -> tuple[Entry, ...]:
    projections = (entry for name in ("query", "key", "value") for entry in
                   (Entry(f"{foreign}.attention.{name}.weight", f"{ours}/{name[0]}/kernel", LINEAR), Entry(f"{foreign}.attention.{name}.bias", f"{ours}/{name[0]}/bias", FLAT)))
    return (*projections, *both(f"{foreign}.output.dense", f"{ours}/o", LINEAR_2, "kernel"), *both(f"{foreign}.output.LayerNorm", norm))


_LAYER = (
    *_attention("attention", "attention", "attention_norm"), *_attention("crossattention", "cross_attention", "cross_norm"),
    *both("intermediate_query.dense", "mlp/up", LINEAR, "kernel"), *both("output_query.dense", "mlp/down", LINEAR, "kernel"), *both("output_query.LayerNorm", "mlp_norm"),
)  # fmt: skip
_QFORMER = (
    Entry("query_tokens", "queries", LEAD), *both("qformer.layernorm", "pre_norm"), *both("language_projection", "linear_0", LINEAR, "kernel"),
    *(entry for layer, name in zip(("{2i}", "{2i+1}"), GROUP) for entry in prefixed(_LAYER, f"qformer.encoder.layer.{layer}.", f"layers/{{i}}/{name}/")),
)  # fmt: skip
_LAYOUT = (*prefixed(_VISION, "vision_model.", "encoder/"), *prefixed(_QFORMER, "", "projector/"), *prefixed(llama.BODY, "language_model.model."), *prefixed((llama.HEAD,), "language_model."))


def _sizes(c: Config) -> dict[str, Any]:
    v, q, text = c.part("vision_config", VISION_DEFAULTS), c.part("qformer_config", QFORMER_DEFAULTS), c.part("text_config")
    v.refuse("model_type", "blip_2_vision_model")
    for key, fine in (("model_type", "blip_2_qformer"), ("cross_attention_frequency", 2), ("use_qformer_text_input", False)):
        q.refuse(key, fine)
    q.check(q("num_hidden_layers") % 2 == 0, "num_hidden_layers", "an even number")
    encoder = ViTConfig(size=v("image_size"), patch=v("patch_size"), width=v("hidden_size"), layers=v("num_hidden_layers"), heads=v("num_attention_heads"), mlp=v("intermediate_size"),
                        activation=v.activation("hidden_act"), eps=v("layer_norm_eps"), pre_norm=False, final_norm=True, patch_bias=True,
                        qkv_bias=("q", "k", "v") if v("qkv_bias") else (), feature_layer=-1)
    projector = QFormerConfig(queries=c("num_query_tokens"), width=q("hidden_size"), layers=q("num_hidden_layers"), heads=q("num_attention_heads"), mlp=q("intermediate_size"),
                              activation=q.activation("hidden_act"), eps=q("layer_norm_eps"))
    known = text.node.get("model_type", "opt") in llama.DEFAULTS
    return {"encoder": encoder, "projector": projector, **({"decoder": llama.text_sizes(text)} if known else {})}


def _config(sizes: Mapping[str, Any]) -> dict[str, Any]:
    v, q = sizes["encoder"], sizes["projector"]
    vision = {"model_type": "blip_2_vision_model", "image_size": v.size, "patch_size": v.patch, "hidden_size": v.width, "num_hidden_layers": v.layers, "num_attention_heads": v.heads,
              "intermediate_size": v.mlp, "hidden_act": OUR_ACTIVATIONS[v.activation], "layer_norm_eps": v.eps, "qkv_bias": bool(v.qkv_bias)}
    queries = {"model_type": "blip_2_qformer", "hidden_size": q.width, "num_hidden_layers": q.layers, "num_attention_heads": q.heads, "intermediate_size": q.mlp,
               "hidden_act": OUR_ACTIVATIONS[q.activation], "layer_norm_eps": q.eps, "cross_attention_frequency": 2, "encoder_hidden_size": v.width, "use_qformer_text_input": False}
    return {"architectures": ["Blip2ForConditionalGeneration"], "model_type": "blip-2", "num_query_tokens": q.queries, "tie_word_embeddings": sizes["decoder"].tied, "use_decoder_only_language_model": True,
            "vision_config": vision, "qformer_config": queries, "text_config": llama.config(sizes["decoder"])}


def _misfit(sizes: Mapping[str, Any]) -> str:
    v = sizes["encoder"]
    if not (v.class_token and v.patch_bias and v.final_norm) or v.pre_norm or v.layer_scale is not None or v.qkv_bias not in ((), ("q", "k", "v")) or v.feature_layer != -1:
        return "the encoder is not built like BLIP-2's (class token, bias of patches, of q, k and v all or none, a norm behind the blocks and none before them, of which the last is read)"
    return "" if isinstance(sizes["projector"], QFormerConfig) else "the projector is no Q-Former"


FAMILY = Family("blip-2", ("encoder", "projector", "decoder"), _sizes, _config, {"transformers": _LAYOUT}, DEFAULTS, ignored=llama.IGNORED, others=(r"language_(model|projection)\..*",),
                aliases=(("language_model.lm_head.weight", "language_model.model.embed_tokens.weight"),), image_key="image_token_index", text_key="text_config", misfit=_misfit)
