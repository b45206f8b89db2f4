"""Proof that a stage did what its rules say: what was frozen did not move, cost nothing and kept no state; what learns is reached.

Each check raises `ProofError`, which ends the stage before anything of it is used or exported.
"""
import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from vlmjax import param_rules, stacks
from vlmjax.errors import UserError
from vlmjax.train import flops


class ProofError(UserError):
    """A run is not doing what its config says."""


# --- bits: frozen parameters did not move ---------------------------------------------------------------------------------

_LANES = (0x9E3779B9, 0x85EBCA6B, 0xC2B2AE35, 0x27D4EB2F)  # four 32-bit sums make a 128-bit digest
_UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}


def _mix(x: jax.Array) -> jax.Array:
    """A bijection of 32-bit words in which every input bit reaches every output bit (a multiply and xor-shift finaliser)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


@functools.partial(jax.jit, static_argnames="stacked")
def _digest(x: jax.Array, stacked: bool) -> jax.Array:
    """u32[4], or u32[L, 4] for a stack: sums modulo 2³² of mixed (bits, index within the layer).

    A sum needs no order, so it is computed on the shards and comes out the same on every mesh and number of hosts. Compiled per
    shape, not per tree: the leaves of a model have few shapes.
    """
    dims = x.shape[1:] if stacked else x.shape
    bits = x.astype(jnp.uint32) if x.dtype == bool else jax.lax.bitcast_convert_type(x, _UNSIGNED[x.dtype.itemsize]).astype(jnp.uint32)
    index, stride = jnp.zeros(x.shape, jnp.uint32), 1
    for axis in reversed(range(x.ndim - len(dims), x.ndim)):
        index += jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis) * jnp.uint32(stride % 2**32)
        stride *= x.shape[axis]
    axes = tuple(range(x.ndim - len(dims), x.ndim))
    lanes = jnp.array(_LANES, jnp.uint32)
    return jnp.sum(_mix(bits[..., None] + _mix(index[..., None] ^ lanes)), axis=axes, dtype=jnp.uint32)



def digests(tree: Any) -> dict[str, str]:
    """{path by layer: "shape dtype digest"}; equal for every mesh, host count and way of cutting stacks."""
    flat = param_rules.flatten(tree)
    rows = {}
    for path, leaf in flat.items():
        stacked = stacks.is_stacked(path)
        # One at a time: sums over shards that many programs have under way at once can block each other on a CPU's virtual devices.
        digest = jax.block_until_ready(_digest(leaf, stacked=stacked))
        dims = leaf.shape[1:] if stacked else leaf.shape
        for by_layer, lanes in zip(stacks.layer_paths(path), np.asarray(digest).reshape(-1, len(_LANES))):
            rows[by_layer] = f"{list(dims)} {leaf.dtype} " + "".join(f"{int(lane):08x}" for lane in lanes)
    return rows


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

def check_flops(stage: str, step: Callable, gradients: Callable, args: tuple, gradient_args: tuple) -> int:
    """The step costs no more than the gradient of the trainable tree alone (the optimizer has no matrix products). → FLOPs."""
    spent, floor = flops.count(step, *args), flops.count(gradients, *gradient_args)
    if spent > floor * 1.001:
        raise ProofError(f"stage {stage}: a step takes {spent:,} FLOPs where forward and trainable gradients need {floor:,}: it differentiates frozen parameters")
    return spent


# --- reach: what is to learn is reached by the loss -------------------------------------------------------------------------

def check_reachable(stage: str, gradients: Callable, gradient_args: tuple, trainable: Any) -> None:
    """No gradient of a trainable leaf is a constant of the program (weight decay alone would move it)."""
    closed, out = jax.make_jaxpr(gradients, return_shape=True)(*gradient_args)
    flat = param_rules.flatten(out[1])
    results = closed.jaxpr.outvars[-len(flat):]
    fed = set(closed.jaxpr.invars)
    for eqn in closed.jaxpr.eqns:
        if any(not isinstance(v, core.Literal) and v in fed for v in eqn.invars):
            fed.update(eqn.outvars)
    for path, var in zip(flat, results):
        if isinstance(var, core.Literal) or var not in fed:
            raise ProofError(f"stage {stage}: the loss does not depend on the trainable parameter {path}; freeze it, or use it")


def check_reached(stage: str, reached: Mapping[str, Any], steps: int) -> None:
    """Every trainable leaf, and every layer of a stack, has had a gradient other than 0."""
    for path, seen in reached.items():
        for by_layer, one in zip(stacks.layer_paths(path), np.asarray(seen).reshape(-1)):
            if not one:
                raise ProofError(f"stage {stage}: the trainable parameter {by_layer} had no gradient in {steps} steps; freeze it, or use it")
