"""The mesh, and by the same rule language where every parameter, optimizer moment and batch row lies on it.

Axes: `replica` (copies of the parameters; the only one that leaves a slice), `fsdp` (parameters split, rows split), `tensor` (heads, MLP
width and vocabulary split, rows shared). Rows of a batch are split over `replica` and `fsdp`.
"""
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vlmjax import param_rules, stacks
from vlmjax.errors import UserError

AXES = ("replica", "fsdp", "tensor")

# Activation axes by the names models give them → mesh axes (flax logical axis rules).
ACTIVATIONS = (("batch", ("replica", "fsdp")), ("length", None), ("embed", None), ("heads", "tensor"), ("mlp", "tensor"), ("vocab", "tensor"))

# Total, not tight: one table serves every model. Values name the mesh axis of each dimension of ONE layer's leaf.
PARAMETERS: param_rules.Rules = (
    (r".*attention/[qkv]/kernel", ("fsdp", "tensor", None)),
    (r".*attention/o/kernel", ("tensor", None, "fsdp")),
    (r".*mlp/(up|gate)/kernel", ("fsdp", "tensor")),
    (r".*mlp/down/kernel", ("tensor", "fsdp")),
    # Adapters lie as the kernel beside them does.
    (r".*attention/[qkv]_lora/a", ("fsdp", None)),
    (r".*attention/[qkv]_lora/b", (None, "tensor", None)),
    (r".*attention/o_lora/a", ("tensor", None, None)),
    (r".*mlp/(up|gate)_lora/a", ("fsdp", None)),
    (r".*mlp/(up|gate)_lora/b", (None, "tensor")),
    (r".*mlp/down_lora/a", ("tensor", None)),
    (r".*(attention/o|mlp/down)_lora/b", (None, "fsdp")),
    (r"projector/linear_\d+/kernel", ("fsdp", None)),
    (r"decoder/embed", ("tensor", "fsdp")),
    (r"decoder/head", ("fsdp", "tensor")),
    (r"decoder/added_embed", (None, "fsdp")),
    (r"decoder/added_head", ("fsdp", None)),
    (r"text_tower/embed", ("tensor", "fsdp")),
    (r".*_projection", ("fsdp", None)),
    (r".*patch_embed/kernel", (None, None, None, "fsdp")),
    (r".*", ()),
)


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis; −1 on at most one axis means all that are left."""

    replica: int = 1
    fsdp: int = -1
    tensor: int = 1


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None, where: str = "mesh") -> Mesh:
    """where: the key that names it, for what is wrong with it."""
    devices = list(devices if devices is not None else jax.devices())
    sizes = [config.replica, config.fsdp, config.tensor]
    text = ", ".join(f"{axis} {size}" for axis, size in zip(AXES, sizes))
    if any(size == 0 or size < -1 for size in sizes) or sizes.count(-1) > 1:
        raise UserError(f"{where}: {text}: sizes are positive, and at most one may be -1")
    fixed = math.prod(size for size in sizes if size != -1)
    if -1 in sizes and len(devices) % fixed == 0:
        sizes[sizes.index(-1)] = len(devices) // fixed
    if math.prod(sizes) != len(devices):
        raise UserError(f"{where}: {text} does not use exactly the {len(devices)} devices there are")
    grid = np.asarray(devices).reshape(sizes)
    slices = np.vectorize(lambda device: getattr(device, "slice_index", None) or 0, otypes=[int])(grid)
    if (slices != slices[:, :1, :1]).any():
        count = len(np.unique(slices))
        raise UserError(f"{where}: {text} splits what one replica holds over {count} slices, and only replicas may talk over the network between slices; set {where}.replica to a multiple of {count}")
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def row_shards(mesh: Mesh) -> int:
    """The number of parts that the rows of a batch are split into."""
    return mesh.shape["replica"] * mesh.shape["fsdp"]


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def batch(mesh: Mesh) -> NamedSharding:
    """Every key of the batch contract is split by rows and by nothing else."""
    return NamedSharding(mesh, PartitionSpec(("replica", "fsdp")))


def own_rows(mesh: Mesh, rows: int) -> tuple[slice, bool]:
    """(the rows of a batch that this process feeds to its devices, whether it is the first that feeds these).

    Where the tensor axis spans processes, several feed the same rows.
    """
    parts: dict[int, set[tuple[int, int]]] = {}
    for device, (part, *_) in batch(mesh).devices_indices_map((rows,)).items():
        parts.setdefault(device.process_index, set()).add(part.indices(rows)[:2])
    spans = {process: (min(start for start, _ in own), max(stop for _, stop in own)) for process, own in parts.items()}
    start, stop = spans[jax.process_index()]
    if sum(b - a for a, b in parts[jax.process_index()]) != stop - start:
        raise UserError(f"mesh: {dict(mesh.shape)} gives process {jax.process_index()} rows that do not follow each other; give it another order of axes")
    return slice(start, stop), jax.process_index() == min(process for process, span in spans.items() if span == (start, stop))


def spec(dims: tuple[int, ...], axes: Sequence[str | None], mesh: Mesh) -> PartitionSpec:
    """The rule's axes, less those that do not divide their dimension (the leaf is whole along it)."""
    return PartitionSpec(*(axis if axis and size % mesh.shape[axis] == 0 else None for size, axis in zip(dims, axes)))


def parameters(flat: Mapping[str, Any], mesh: Mesh) -> dict[str, NamedSharding]:
    """{path in memory or by layer: abstract leaf} → {path: sharding}. The axis of a stack is never split."""
    by_layer = {path: stacks.layer_paths(path)[0] for path in flat}
    axes = param_rules.match(PARAMETERS, by_layer.values(), what="sharding", tight=False)
    out = {}
    for path, leaf in flat.items():
        dims = leaf.shape[1:] if stacks.is_stacked(path) else leaf.shape
        own = spec(dims, axes[by_layer[path]], mesh)
        out[path] = NamedSharding(mesh, PartitionSpec(None, *own) if stacks.is_stacked(path) else own)
    return out


def like_parameters(state: Any, params: Mapping[str, Any], of_params: Mapping[str, NamedSharding], mesh: Mesh) -> Any:
    """Shardings for an optimizer state: a leaf that has the path (as its end) and the shape of a parameter lies as that one does."""
    def place(path, leaf):
        keys = [str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path]
        for start in range(len(keys)):
            name = "/".join(keys[start:])
            if name in params and params[name].shape == leaf.shape:
                return of_params[name]
        return replicated(mesh)

    return jax.tree_util.tree_map_with_path(place, state)
