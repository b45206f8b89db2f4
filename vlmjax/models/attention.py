"""Attention: who sees whom, rotary positions, and the projections around a plain attention that a kernel can replace."""
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from vlmjax.models.lora import LoRAConfig, adapt
from vlmjax.models.parts import fan_in, name_axes, products, wide

Attend = Callable[[jax.Array, jax.Array, jax.Array, jax.Array | None], jax.Array]
Cache = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class BySegments:
    """An attention with a rule of its own, simpler than `visible`: a token sees itself and the earlier tokens of its segment, in the order of the row. In place of a
    mask it reads the segments, i32[B, T]; rows with parents or a prefix are not for it."""

    function: Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]

    def __call__(self, q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array) -> jax.Array:
        return self.function(q, k, v, segments)


def visible(
    q_segments: jax.Array,
    q_positions: jax.Array,
    q_parents: jax.Array,
    k_segments: jax.Array,
    k_positions: jax.Array,
    k_prefix: jax.Array | None = None,
    window: int | None = None,
) -> jax.Array:
    """Which keys each query sees, bool[B, T, S]; the rule of the batch contract (data/batch.py).

    q_*: i32[B, T]. k_segments, k_positions: i32[B, S]. k_prefix: bool[B, S], keys that every query of their segment sees.
    window: a query also sees no key `window` or more positions behind it. One packed row with an image head (1) and two
    questions about it (2 and 3, children of 1), then padding; x marks what is seen:

                      keys   1 1 1  2 2  3 3  0
        1  (image head)      x . .  . .  . .  .
                             x x .  . .  . .  .
                             x x x  . .  . .  .
        2  (parent 1)        x x x  x .  . .  .
                             x x x  x x  . .  .
        3  (parent 1)        x x x  . .  x .  .
                             x x x  . .  x x  .
        0  (padding)         . . .  . .  . .  .
    """
    own = q_segments[:, :, None] == k_segments[:, None, :]
    parent = q_parents[:, :, None] == k_segments[:, None, :]
    ahead = q_positions[:, :, None] - k_positions[:, None, :]  # how far the query is ahead of the key: i32[B, T, S]
    in_order = ahead >= 0
    if k_prefix is not None:
        in_order |= k_prefix[:, None, :]
    mask = (k_segments != 0)[:, None, :] & (own | parent) & in_order
    return mask if window is None else mask & (ahead < window)


# The name of what rematerialisation keeps of a softmax (stack.REMAT).
SOFTMAX = "softmax"


def softmax(logits: jax.Array) -> jax.Array:
    """jax.nn.softmax over the last axis, whose two reductions have a name. Where a backward pass computes the logits again and finds these kept, each
    weight follows from its own logit, in the pass that makes it: the logits need not be read from memory again."""
    largest = checkpoint_name(jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True)), SOFTMAX)
    weights = jnp.exp(logits - largest)
    return weights / checkpoint_name(jnp.sum(weights, axis=-1, keepdims=True), SOFTMAX)


def attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Plain attention with grouped heads; the softmax is float32 whatever the inputs are.

    q: f[B, T, N, H]. k, v: f[B, S, K, H], K divides N; query head n reads key head n // G with G = N / K. mask: bool[B, T, S],
    None: all keys are seen. A query that sees no key (padding) gets the mean of all values: finite, and read by nobody.
    Returns f[B, T, N, H].
    """
    (B, T, N, H), K = q.shape, k.shape[2]
    G = N // K
    # The heads of a group are folded into the query axis, Q = T·G: one product per key head, and k and v are not repeated.
    q = jnp.einsum("BTKGH->BKTGH", q.reshape(B, T, K, G, H)).reshape(B, K, T * G, H)
    logits = wide(functools.partial(jnp.einsum, "BKQH,BSKH->BKQS"), q, k) * H**-0.5
    if mask is not None:
        logits = jnp.where(jnp.repeat(mask, G, axis=1)[:, None], logits, jnp.finfo(jnp.float32).min)
    weights = softmax(logits).astype(v.dtype)
    out = jnp.einsum("BKQS,BSKH->BKQH", weights, v).reshape(B, K, T, G, H)
    return jnp.einsum("BKTGH->BTKGH", out).reshape(B, T, N, H)


def rotations(positions: jax.Array, theta: float, head_dim: int, length: int) -> jax.Array:
    """Cosines and sines of the rotary angles position · theta^(-2i/H), f32[2, B, T, 1, H/2], for positions i32[B, T] below `length`; NaN for others.

    Rows of a table, for a model to read once for all its layers: from an expression of the positions XLA would compute every angle again for each of the
    heads of each layer, in both passes, which a profile of a step on a CPU shows as 5 to 12 % of it.
    """
    half = head_dim // 2
    angles = jnp.arange(length, dtype=jnp.float32)[:, None] * theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    table = jnp.stack([jnp.cos(angles), jnp.sin(angles)])
    return table.at[:, positions].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)[:, :, :, None]


def rotary(x: jax.Array, turns: jax.Array) -> jax.Array:
    """Rotates the pairs (i, i + H/2) of f[B, T, N, H] by the angles of `rotations`, in float32.

    Pairs are split by halves (`rotate_half` of Hugging Face's Llama), not interleaved as in Meta's original checkpoints.
    """
    cos, sin = turns
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


def write(stack: jax.Array, new: jax.Array, layer: jax.Array, start: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
    """Puts `new`, f[B, …], into the slots from `start` on along `axis` of a layer of a cache f[l, B, …, S, …] → (the cache, the layer). Nothing but these slots is written: a layer that is
    taken out, changed and put back is written whole, for every token. Of a single layer XLA copies nothing when it is taken out, and all of it when it is not."""
    new = new.astype(stack.dtype)
    if stack.shape[0] == 1:
        own = jax.lax.dynamic_update_slice_in_dim(stack[0], new, start, axis)
        return own[None], own
    places = [layer, *(start if dim == axis else 0 for dim in range(new.ndim))]
    stack = jax.lax.dynamic_update_slice(stack, new[None], places)
    return stack, jax.lax.dynamic_index_in_dim(stack, layer, keepdims=False)


Asked = jax.Array | int


def take(x: jax.Array, asked: Asked | None, axis: int = 1) -> jax.Array:
    """Of f[B, T, …] the asked tokens, f[B, A, …]: at the places i32[B, A] of each row, or so many from the front; None: all. axis: of T, behind that of B."""
    if asked is None:
        return x
    if isinstance(asked, int):
        return jax.lax.slice_in_dim(x, 0, asked, axis=axis)
    return jnp.take_along_axis(x, asked.reshape(*(1,) * (axis - 1), *asked.shape, *(1,) * (x.ndim - axis - 1)), axis=axis)


class Attention(nn.Module):
    """Projections, rotary positions and the cache around `attend`.

    biases: which of the projections "q", "k", "v", "o" have one.
    out_scale: of the initial standard deviation of the output projection. lora: adapters beside q, k, v and o.
    Parameters: q/kernel [D, N, H], k/kernel and v/kernel [D, K, H] (of a source [E, K, H]), o/kernel [N, H, D]; biases [N, H], [K, H], [D]; q_lora/{a, b}, ….
    """

    width: int
    heads: int
    kv_heads: int
    head_dim: int
    biases: tuple[str, ...] = ()
    out_scale: float = 1.0
    dtype: Any = jnp.float32
    attend: Attend = attend
    lora: LoRAConfig | None = None

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        turns: jax.Array | None = None,
        mask: jax.Array | None = None,
        cache: Cache | None = None,
        place: tuple[jax.Array, jax.Array] | None = None,
        asked: Asked | None = None,
        source: jax.Array | None = None,
    ) -> tuple[jax.Array, Cache | None]:
        """x: f[B, T, D]. source: f[B, S, E], what keys and values are of, None: x itself. asked: the tokens that are queries and come out (see `take`); all T are keys and values. turns: of `rotations`, None: no rotary positions. mask: bool[B, T, S]; S = T without a cache.

        cache: of a stack of layers, {"k": f[l, B, K, H, S], "v": f[l, B, K, S, H]}, as the two products read them: in any other order they are transposed for every
        token. place: (layer, start): keys and values of x go to the slots start … start+T-1 of that layer, and attention is over all S of its slots, so `mask` must hide
        those not yet written. Returns (f[B, A, D], the cache with the new slots or None).
        """
        D, N, K, H = self.width, self.heads, self.kv_heads, self.head_dim
        early = None if isinstance(self.attend, BySegments) else asked  # that one orders queries as the row does: it is given all of them

        keyed = x if source is None else source

        def dense(name: str, size: int | tuple[int, int], axes: int | tuple[int, int], init: nn.initializers.Initializer) -> nn.Module:
            return nn.DenseGeneral(size, axes, use_bias=name in self.biases, dtype=self.dtype, kernel_init=init, dot_general_cls=products, name=name)

        def project(name: str, x: jax.Array, heads: int) -> jax.Array:
            return adapt(self.lora, f"attention/{name}", x, dense(name, (heads, H), -1, fan_in(x.shape[-1]))(x))

        q, k, v = project("q", take(x, early), N), project("k", keyed, K), project("v", keyed, K)
        if turns is not None:
            q, k = rotary(q, take(turns, early, 2)), rotary(k, turns)
        if mask is not None:
            mask = take(mask, early)
        if cache is not None:
            keys, k = write(cache["k"], jnp.einsum("BTKH->BKHT", k), *place, 3)
            values, v = write(cache["v"], jnp.einsum("BTKH->BKTH", v), *place, 2)
            cache, k, v = {"k": keys, "v": values}, jnp.einsum("BKHS->BSKH", k), jnp.einsum("BKSH->BSKH", v)
        out = self.attend(name_axes(q, "batch", "length", "heads", None), k, v, mask)
        out = take(out, asked) if early is None else out  # [B, A, N, H]
        y = dense("o", D, (-2, -1), fan_in(N * H, self.out_scale))(out)
        return adapt(self.lora, "attention/o", out, y, inputs=2), cache
