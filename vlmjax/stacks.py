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


def host_view(leaf: Any) -> Any:
    """The leaf as a view of NumPy's if all of it lies in this process's memory, in one piece; else itself. Views are cut and stacked without a program, and compiling
    one takes longer than moving the parameters of a small model."""
    whole = isinstance(leaf, jax.Array) and leaf.is_fully_addressable and leaf.is_fully_replicated and next(iter(leaf.devices())).platform == "cpu"
    return np.asarray(leaf) if whole else leaf


def collect(by_layer: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `expand`: leaves for exactly the in-memory paths of `like`, stacked from `by_layer` (more may be in it)."""
    return {path: jnp.stack([jnp.asarray(by_layer[p]) for p in layer_paths(path)]) if is_stacked(path) else by_layer[path] for path in like}


def place(by_layer: Mapping[str, Any], like: Mapping[str, Any], shardings: Mapping[str, jax.sharding.Sharding] | None = None) -> dict[str, jax.Array]:
    """`collect`, onto devices and in the dtypes of `like`. Of arrays on the host (views of a file, say) each device is given its own
    part and no other: neither a stack nor a whole leaf is ever put together on the host. shardings: {path in memory: where}, None: the first device."""
    out, layers = {}, dict(by_layer)
    on_device = {path: any(isinstance(by_layer[p], jax.Array) for p in layer_paths(path)) for path in like}
    for path, leaf in like.items():
        where = shardings[path] if shardings else jax.sharding.SingleDeviceSharding(jax.devices()[0])
        if not on_device[path]:
            out[path] = _place(leaf, [by_layer[p] for p in layer_paths(path)], is_stacked(path), where)
            continue
        for p in layer_paths(path):  # a stack of which some layers are on the host: these go first
            if not isinstance(layers[p], jax.Array):
                one = jax.ShapeDtypeStruct(layers[p].shape, leaf.dtype)
                layers[p] = _place(one, [layers[p]], False, _of_layer(where) if is_stacked(path) else where)
    if moved := {path: leaf for path, leaf in like.items() if on_device[path]}:
        cast = lambda layers: {path: leaf.astype(moved[path].dtype) for path, leaf in collect(layers, moved).items()}
        needed = {p: layers[p] for path in moved for p in layer_paths(path)}
        out |= jax.jit(cast, out_shardings={path: shardings[path] for path in moved} if shardings else None)(needed)
    return {path: out[path] for path in like}


def _place(leaf: Any, layers: Sequence[Any], stacked: bool, where: jax.sharding.Sharding) -> jax.Array:
    """One leaf from its layers on the host. The part of one device is made after that of another has left, so that no more of a stack is held."""
    places: dict[tuple, list[jax.Device]] = {}
    for device, index in where.addressable_devices_indices_map(leaf.shape).items():
        places.setdefault(tuple((at.start, at.stop) for at in index), []).append(device)
    shards = []
    for bounds, devices in places.items():
        index = tuple(slice(*bound) for bound in bounds)
        shape = tuple(len(range(*at.indices(size))) for size, at in zip(leaf.shape, index))
        if stacked:
            block = np.empty(shape, leaf.dtype)
            for i, layer in enumerate(layers[index[0]]):
                block[i] = layer[index[1:]]  # copied and cast at once
        else:
            block = np.array(layers[0][index], leaf.dtype, order="C").reshape(shape)
        shards += [jax.device_put(block, device) for device in devices]
    return jax.make_array_from_single_device_arrays(leaf.shape, where, shards)


def _of_layer(where: jax.sharding.Sharding) -> jax.sharding.Sharding:
    """Where one layer lies of a stack that lies there; the axis of a stack is never split."""
    if isinstance(where, jax.sharding.NamedSharding):
        return jax.sharding.NamedSharding(where.mesh, jax.sharding.PartitionSpec(*where.spec[1:]))
    return where


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
