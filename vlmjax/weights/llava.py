"""LLaVA 1.0 and 1.5: CLIP's vision tower, an MLP and a language model of Llama's names, in the layouts their files have had."""
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from vlmjax.errors import UserError
from vlmjax.models import vit
from vlmjax.models.projector import ProjectorConfig
from vlmjax.weights import clip, llama, table
from vlmjax.weights.family import CARRIED, OUR_ACTIVATIONS, Config, Family
from vlmjax.weights.table import LINEAR, Entry, prefixed

# transformers/models/llava/configuration_llava.py: the tower of LLaVA-1.5
VISION_DEFAULTS = clip.VISION_DEFAULTS | {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 336, "patch_size": 14}
DEFAULTS = {"projector_hidden_act": "gelu"}
# llava/model/language_model/: the language model's kind → the class around it
ORIGINAL = {"llama": "LlavaLlamaForCausalLM", "mistral": "LlavaMistralForCausalLM"}
# `mm_vision_tower` of the original checkpoints, whose configs do not hold its sizes
TOWERS = {"openai/clip-vit-large-patch14": "clip-l14", "openai/clip-vit-large-patch14-336": "clip-l14-336"}


def _layout(vision: str, projector: tuple[Entry, ...], language: str, head: str) -> tuple[Entry, ...]:
    # The norm above the tower's last block is in every file, and computed with by nobody: it is carried along.
    carried = (Entry("post_layernorm.weight", "carried/vision_norm/scale"), Entry("post_layernorm.bias", "carried/vision_norm/bias"))
    return (*prefixed(clip.VISION, vision, "encoder/"), *prefixed(carried, vision), *projector, *prefixed(llama.BODY, language), *prefixed((llama.HEAD,), head))


def _projector(names: Mapping[int, str]) -> tuple[Entry, ...]:
    return tuple(entry for k, name in names.items() for entry in (Entry(f"{name}.weight", f"projector/linear_{k}/kernel", LINEAR), Entry(f"{name}.bias", f"projector/linear_{k}/bias")))


def _transformers(prefix: str) -> tuple[Entry, ...]:
    return _projector({k: f"{prefix}multi_modal_projector.linear_{k + 1}" for k in range(2)})


_ORIGINAL_TOWER = "model.vision_tower.vision_tower.vision_model."
_DEEP = _projector({k: f"model.mm_projector.{2 * k}" for k in range(9)})
_LINEAR = _projector({0: "model.mm_projector"})
LAYOUTS = {
    "transformers": _layout("vision_tower.", _transformers(""), "language_model.model.", "language_model."),
    "hub": _layout("vision_tower.vision_model.", _transformers(""), "language_model.model.", "language_model."),
    "transformers-4.52": _layout("model.vision_tower.vision_model.", _transformers("model."), "model.language_model.", ""),
    # torch's Sequential: linear maps at the even places, activations between them
    "original": _layout(_ORIGINAL_TOWER, _DEEP, "model.", ""),
    "original-linear": _layout(_ORIGINAL_TOWER, _LINEAR, "model.", ""),
}


def _sizes(c: Config) -> dict[str, Any]:
    if "mm_vision_tower" in c.node:
        return _original_sizes(c)
    c.refuse("vision_feature_select_strategy", "default")
    c.refuse("multimodal_projector_bias", True)
    vision = c.part("vision_config", VISION_DEFAULTS)
    vision.refuse("model_type", "clip_vision_model")
    return {"encoder": clip.vision_sizes(vision, _layer(c, "vision_feature_layer")), "projector": ProjectorConfig(depth=2, activation=c.activation("projector_hidden_act")),
            "decoder": llama.text_sizes(c.part("text_config"))}


def _original_sizes(c: Config) -> dict[str, Any]:
    """haotian-liu/LLaVA writes its keys into the language model's own config."""
    if "vision_config" not in c.node and c("mm_vision_tower") not in TOWERS:
        raise UserError(f"{c.where}: mm_vision_tower {c('mm_vision_tower')!r} is not one of {', '.join(TOWERS)}, and no directory beside this file")
    c.refuse("mm_vision_select_feature", "patch")
    c.refuse("mm_use_im_start_end", False)
    kind = c.node.get("mm_projector_type") or "linear"  # LLaVA 1.0 has no such key
    depth = 1 if kind == "linear" else int(kind[3]) if kind[:3] == "mlp" and kind[4:] == "x_gelu" and kind[3].isdigit() else 0
    if not depth:
        raise UserError(f"{c.where}: mm_projector_type {kind!r} is not linear or mlpNx_gelu")
    encoder = clip.vision_sizes(c.part("vision_config", VISION_DEFAULTS)) if "vision_config" in c.node else vit.VARIANTS[TOWERS[c("mm_vision_tower")]]
    c.refuse("image_aspect_ratio", "pad", "square")
    language = Config(dict(c.node, model_type="mistral" if c.node.get("model_type") == "llava_mistral" else "llama"), c.where)
    return {"encoder": dataclasses.replace(encoder, feature_layer=_layer(c, "mm_vision_select_layer")), "projector": ProjectorConfig(depth=depth), "decoder": llama.text_sizes(language)}


def _layer(c: Config, key: str) -> int:
    layer = c.node.get(key, -2)
    if not isinstance(layer, int) or layer >= 0:
        raise UserError(f"{c.where}: {key} is {layer!r}, and vlmjax reads one layer, counted from the last: -1, -2 …")
    return layer


def _config(sizes: Mapping[str, Any]) -> dict[str, Any]:
    encoder, projector = sizes["encoder"], sizes["projector"]
    return {"architectures": ["LlavaForConditionalGeneration"], "model_type": "llava", "vision_feature_layer": encoder.feature_layer, "vision_feature_select_strategy": "default",
            "projector_hidden_act": OUR_ACTIVATIONS[projector.activation], "image_seq_length": encoder.tokens_per_image, "tie_word_embeddings": sizes["decoder"].tied,
            "vision_config": clip.vision_config(encoder), "text_config": llama.config(sizes["decoder"])}


def _misfit(sizes: Mapping[str, Any]) -> str:
    if sizes["projector"].kind != "mlp":
        return f"neither transformers' LLaVA nor LLaVA's own code has a {sizes['projector'].kind} as projector"
    if sizes["projector"].shuffle > 1 or sizes["projector"].join > 1 or sizes["projector"].norm:
        return "neither transformers' LLaVA nor LLaVA's own code joins neighbouring patches (shuffle) or has a norm before its projector"
    return clip.vision_misfit(sizes["encoder"])


FAMILY = Family("llava", ("encoder", "projector", "decoder"), _sizes, _config, LAYOUTS, DEFAULTS,
                ignored=(*llama.IGNORED, r".*\.embeddings\.position_ids"), aliases=(("language_model.lm_head.weight", "language_model.model.embed_tokens.weight"),),
                image_key="image_token_index", text_key="text_config", misfit=_misfit)


# --- haotian-liu/LLaVA's own directories: the tower lies elsewhere -------------------------------------------------------------------

TOWER = "vision_tower"  # where we write it, beside the rest


def tower_directory(node: Mapping[str, Any], directory: epath.Path) -> epath.Path | None:
    """The directory beside config.json that `mm_vision_tower` names; None for other checkpoints and for towers on the hub."""
    name = node.get("mm_vision_tower")
    return directory / name if name and epath.Path(name).name == name and (directory / name / "config.json").exists() else None


def with_tower(tensors: Mapping[str, np.ndarray], tower: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors of a checkpoint and of its tower, a whole CLIP or its vision model alone, as if one file held them."""
    inner = _ORIGINAL_TOWER.removesuffix("vision_model.")
    whole = any(name.startswith("vision_model.") for name in tower)
    return dict(tensors) | {inner + (name if whole else f"vision_model.{name}"): leaf for name, leaf in tower.items() if not whole or name.startswith("vision_model.")}


def write_original(by_layer: Mapping[str, np.ndarray], depth: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """{path by layer: parameter} → (language model and projector, tower), for projectors that no class of transformers has."""
    tower = {path: leaf for path, leaf in by_layer.items() if path.startswith(("encoder/", CARRIED))}
    rest = {path: leaf for path, leaf in by_layer.items() if path not in tower}
    bare = _layout("", (), "model.", "")
    return table.write(rest, (*(_LINEAR if depth == 1 else _DEEP), *prefixed(llama.BODY, "model."), llama.HEAD)), table.write(tower, bare)


def original_config(sizes: Mapping[str, Any], pad: bool) -> dict[str, Any]:
    """The language model's config with LLaVA's keys in it; the tower has its own."""
    depth, kind = sizes["projector"].depth, llama.kind(sizes["decoder"])
    if kind not in ORIGINAL:
        raise UserError(f"convert: LLaVA's own code has a class for {' and '.join(ORIGINAL)} and none for {kind}, and transformers none for a projector of {depth} linear maps, so it is not written")
    return llama.config(sizes["decoder"]) | {
        "architectures": [ORIGINAL[kind]], "model_type": f"llava_{kind}", "mm_vision_tower": TOWER, "mm_projector_type": "linear" if depth == 1 else f"mlp{depth}x_gelu",
        "mm_hidden_size": sizes["encoder"].width, "mm_vision_select_layer": sizes["encoder"].feature_layer, "mm_vision_select_feature": "patch", "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False, "image_aspect_ratio": "pad" if pad else "square"}
