"""How a stack of equal layers lies in memory, and how it is addressed.

On disk and in rules a layer has its own path:      decoder/layers/17/attention/q/kernel          [D, N, H]
In memory contiguous layers share one stacked leaf: decoder/layers/0-24/attention/q/kernel  [24, D, N, H]

A stack is cut into segments wherever two neighbouring layers differ in label (frozen or not), learning rate or use; each
segment is one `nn.scan`. So training the last k blocks or leaving out the last one needs no mechanism of its own.
"""
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_SEGMENT = re.compile(r"(.*/)?layers/(\d+)-(\d+)/(.*)")
_LAYER = re.compile(r"(.*/)?layers/(\d+)/(.*)")


def segment_name(start: int, stop: int) -> str:
    """The key under `layers` of the stacked leaves of layers start … stop-1."""
    return f"{start}-{stop}"


def segment_bounds(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """(3, 1) → [(0, 3), (3, 4)]."""
    bounds, start = [], 0
    for length in lengths:
        bounds.append((start, start + length))
        start += length
    return bounds


def layer_paths(path: str) -> list[str]:
    """The per-layer paths that a leaf in memory stands for: itself, unless it is stacked."""
    m = _SEGMENT.fullmatch(path)
    if not m:
        return [path]
    return [f"{m[1] or ''}layers/{i}/{m[4]}" for i in range(int(m[2]), int(m[3]))]


def is_stacked(path: str) -> bool:
    return _SEGMENT.fullmatch(path) is not None


def expand(flat: Mapping[str, Any]) -> dict[str, Any]:
    """{path in memory: leaf} → {path by layer: leaf}. Abstract leaves stay abstract."""
    out = {}
    for path, leaf in flat.items():
        if not is_stacked(path):
            out[path] = leaf
            continue
        for i, by_layer in enumerate(layer_paths(path)):
            out[by_layer] = jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype) if isinstance(leaf, jax.ShapeDtypeStruct) else leaf[i]
    return out


def collect(by_layer: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `expand`: leaves for exactly the in-memory paths of `like`, stacked from `by_layer` (more may be in it)."""
    return {path: jnp.stack([jnp.asarray(by_layer[p]) for p in layer_paths(path)]) if is_stacked(path) else by_layer[path] for path in like}


def place(by_layer: Mapping[str, Any], like: Mapping[str, Any], shardings: Mapping[str, jax.sharding.Sharding] | None = None) -> dict[str, jax.Array]:
    """`collect`, onto devices and in the dtypes of `like`. Of arrays on the host (views of a file, say) each device is given its own
    part and no other: neither a stack nor a whole leaf is ever put together on the host. shardings: {path in memory: where}, None: the first device."""
    out = {}
    for path, leaf in like.items():
        layers = [by_layer[p] for p in layer_paths(path)]
        if isinstance(layers[0], jax.Array):
            whole = (jnp.stack(layers) if is_stacked(path) else layers[0]).astype(leaf.dtype)
            out[path] = jax.device_put(whole, shardings[path]) if shardings else whole
            continue

        def part(index, layers=layers, leaf=leaf, stacked=is_stacked(path)):
            if not stacked:
                return np.ascontiguousarray(layers[0][index].astype(leaf.dtype)).reshape(_size(leaf.shape, index))
            own = layers[index[0]]
            block = np.empty((len(own), *_size(leaf.shape[1:], index[1:])), leaf.dtype)
            for i, layer in enumerate(own):
                block[i] = layer[index[1:]]  # copied and cast at once
            return block

        where = shardings[path] if shardings else jax.sharding.SingleDeviceSharding(jax.devices()[0])
        out[path] = jax.make_array_from_callback(leaf.shape, where, part)
    return out


def _size(shape: Sequence[int], index: Sequence[slice]) -> tuple[int, ...]:
    """The shape of an array of this shape at these slices."""
    return tuple(len(range(*at.indices(size))) for size, at in zip(shape, index))


def cut(labels: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """{path by layer: label} → {stack: lengths of its segments}, fewest segments such that all labels agree inside each.

    A stack is named by the path of its `layers`, for example `decoder/layers`.
    """
    stacks: dict[str, dict[int, dict[str, Any]]] = {}
    for path, label in labels.items():
        if m := _LAYER.fullmatch(path):
            stacks.setdefault((m[1] or "") + "layers", {}).setdefault(int(m[2]), {})[m[3]] = label
    lengths = {}
    for stack, layers in stacks.items():
        out = [1]
        for i in range(1, len(layers)):
            if layers[i] == layers[i - 1]:
                out[-1] += 1
            else:
                out.append(1)
        lengths[stack] = tuple(out)
    return lengths
