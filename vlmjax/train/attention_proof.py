"""Proof that a kernel is the attention it stands for: before the first step it and the plain one compute the same random row on the devices of the mesh."""
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from vlmjax import sharding
from vlmjax.models.attention import BySegments, attend, visible
from vlmjax.train import build, once
from vlmjax.train.proof import ProofError

LENGTH = 512  # of the row, where the stage's is not shorter: the plain attention writes all its logits
# How far they may be apart, of the norm of what the plain one computes in float32. A key too many or too few for one query in a hundred moves it by more.
TOLERANCE = {2: 0.03, 4: 1e-3}  # by the bytes of a number


def check(stage: build.Stage) -> dict[str, Any]:
    """What record.json says of the attention of a stage's language model: what it is, in words, and of a kernel its `attention_error`, the largest relative error of its output and of its
    gradients of queries, keys and values against the plain attention in float32, for rows of four segments and padding, one for each share of the mesh. ProofError where that is not small."""
    decoder = getattr(stage.model, "decoder", None)
    if decoder is None or decoder.attend is attend:
        return {} if decoder is None else {"attention": stage.attention}
    c, T, dtype = decoder.config, min(stage.config.length, LENGTH), jnp.dtype(decoder.dtype)

    def apart():
        keys, B = jax.random.split(jax.random.key(0), 4), sharding.row_shards(stage.mesh)
        split = lambda x: jax.lax.with_sharding_constraint(x, NamedSharding(stage.mesh, PartitionSpec(("replica", "fsdp"))))
        order = jnp.broadcast_to(jnp.arange(T), (B, T))
        segments = split(jnp.searchsorted(jnp.array([T // 7, T // 3, T // 3 + 1, T - T // 8]), order, side="right") + 1) % 5  # the last, 0, is padding
        inputs = [split(jax.random.normal(key, (B, T, heads, c.head_dim), dtype)) for key, heads in zip(keys, (c.heads, c.kv_heads, c.kv_heads))]
        weights = split(jax.random.normal(keys[3], (B, T, c.heads, c.head_dim)) * (segments > 0)[:, :, None, None])
        mask = visible(segments, order, jnp.zeros_like(segments), segments, order, window=c.window)

        def run(function, inputs, seen):
            out, pull = jax.vjp(lambda *x: function(*x, seen), *inputs)
            return (weights * out, *pull(weights.astype(out.dtype)))

        found = run(decoder.attend, inputs, segments if isinstance(decoder.attend, BySegments) else mask)
        wanted = run(attend, [x.astype(jnp.float32) for x in inputs], mask)
        return jnp.stack([jnp.linalg.norm((a - b).astype(jnp.float32)) / jnp.linalg.norm(b) for a, b in zip(found, wanted, strict=True)]).max()

    with build.context(stage.mesh), jax.default_matmul_precision("highest"):
        error = float(once.run(apart, out_shardings=NamedSharding(stage.mesh, PartitionSpec())))
    if not error <= TOLERANCE[dtype.itemsize]:
        raise ProofError(f"stage {stage.name}: its attention, {stage.attention}, computes something else than the plain one on these devices (relative error {error:.2g}); "
                         f"take stages.{stage.name}.attention='plain'")
    return {"attention": stage.attention, "attention_error": error}
