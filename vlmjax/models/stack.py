"""A stack of equal layers: one `nn.scan` per segment, so compile time does not grow with depth (see vlmjax/stacks.py)."""
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlmjax.errors import UserError, did_you_mean
from vlmjax.models.attention import SOFTMAX, Asked
from vlmjax.stacks import segment_bounds, segment_name

# What the backward pass keeps of a layer's forward pass (None: everything); the rest is computed again. Two numbers per query and head are kept in any case.
_SOFTMAX = jax.checkpoint_policies.save_only_these_names(SOFTMAX)
REMAT: dict[str, Callable[..., bool] | None] = {
    "none": None,
    "dots": jax.checkpoint_policies.save_from_both_policies(jax.checkpoint_policies.dots_with_no_batch_dims_saveable, _SOFTMAX),
    "full": _SOFTMAX,
}


class Stack(nn.Module):
    """Runs sum(segments) blocks one after the other.

    block: makes one layer from a name; a layer maps (x, turns, mask, cache, place, asked) to (x, cache); the cache is that of all its segment's layers
        (attention.Attention).
    segments: lengths of the runs of layers that share stacked parameters, for example (22, 2) → `0-22`, `22-24`.
    unroll: layers per iteration of the loop, True: all (on a CPU that saves 20-30 % of a training step).
    remat: a key of REMAT. Parameters: START-STOP/… with a leading axis [l], l = STOP - START.
    """

    block: Callable[..., nn.Module]
    segments: tuple[int, ...]
    unroll: int | bool = 1
    remat: str = "none"

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        turns: jax.Array | None = None,
        mask: jax.Array | None = None,
        cache: dict[str, Any] | None = None,
        start: jax.Array | None = None,
        asked: Asked | None = None,
        source: jax.Array | None = None,
    ) -> tuple[jax.Array, dict[str, Any] | None]:
        """cache: {segment: of `init_cache`} or None; every layer reads the same turns (attention.rotations), mask and start. asked: the tokens that come out
        (attention.take): the last layer, which needs a segment of its own, is computed for them alone, and the numbers are those of all tokens. source: what every layer
        reads beside x, by that name, as the Q-Former's do the image."""
        if asked is not None and self.segments[-1] != 1:
            raise ValueError(f"the last layer of the segments {self.segments} does not stand alone")
        if self.remat not in REMAT:
            raise UserError(f"remat: {self.remat!r} is not one of {', '.join(REMAT)}{did_you_mean(self.remat, REMAT)}")

        def layer(block, carry, number, turns, mask, start, source):
            x, cache = block(carry[0], turns, mask, carry[1], (number, start), **({} if source is None else {"source": source}))
            block.sow("intermediates", "output", x)  # kept only where a caller makes this collection mutable
            return (x, cache), None

        def last(block, carry, number, turns, mask, start, source):
            x, cache = block(carry[0], turns, mask, carry[1], (number, start), asked)
            return (carry[0], cache), x  # a loop carries one shape: what comes out is not carried

        self.sow("intermediates", "input", x)

        caches = {}
        for first, stop in segment_bounds(self.segments):
            name, length = segment_name(first, stop), stop - first
            unroll = length if self.unroll is True else min(max(int(self.unroll), 1), length)
            policy = REMAT[self.remat]
            # jax makes no loop of 0, and one of a single iteration copies what it carries: a cache, for every token. Without a cache that loop is worth a
            # quarter of a training step on a CPU: XLA orders what stands in it by itself.
            per_iteration = 0 if unroll == length and cache is not None else unroll
            # A loop keeps XLA from merging the recomputation with the forward pass; without one it must be forbidden to.
            ends = asked is not None and stop == sum(self.segments)
            body = last if ends else layer
            body = body if policy is None else nn.remat(body, prevent_cse=unroll == length, policy=policy)
            scan = nn.scan(
                body,
                variable_axes={"params": 0, "intermediates": 0},
                split_rngs={"params": True, "dropout": True},
                in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast, nn.broadcast),
                length=length,
                unroll=per_iteration,
            )
            (x, caches[name]), out = scan(self.block(name=name), (x, cache and cache[name]), cache and jnp.arange(length), turns, mask, start, source)
            if ends:
                (x,) = out
        return x, (cache and caches)


def hidden_states(captured: Mapping[str, Any]) -> jax.Array:
    """What a stack computed on the way, f[L+1, B, T, D]: its input, then the output of each layer.

    captured: the collection `intermediates` of the stack, from `apply(…, mutable=["intermediates"])`.
    """
    segments = sorted((name for name in captured if name != "input"), key=lambda name: int(name.partition("-")[0]))
    return jnp.concatenate([captured["input"][0][None], *(captured[name]["output"][0] for name in segments)])
