"""Proof that a stage did what its rules say: what was frozen did not move, cost nothing and kept no state; what learns is reached.

Each check raises `ProofError`, which ends the stage before anything of it is used or exported.
"""
import functools
import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.extend import core
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vlmjax import param_rules, stacks
from vlmjax.errors import UserError
from vlmjax.train import flops


class ProofError(UserError):
    """A run is not doing what its config says."""


# --- bits: frozen parameters did not move ---------------------------------------------------------------------------------

_LANES = np.array((0x9E3779B9, 0x85EBCA6B, 0xC2B2AE35, 0x27D4EB2F), np.uint32)  # four 32-bit sums make a 128-bit digest
_AT_ONCE = 1 << 20  # elements on a device: a CPU writes out some 50 bytes for each while it sums them
_BLOCK = 1 << 15  # elements on the host: what NumPy writes of them stays in a core's cache
_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32}


def _mix(x: Any) -> Any:
    """A bijection of 32-bit words in which every input bit reaches every output bit (a multiply and xor-shift finaliser)."""
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)


def _sum(x: Any, first: Any, strides: Sequence[int], stacked: bool) -> Any:
    """u32[1, 4], or u32[L, 4] of a stack: sums modulo 2³² of mixed (bits, index within the layer) over a block that begins at the index `first`.
    x: an array of JAX or, on the host, of NumPy; the same sums of both."""
    xp = np if isinstance(x, np.ndarray) else jnp
    bits = (x if x.dtype == bool else x.view(_UNSIGNED[x.dtype.itemsize])).astype(np.uint32)
    index = xp.full((1,) * x.ndim, first, np.uint32)
    for axis, stride in enumerate(strides, start=int(stacked)):
        index = index + (xp.arange(x.shape[axis], dtype=np.uint32) * np.uint32(stride)).reshape(-1, *(1,) * (x.ndim - 1 - axis))
    lanes = _LANES.reshape(-1, *(1,) * x.ndim)
    mixed = _mix(bits + _mix(index ^ lanes))
    return xp.sum(mixed, axis=tuple(range(1 + stacked, 1 + x.ndim)), dtype=np.uint32).reshape(len(_LANES), -1).T


def _strides(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(math.prod(shape[i + 1 :]) % 2**32 for i in range(len(shape)))


def _on_host(leaf: jax.Array) -> bool:
    return leaf.addressable_shards[0].device.platform == "cpu"


def _host_sums(leaf: jax.Array, stacked: bool) -> np.ndarray:
    """`_sums` of one leaf that lies in the host's memory, by NumPy: 22 ns for an element where a program takes 3, but nothing is compiled, and that takes seconds
    for the many small leaves of a model."""
    one = int(stacked)
    steps, total = _strides(leaf.shape[one:]), np.zeros((leaf.shape[0] if one else 1, len(_LANES)), np.uint32)
    for shard in leaf.addressable_shards:
        if shard.replica_id or (not isinstance(leaf.sharding, NamedSharding) and jax.process_index()):
            continue  # another copy
        part = np.asarray(shard.data)
        part = part if one else part[None]
        first = sum((axis.start or 0) * step for axis, step in zip(shard.index[one:], steps))
        if part.ndim == 1:
            part, steps = part[:, None], (1,)
        rows = max(1, _BLOCK * part.shape[1] // max(part[0].size, 1))
        for layer in range(len(part)):
            for row in range(0, part.shape[1], rows):
                total[layer] += _sum(part[layer, row : row + rows], (first + row * steps[0]) % 2**32, steps, False)[0]
    return total


@functools.partial(jax.jit, static_argnames=("stacked", "specs", "mesh", "rows"))
def _digests(leaves: tuple[jax.Array, ...], layer: int, row: int, *, stacked: tuple[bool, ...], specs: tuple[PartitionSpec, ...], mesh: Mesh | None,
             rows: int) -> list[jax.Array]:
    """Of each leaf u32[devices, L, 4]: the sums over each device's own part; nothing passes between devices. rows: of that many, from
    `row` on, of one layer (L = 1); 0 for all. mesh None: one device."""
    strides = [_strides(x.shape[one:]) for x, one in zip(leaves, stacked)]

    def own(layer, row, *parts):
        out = []
        for x, steps, one, spec in zip(parts, strides, stacked, specs):
            first = jnp.uint32(0)
            for axis, name in enumerate(spec):
                if name is not None:  # the axis of a stack has none
                    first += jax.lax.axis_index(name).astype(jnp.uint32) * jnp.uint32(x.shape[axis] * steps[axis - one] % 2**32)
            if rows:
                x = jax.lax.dynamic_slice_in_dim(jax.lax.dynamic_index_in_dim(x, layer) if one else x, row, rows, axis=int(one))
                first += row.astype(jnp.uint32) * jnp.uint32(steps[0])
            out.append(_sum(x, first, steps, one).reshape(1, -1, len(_LANES)))
        return out

    if mesh is None:
        return own(layer, row, *leaves)
    none = PartitionSpec()
    return jax.shard_map(own, mesh=mesh, in_specs=(none, none, *specs), out_specs=[PartitionSpec(mesh.axis_names)] * len(leaves), check_vma=False)(layer, row, *leaves)


def _sums(leaves: Sequence[jax.Array], stacked: Sequence[bool], mesh: Mesh | None) -> list[np.ndarray]:
    """Of each leaf u32[L, 4]: the sums over what this process counts, one copy of each part."""
    program = functools.partial(_digests, tuple(leaves), stacked=tuple(stacked), specs=tuple(x.sharding.spec if mesh else PartitionSpec() for x in leaves), mesh=mesh)

    def counted(parts):
        for x, part in zip(leaves, parts):
            first_copy = {shard.device for shard in x.addressable_shards if shard.replica_id == 0} if mesh or jax.process_index() == 0 else ()
            yield sum((np.asarray(shard.data)[0] for shard in part.addressable_shards if shard.device in first_copy), np.zeros(part.shape[1:], np.uint32))

    x, one = leaves[0].addressable_shards[0].data, stacked[0]
    if x.size <= _AT_ONCE:
        if _on_host(leaves[0]):
            return [_host_sums(leaf, one) for leaf, one in zip(leaves, stacked)]
        return list(counted(program(np.int32(0), np.int32(0), rows=0)))
    # A large leaf is alone. Its pieces follow each other from here: a loop inside a program would hold another copy of it.
    layers, height = (x.shape[0], x.shape[1]) if one else (1, x.shape[0])
    rows, total = max(1, _AT_ONCE * layers * height // x.size), np.zeros((layers, len(_LANES)), np.uint32)
    for layer in range(layers):
        for row in range(0, height, rows):
            total[layer] += next(counted(program(np.int32(layer), np.int32(row), rows=min(rows, height - row))))[0]
    return [total]


def _groups(leaves: Iterable[tuple[str, Any]]) -> Iterator[tuple[Mesh | None, list[tuple[str, jax.Array]]]]:
    """Runs of leaves that lie on one mesh (None: on one device) and have at most _AT_ONCE elements on a device; a larger leaf alone."""
    run, size, mesh = [], 0, None
    for path, leaf in leaves:
        leaf = jnp.asarray(leaf)
        lies = leaf.sharding.mesh if isinstance(leaf.sharding, NamedSharding) else None
        own = leaf.addressable_shards[0].data.size
        if run and (lies != mesh or size + own > _AT_ONCE):
            yield mesh, run
            run, size = [], 0
        run, size, mesh = [*run, (path, leaf)], size + own, lies
    if run:
        yield mesh, run


def digests_of(leaves: Iterable[tuple[str, Any]]) -> dict[str, str]:
    """(path in memory, array) → {path by layer: "shape dtype digest"}; equal for every mesh, host count and way of cutting stacks.

    A sum needs no order: each process adds up what it holds, and only these sums are exchanged. Small leaves are taken together and each
    large one alone, so a second copy of a model need not be held for it.
    """
    about, sums = [], [np.zeros((0, len(_LANES)), np.uint32)]
    for mesh, run in _groups(leaves):
        stacked = [stacks.is_stacked(path) for path, _ in run]
        sums += _sums([leaf for _, leaf in run], stacked, mesh)
        about += [(p, list(leaf.shape[one:]), leaf.dtype) for (path, leaf), one in zip(run, stacked) for p in stacks.layer_paths(path)]
    total = np.concatenate(sums)
    if jax.process_count() > 1:
        total = np.sum(multihost_utils.process_allgather(total), axis=0, dtype=np.uint32)
    return {path: f"{dims} {dtype} " + "".join(f"{int(lane):08x}" for lane in lanes) for (path, dims, dtype), lanes in zip(about, total)}


def digests(tree: Any) -> dict[str, str]:
    """`digests_of` a whole tree."""
    return digests_of(param_rules.flatten(tree).items())


def sha256(rows: Mapping[str, str]) -> str:
    """The SHA-256 of the sorted table (path, shape, dtype, digest)."""
    return hashlib.sha256("\n".join(f"{path} {rows[path]}" for path in sorted(rows)).encode()).hexdigest()


def check_unchanged(stage: str, before: Mapping[str, str], after: Mapping[str, str], when: str) -> None:
    """Every frozen leaf has the same bits."""
    moved = sorted({*before, *after} - {p for p in before if before[p] == after.get(p)})
    if moved:
        raise ProofError(f"stage {stage}: {len(moved)} frozen parameters changed {when}, the first is {moved[0]}; nothing of this stage is kept")


# --- bytes: frozen parameters have no optimizer state -----------------------------------------------------------------------

def optimizer_bytes(opt_state: Any, components: Iterable[str]) -> dict[str, int]:
    """{component: bytes of optimizer state kept for it}, 0 included; counters and the like belong to no component."""
    components = list(components)
    total = dict.fromkeys(components, 0)
    for path, leaf in param_rules.flatten(opt_state).items():
        owner = next((key for key in path.split("/") if key in total), None)
        if owner and leaf.ndim:
            total[owner] += leaf.size * leaf.dtype.itemsize
    return total


def check_optimizer(stage: str, opt_state: Any, frozen: Any, components: Iterable[str]) -> dict[str, int]:
    """No leaf of the optimizer state belongs to a frozen parameter. → `optimizer_bytes`."""
    held = param_rules.flatten(opt_state)
    for path in param_rules.flatten(frozen):
        if name := next((h for h in held if h == path or h.endswith("/" + path)), None):
            raise ProofError(f"stage {stage}: the optimizer keeps state for the frozen parameter {path} ({held[name].size * held[name].dtype.itemsize} bytes)")
    return optimizer_bytes(opt_state, components)


# --- FLOPs: frozen parameters have no gradient ------------------------------------------------------------------------------

def check_flops(stage: str, step: core.ClosedJaxpr, gradients: core.ClosedJaxpr) -> int:
    """The step costs no more than the gradient of the trainable tree alone (the optimizer has no matrix products). → FLOPs."""
    spent, floor = flops.of_jaxpr(step.jaxpr), flops.of_jaxpr(gradients.jaxpr)
    if spent > floor * 1.001:
        raise ProofError(f"stage {stage}: a step takes {spent:,} FLOPs where forward and trainable gradients need {floor:,}: it differentiates frozen parameters")
    return spent


# --- reach: what is to learn is reached by the loss -------------------------------------------------------------------------

def check_reachable(stage: str, closed: core.ClosedJaxpr, gradient: Any) -> None:
    """No gradient of a trainable leaf is a constant of the program (weight decay alone would move it). gradient: the tree of what the program returns last."""
    flat = param_rules.flatten(gradient)
    results = closed.jaxpr.outvars[-len(flat):]
    fed = set(closed.jaxpr.invars)
    for eqn in closed.jaxpr.eqns:
        if any(not isinstance(v, core.Literal) and v in fed for v in eqn.invars):
            fed.update(eqn.outvars)
    for path, var in zip(flat, results):
        if isinstance(var, core.Literal) or var not in fed:
            raise ProofError(f"stage {stage}: the loss does not depend on the trainable parameter {path}; freeze it, or use it")


def check_reached(stage: str, reached: Mapping[str, Any], steps: int) -> None:
    """Every trainable leaf, and every layer of a stack, has had a gradient (`state.Learned.reached`)."""
    for path, seen in reached.items():
        for by_layer, one in zip(stacks.layer_paths(path), np.asarray(seen).reshape(-1)):
            if not one:
                raise ProofError(f"stage {stage}: the trainable parameter {by_layer} had no gradient in {steps} steps, none whose squares add up to more than 0 in float32; freeze it, or use it")
