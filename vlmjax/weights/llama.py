"""Llama and the models that share its names: Vicuna, SmolLM2, Mistral, Qwen2 and Qwen2.5 (transformers' llama, mistral and qwen2)."""
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from vlmjax.errors import UserError
from vlmjax.models.decoder import DecoderConfig
from vlmjax.weights.family import Config, Family
from vlmjax.weights.table import FLAT, INTERLEAVED, LINEAR, LINEAR_2, Entry, Form, prefixed

# transformers/models/{llama,mistral,qwen2}/configuration_*.py, by `model_type`. A window may be null, so its default is read apart (`_window`).
_LLAMA = {"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
          "rms_norm_eps": 1e-6, "rope_theta": 1e4, "hidden_act": "silu", "max_position_embeddings": 2048}
DEFAULTS = {
    "llama": _LLAMA,
    "mistral": _LLAMA | {"intermediate_size": 14336, "num_key_value_heads": 8, "max_position_embeddings": 131072},
    "qwen2": _LLAMA | {"vocab_size": 151936, "intermediate_size": 22016, "num_key_value_heads": 32, "max_position_embeddings": 32768},
}
ARCHITECTURES = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM"}
WINDOW = 4096  # of Mistral and of Qwen2, where it is in use and the file names none

_BLOCK = (
    *(entry for n in "qkv" for entry in (Entry(f"self_attn.{n}_proj.weight", f"attention/{n}/kernel", LINEAR), Entry(f"self_attn.{n}_proj.bias", f"attention/{n}/bias", FLAT))),
    Entry("self_attn.o_proj.weight", "attention/o/kernel", LINEAR_2), Entry("input_layernorm.weight", "norm1/scale"), Entry("post_attention_layernorm.weight", "norm2/scale"),
    *(Entry(f"mlp.{n}_proj.weight", f"mlp/{n}/kernel", LINEAR) for n in ("gate", "up", "down")),
)  # fmt: skip
# The model without its head, and the head: LLaVA's files put them under different prefixes.
BODY = (
    Entry("embed_tokens.weight", "decoder/embed"), Entry("norm.weight", "decoder/norm/scale"), *prefixed(_BLOCK, "layers.{i}.", "decoder/layers/{i}/"),
)  # fmt: skip
HEAD = Entry("lm_head.weight", "decoder/head", LINEAR)


def _gguf(query_and_key: Form) -> tuple[Entry, ...]:
    """llama.cpp's names (gguf-py/gguf/constants.py: TENSOR_NAMES). Its llama rotates neighbours, its qwen2 rotates halves."""
    block = (
        *(Entry(f"attn_{n}.weight", f"attention/{n}/kernel", form) for n, form in (("q", query_and_key), ("k", query_and_key), ("v", LINEAR))),
        *(Entry(f"attn_{n}.bias", f"attention/{n}/bias", FLAT) for n in "qkv"),
        Entry("attn_output.weight", "attention/o/kernel", LINEAR_2), Entry("attn_norm.weight", "norm1/scale"), Entry("ffn_norm.weight", "norm2/scale"),
        *(Entry(f"ffn_{n}.weight", f"mlp/{n}/kernel", LINEAR) for n in ("gate", "up", "down")),
    )  # fmt: skip
    return (Entry("token_embd.weight", "decoder/embed"), Entry("output_norm.weight", "decoder/norm/scale"), *prefixed(block, "blk.{i}.", "decoder/layers/{i}/"),
            Entry("output.weight", "decoder/head", LINEAR))


IGNORED = (r".*\.rotary_emb\.inv_freq",)  # a buffer of files before 2023


def sizes(c: Config, kind: str) -> DecoderConfig:
    """The language model of a config whose `model_type` is `kind`."""
    c.refuse("hidden_act", "silu")
    c.refuse("attention_bias", False)
    c.refuse("mlp_bias", False)
    rope = c.node.get("rope_parameters") or c.node.get("rope_scaling") or {}
    scaling, kind_of = Config(rope, f"{c.where}: rope"), "rope_type" if "rope_type" in rope else "type"
    scaling.refuse(kind_of, "default", "dynamic")
    if rope.get(kind_of) == "dynamic":
        c.check(type(c("max_position_embeddings")) is int, "max_position_embeddings", "a whole number")
    dynamic = (float(scaling("factor")), c("max_position_embeddings")) if rope.get(kind_of) == "dynamic" else None
    heads = c("num_attention_heads")
    return DecoderConfig(
        vocab=c("vocab_size"), width=c("hidden_size"), layers=c("num_hidden_layers"), heads=heads, kv_heads=c.node.get("num_key_value_heads") or c.defaults.get("num_key_value_heads", heads),
        head_dim=c.node.get("head_dim") or c("hidden_size") // heads, mlp=c("intermediate_size"), eps=c("rms_norm_eps"), theta=float(rope.get("rope_theta") or c("rope_theta")),
        qkv_bias=kind == "qwen2", window=_window(c, kind), tied=bool(c.node.get("tie_word_embeddings", False)), dynamic=dynamic)  # fmt: skip


def _window(c: Config, kind: str) -> int | None:
    """How far back all layers see; UserError where layers differ in it."""
    used = kind == "mistral" or kind == "qwen2" and c.node.get("use_sliding_window")
    window = c.node.get("sliding_window", WINDOW) if used else None
    if window is None:
        return None
    if not isinstance(window, int) or window < 1:
        raise UserError(f"{c.where}: sliding_window is {window!r}, not a number of tokens")
    if kind == "qwen2":  # its lower layers see everything
        layers, full = c("num_hidden_layers"), c.node.get("max_window_layers", 28)
        types = c.node.get("layer_types") or ["full_attention" if layer < full else "sliding_attention" for layer in range(layers)]
        if set(types) == {"full_attention"}:
            return None
        if set(types) != {"sliding_attention"}:
            raise UserError(f"{c.where}: use_sliding_window: {types.count('sliding_attention')} of {layers} layers have a window, and vlmjax computes one for all layers or none")
    return window


def kind(d: DecoderConfig) -> str:
    """The `model_type` under which transformers computes these sizes."""
    return "qwen2" if d.qkv_bias else "mistral" if d.window else "llama"


def config(d: DecoderConfig) -> dict[str, Any]:
    """What transformers writes for these sizes."""
    window = {"use_sliding_window": True, "sliding_window": d.window, "max_window_layers": 0} if d.window and d.qkv_bias else {"sliding_window": d.window} if d.window else {}
    rope, length = ({"rope_type": "dynamic", "factor": d.dynamic[0]}, {"max_position_embeddings": d.dynamic[1]}) if d.dynamic else ({"rope_type": "default"}, {})
    return {"architectures": [ARCHITECTURES[kind(d)]], "model_type": kind(d), **window, **length, "vocab_size": d.vocab, "hidden_size": d.width, "num_hidden_layers": d.layers, "num_attention_heads": d.heads,
            "num_key_value_heads": d.kv_heads, "head_dim": d.head_dim, "intermediate_size": d.mlp, "rms_norm_eps": d.eps, "hidden_act": "silu", "tie_word_embeddings": d.tied,
            "rope_parameters": {**rope, "rope_theta": d.theta}}


def text_sizes(c: Config) -> DecoderConfig:
    """The language model of a larger config, of whichever kind."""
    kind = c.node.get("model_type", "llama")
    c.refuse("model_type", *DEFAULTS)
    return sizes(Config(c.node, c.where, DEFAULTS[kind]), kind)


def _config(parts: Mapping[str, Any]) -> dict[str, Any]:
    return config(parts["decoder"])


def _misfit(name: str) -> Callable[[Mapping[str, Any]], str]:
    def why(sizes):
        known = kind(sizes["decoder"])
        return "" if known == name else f"transformers computes it as {known} (biases of q, k and v: qwen2; a window: mistral)"

    return why


_PUBLISHED = (*prefixed(BODY, "model."), HEAD)
FAMILY = Family("llama", ("decoder",), lambda c: {"decoder": text_sizes(c)}, _config, {"transformers": _PUBLISHED, "gguf": _gguf(INTERLEAVED)}, ignored=IGNORED,
                aliases=(("lm_head.weight", "model.embed_tokens.weight"),), misfit=_misfit("llama"))
MISTRAL = dataclasses.replace(FAMILY, name="mistral", layouts={"transformers": _PUBLISHED}, misfit=_misfit("mistral"))  # in GGUF it is a llama
QWEN2 = dataclasses.replace(FAMILY, name="qwen2", layouts={"transformers": _PUBLISHED, "gguf": _gguf(LINEAR)}, misfit=_misfit("qwen2"))  # else only its config differs
