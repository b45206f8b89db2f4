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
    (r"projector/linear_\d+/kernel", ("fsdp", "tensor")),
    (r"decoder/embed", ("tensor", "fsdp")),
    (r"decoder/head", ("fsdp", "tensor")),
    (r"decoder/added_embed", (None, "fsdp")),
    (r"decoder/added_head", ("fsdp", None)),
    (r"text_tower/embed", ("tensor", "fsdp")),
    (r".*_projection", ("fsdp", None)),
    (r".*patch_embed/kernel", (None, None, None, "fsdp")),
    (r".*", ()),
)


# Bytes that a device may hold for want of a split before it is anybody's business: biases and norms outweigh the rest of a small model.
NEGLIGIBLE = 64 * 2**20


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
    """Shardings for an optimizer state: a leaf that belongs to a parameter lies as that one does."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: of_params.get(_owner(path, leaf, params)) or replicated(mesh), state)


def _owner(path: Any, leaf: Any, params: Mapping[str, Any]) -> str | None:
    """The parameter whose path ends that of a leaf of an optimizer state, and whose shape the leaf has."""
    keys = [str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path]
    names = ("/".join(keys[start:]) for start in range(len(keys)))
    return next((name for name in names if name in params and params[name].shape == leaf.shape), None)


def held(leaf: jax.ShapeDtypeStruct) -> int:
    """Bytes of it on each device."""
    return math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize


@dataclasses.dataclass(frozen=True)
class Unsharded:
    """What a device holds more of a train state than it would if all of it were split evenly over fsdp x tensor: because a size does not divide, or no rule splits it.

    held: bytes of parameters and moments on each device; leaves: {path in memory: bytes of them too many, with its moments}, the most first.
    """

    held: int
    leaves: Mapping[str, int]

    @property
    def whole(self) -> int:
        return sum(self.leaves.values())

    @property
    def share(self) -> float:
        return self.whole / self.held if self.held else 0.0


def unsharded(params: Mapping[str, jax.ShapeDtypeStruct], opt_state: Any, mesh: Mesh) -> Unsharded:
    """params: {path in memory: leaf with its sharding}, learned and frozen."""
    parts = mesh.shape["fsdp"] * mesh.shape["tensor"]
    moments = [(_owner(path, leaf, params), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(opt_state)]
    pairs = [*params.items(), *((name, leaf) for name, leaf in moments if name)]
    extra = dict.fromkeys(params, 0)
    for name, leaf in pairs:
        extra[name] += held(leaf) - math.prod(leaf.shape) * leaf.dtype.itemsize // parts
    return Unsharded(sum(held(leaf) for _, leaf in pairs), {name: size for name, size in sorted(extra.items(), key=lambda pair: -pair[1]) if size})


def check_unsharded(found: Unsharded, limit: float, params: Mapping[str, Any], mesh: Mesh, where: str) -> None:
    """UserError where more than a share of what each device holds, and more than NEGLIGIBLE, is there for want of a split. where: the key that has the limit."""
    if found.whole <= NEGLIGIBLE or found.share <= limit:
        return
    most = list(found.leaves.items())[:3]
    named = "; ".join(f"{size / 2**20:,.0f} MiB of {path} {list(params[path].shape)}: {_why_whole(path, params[path].shape, mesh)}" for path, size in most)
    raise UserError(f"{where}: of the {found.held / 2**20:,.0f} MiB of parameters and moments on each device {found.whole / 2**20:,.0f} ({100 * found.share:.1f} %, at most {100 * limit:g} % are tolerated) "
                    f"are there because they are not split over fsdp {mesh.shape['fsdp']} x tensor {mesh.shape['tensor']}: {named}; take a mesh that divides these sizes, or raise {where}")


def _why_whole(path: str, dims: tuple[int, ...], mesh: Mesh) -> str:
    """Which sizes an axis does not divide, and which axes no rule gives it."""
    path, dims = stacks.layer_paths(path)[0], dims[1:] if stacks.is_stacked(path) else dims
    axes = param_rules.match(PARAMETERS, [path], what="sharding", tight=False)[path]
    reasons = [f"{size} does not divide over {axis} {mesh.shape[axis]}" for size, axis in zip(dims, axes) if axis and size % mesh.shape[axis]]
    if absent := [axis for axis in ("fsdp", "tensor") if mesh.shape[axis] > 1 and axis not in axes]:
        reasons.append(f"no rule splits it over {' or '.join(absent)}")
    return " and ".join(reasons)
