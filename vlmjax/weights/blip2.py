"""BLIP-2 as transformers has it (blip_2) with a language model of Llama's names, which is MiniGPT-4's build: EVA ViT-g, a norm, a Q-Former, one linear map, Vicuna.

Of a checkpoint with another language model (OPT, T5) encoder and Q-Former are read, for a run to put them before one of its own, as MiniGPT-4 did.
The second layout has the names of LAVIS and of MiniGPT-4's authors, whose files weights/minigpt4.py joins; also those of their build without a Q-Former.
"""
from collections.abc import Mapping
from typing import Any

from vlmjax.models.projector import ProjectorConfig
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
# Keys that only vlmjax reads: the epsilon of the norm behind the encoder, where it is not that of the others, and whether there is a Q-Former (MiniGPT-4's own name).
FINAL_EPS, HAS_QFORMER = "post_layernorm_eps", "has_qformer"
JOIN = 4  # neighbouring patches that MiniGPT-4 makes one token of where it has no Q-Former

_BLOCK = (
    Entry("self_attn.qkv.weight", tuple(f"attention/{n}/kernel" for n in "qkv"), LINEAR), Entry("self_attn.qkv.bias", tuple(f"attention/{n}/bias" for n in "qkv"), FLAT),
    *both("self_attn.projection", "attention/o", LINEAR_2, "kernel"), *both("layer_norm1", "norm1"), *both("layer_norm2", "norm2"),
    *both("mlp.fc1", "mlp/up", LINEAR, "kernel"), *both("mlp.fc2", "mlp/down", LINEAR, "kernel"),
)  # fmt: skip
_VISION = (
    Entry("embeddings.class_embedding", "class_token", LEAD_2), Entry("embeddings.position_embedding", "position_embed", LEAD), *both("embeddings.patch_embedding", "patch_embed", CONV, "kernel"),
    *prefixed(_BLOCK, "encoder.layers.{i}.", "layers/{i}/"), *both("post_layernorm", "final_norm"),
)  # fmt: skip


def _attention(foreign: str, ours: str, norm: str, inner: str) -> tuple[Entry, ...]:
    projections = (entry for name in ("query", "key", "value") for entry in
                   (Entry(f"{foreign}.{inner}.{name}.weight", f"{ours}/{name[0]}/kernel", LINEAR), Entry(f"{foreign}.{inner}.{name}.bias", f"{ours}/{name[0]}/bias", FLAT)))
    return (*projections, *both(f"{foreign}.output.dense", f"{ours}/o", LINEAR_2, "kernel"), *both(f"{foreign}.output.LayerNorm", norm))


def _qformer(bert: str, norm: str, inner: str, linear: str) -> tuple[Entry, ...]:
    """bert: before its layers. norm: of the queries. inner: between an attention and its q, k and v. linear: behind it all."""
    layer = (
        *_attention("attention", "attention", "attention_norm", inner), *_attention("crossattention", "cross_attention", "cross_norm", inner),
        *both("intermediate_query.dense", "mlp/up", LINEAR, "kernel"), *both("output_query.dense", "mlp/down", LINEAR, "kernel"), *both("output_query.LayerNorm", "mlp_norm"),
    )  # fmt: skip
    return (Entry("query_tokens", "queries", LEAD), *both(norm, "pre_norm"), *both(linear, "linear_0", LINEAR, "kernel"),
            *(entry for number, name in zip(("{2i}", "{2i+1}"), GROUP) for entry in prefixed(layer, f"{bert}.encoder.layer.{number}.", f"layers/{{i}}/{name}/")))


def _language(prefix: str) -> tuple[Entry, ...]:
    return (*prefixed(llama.BODY, f"{prefix}.model."), *prefixed((llama.HEAD,), f"{prefix}."))


_TRANSFORMERS = (*prefixed(_VISION, "vision_model.", "encoder/"), *prefixed(_qformer("qformer", "qformer.layernorm", "attention", "language_projection"), "", "projector/"),
                 *_language("language_model"))
# Vision-CAIR/MiniGPT-4 at d94738a: models/eva_vit.py, Qformer.py, minigpt4.py, of which all but `llama_*` are LAVIS's names; its k has no bias. Against transformers' names they stand in
# transformers/models/blip_2/convert_blip_2_original_to_pytorch.py.
_EVA_BLOCK = (
    Entry("attn.qkv.weight", tuple(f"attention/{n}/kernel" for n in "qkv"), LINEAR), Entry("attn.q_bias", "attention/q/bias", FLAT), Entry("", "attention/k/bias"),
    Entry("attn.v_bias", "attention/v/bias", FLAT), *both("attn.proj", "attention/o", LINEAR_2, "kernel"), *both("norm1", "norm1"), *both("norm2", "norm2"),
    *both("mlp.fc1", "mlp/up", LINEAR, "kernel"), *both("mlp.fc2", "mlp/down", LINEAR, "kernel"),
)  # fmt: skip
_EVA = (
    Entry("cls_token", "class_token", LEAD_2), Entry("pos_embed", "position_embed", LEAD), *both("patch_embed.proj", "patch_embed", CONV, "kernel"),
    *prefixed(_EVA_BLOCK, "blocks.{i}.", "layers/{i}/"),
)  # fmt: skip
LAVIS = (*prefixed(_EVA, "visual_encoder.", "encoder/"), *both("ln_vision", "encoder/final_norm"),
         *prefixed(_qformer("Qformer.bert", "Qformer.bert.embeddings.LayerNorm", "self", "llama_proj"), "", "projector/"), *_language("llama_model"))


def _sizes(c: Config) -> dict[str, Any]:
    v, q, text = c.part("vision_config", VISION_DEFAULTS), c.part("qformer_config", QFORMER_DEFAULTS), c.part("text_config")
    v.refuse("model_type", "blip_2_vision_model")
    for key, fine in (("model_type", "blip_2_qformer"), ("cross_attention_frequency", 2), ("use_qformer_text_input", False)):
        q.refuse(key, fine)
    c.refuse(HAS_QFORMER, True, False)
    q.check(q("num_hidden_layers") % 2 == 0, "num_hidden_layers", "an even number")
    encoder = ViTConfig(size=v("image_size"), patch=v("patch_size"), width=v("hidden_size"), layers=v("num_hidden_layers"), heads=v("num_attention_heads"), mlp=v("intermediate_size"),
                        activation=v.activation("hidden_act"), eps=v("layer_norm_eps"), pre_norm=False, final_norm=True, patch_bias=True,
                        qkv_bias=("q", "k", "v") if v("qkv_bias") else (), feature_layer=-1, final_eps=v.node.get(FINAL_EPS))
    projector = QFormerConfig(queries=c("num_query_tokens"), width=q("hidden_size"), layers=q("num_hidden_layers"), heads=q("num_attention_heads"), mlp=q("intermediate_size"),
                              activation=q.activation("hidden_act"), eps=q("layer_norm_eps"))
    if c.node.get(HAS_QFORMER) is False:
        projector = ProjectorConfig(depth=1, join=JOIN)
    known = text.node.get("model_type", "opt") in llama.DEFAULTS
    return {"encoder": encoder, "projector": projector, **({"decoder": llama.text_sizes(text)} if known else {})}


def config(sizes: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse. Without a decoder, or without a Q-Former, it is for vlmjax alone."""
    v, q = sizes["encoder"], sizes["projector"]
    vision = {"model_type": "blip_2_vision_model", "image_size": v.size, "patch_size": v.patch, "hidden_size": v.width, "num_hidden_layers": v.layers, "num_attention_heads": v.heads,
              "intermediate_size": v.mlp, "hidden_act": OUR_ACTIVATIONS[v.activation], "layer_norm_eps": v.eps, "qkv_bias": bool(v.qkv_bias), **({} if v.final_eps is None else {FINAL_EPS: v.final_eps})}
    language = {"text_config": llama.config(sizes["decoder"]), "tie_word_embeddings": sizes["decoder"].tied} if "decoder" in sizes else {}
    common = {"architectures": ["Blip2ForConditionalGeneration"], "model_type": "blip-2", "use_decoder_only_language_model": True, "vision_config": vision, **language}
    if not isinstance(q, QFormerConfig):
        return common | {HAS_QFORMER: False}
    queries = {"model_type": "blip_2_qformer", "hidden_size": q.width, "num_hidden_layers": q.layers, "num_attention_heads": q.heads, "intermediate_size": q.mlp,
               "hidden_act": OUR_ACTIVATIONS[q.activation], "layer_norm_eps": q.eps, "cross_attention_frequency": 2, "encoder_hidden_size": v.width, "use_qformer_text_input": False}
    return common | {"num_query_tokens": q.queries, "qformer_config": queries}


def _misfit(sizes: Mapping[str, Any]) -> str:
    v = sizes["encoder"]
    if not (v.class_token and v.patch_bias and v.final_norm) or v.pre_norm or v.layer_scale is not None or v.qkv_bias not in ((), ("q", "k", "v")) or v.feature_layer != -1:
        return "the encoder is not built like BLIP-2's (class token, bias of patches, of q, k and v all or none, a norm behind the blocks and none before them, of which the last is read)"
    return "" if isinstance(sizes["projector"], QFormerConfig) else "the projector is no Q-Former"


def _remark(sizes: Mapping[str, Any]) -> str:
    v = sizes["encoder"]
    return "" if v.final_eps in (None, v.eps) else \
        f"transformers computes the norm behind the encoder with {v.eps:g} in place of {v.final_eps:g}, which vlmjax reads from {FINAL_EPS}"


FAMILY = Family("blip-2", ("encoder", "projector", "decoder"), _sizes, config, {"transformers": _TRANSFORMERS, "lavis": LAVIS}, DEFAULTS, ignored=llama.IGNORED, others=(r"language_(model|projection)\..*",),
                aliases=(("language_model.lm_head.weight", "language_model.model.embed_tokens.weight"),), image_key="image_token_index", text_key="text_config", misfit=_misfit, remark=_remark)
