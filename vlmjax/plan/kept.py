"""What the backward pass of a step reads of its forward pass, by component, from the traced program and from shapes alone.

The compiled program has no such account: its buffers hold one thing after the other, and it may compute again, fuse or copy what is kept here. So these are
bytes of the program as it is written, beside the peak that the compiler states: parameters and their casts are left out, and so are gradients and everything
that lives inside one layer. An activation is told from the rest by its size, which grows with the number of rows. Of the axes of the mesh only those that
split rows are counted: with `tensor`, a device holds at most as much.
"""
import dataclasses
import math
import re
from typing import Any

import jax
from jax.extend import core

from vlmjax import optim
from vlmjax.data import batch as batches
from vlmjax.sharding import row_shards
from vlmjax.train import build

REST = "between"  # masks, merging, picking, the loss with its logits
ROWS = 7919  # a prime that is no other size: an axis that it divides is one of rows


def stage(stage: build.Stage) -> dict[str, int]:
    """{component, or REST: bytes of one device} in one micro-batch."""
    names = {type(getattr(stage.model, name)).__name__: name for name in stage.components}
    out = dict.fromkeys((*stage.components, REST), 0)
    rows = stage.config.batch // stage.config.accumulate
    for shape, size, scope in residuals(stage):
        count = sum(dim % ROWS == 0 for dim in shape)
        if count:
            owner = next((name for kind, name in names.items() if re.search(rf"\b{kind}\b", scope)), REST)
            # A second axis of rows, as similarities have, is whole on every device.
            out[owner] += round(size / ROWS**count * rows**count / row_shards(stage.mesh))
    return out


def residuals(stage: build.Stage) -> list[tuple[tuple[int, ...], int, str]]:
    """(shape, bytes, scope in the model) of what is kept for ROWS rows, but for what the step was given. Nothing is named after a mesh."""
    shape = dataclasses.replace(stage.shape, rows=ROWS)
    batch = {k: jax.ShapeDtypeStruct(dims, dtype) for k, (dims, dtype) in batches.spec(stage.config.objective, shape).items()}

    def forward(trainable: Any, frozen: Any, batch: Any):
        return jax.vjp(lambda learned: stage.loss(optim.merge(learned, frozen), batch)[0], trainable)[1]

    jaxpr = jax.make_jaxpr(forward)(stage.abstract.learned.trainable, stage.abstract.frozen, batch).jaxpr
    made = {var: str(eqn.source_info.name_stack) for eqn in jaxpr.eqns for var in eqn.outvars}
    kept = dict.fromkeys(var for var in jaxpr.outvars if not isinstance(var, core.Literal) and var in made)
    return [(var.aval.shape, math.prod(var.aval.shape) * var.aval.dtype.itemsize, made[var]) for var in kept]
