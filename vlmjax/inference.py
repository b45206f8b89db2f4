"""Modules as they are used, not trained: how their layers are cut, and the model that they make."""
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlmjax import stacks
from vlmjax.models.vit import ViT
from vlmjax.models.vlm import VLM
from vlmjax.train import build


def cut(module: nn.Module, platform: str) -> nn.Module:
    """The module with its stack cut for inference: on a CPU one leaf per layer, since a scan over stacked weights copies them for
    every token (about 2x slower); elsewhere below and above the layer that a language model reads."""
    if not hasattr(module, "segments"):
        return module
    layers = sum(module.segments)
    used = getattr(module.config, "feature_blocks", layers)
    return module.clone(segments=(1,) * layers if platform == "cpu" else tuple(n for n in (used, layers - used) if n))


def typed(parts: Mapping[str, nn.Module], dtype: Any) -> dict[str, jax.ShapeDtypeStruct]:
    """{path in memory: abstract leaf} of modules that are cut for use: `dtype` where a leaf has more than one axis in a layer, else float32."""
    abstract = build.abstract_params(parts)
    return {p: jax.ShapeDtypeStruct(leaf.shape, jnp.dtype(dtype) if leaf.ndim - stacks.is_stacked(p) > 1 else leaf.dtype) for p, leaf in abstract.items()}


def vlm_of(parts: Mapping[str, nn.Module]) -> VLM | None:
    """The model that modules make which are cut for use, None without a language model; it sees where there are an encoder and a projector."""
    if "decoder" not in parts:
        return None
    sees = "encoder" in parts and "projector" in parts
    return VLM(_feature_blocks(parts["encoder"]) if sees else None, parts["projector"] if sees else None, parts["decoder"])


def _feature_blocks(encoder: ViT) -> ViT:
    """The encoder with the segments up to its feature layer: what lies above is not computed."""
    bounds = stacks.segment_bounds(encoder.segments)
    return encoder.clone(segments=tuple(stop - start for start, stop in bounds if stop <= encoder.config.feature_blocks))
