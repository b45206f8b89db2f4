"""Losses as sums and counts: they are added up over micro-batches and devices and divided once."""
import functools
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

NEVER = -1e30  # a logit whose exponential is 0 beside any other; unlike −inf it gives no NaN where a row has nothing else


def log_probabilities(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """f32[..., V], i32[...] → f32[...], the log-probability of each target."""
    return jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0] - jax.nn.logsumexp(logits, axis=-1)


def next_token(logits: jax.Array, targets: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Cross-entropy at the supervised places.

    logits f32[B, S, V], targets i32[B, S], weights f32[B, S] (0: no target) → (weighted sum of −log p, sum of weights,
    weighted number of places where the largest logit is the target), each f32[].
    """
    logits = logits.astype(jnp.float32)
    correct = (jnp.argmax(logits, axis=-1) == targets).astype(jnp.float32)
    return -jnp.sum(log_probabilities(logits, targets) * weights), jnp.sum(weights), jnp.sum(correct * weights)


# Bytes of float32 logits that a device makes at once, at least, where the supervised places of its rows are cut into chunks.
LOGITS = 256 * 2**20

Kernels = Mapping[str, jax.Array]
Read = Callable[[Kernels, jax.Array], jax.Array]  # kernels of a head, f[..., S, D] → f32[..., S, V]
Sums = tuple[jax.Array, jax.Array, jax.Array]


class Split(NamedTuple):
    """How a batch lies on devices: rows in so many groups, over these axes of the mesh; the vocabulary in so many parts."""

    groups: int = 1
    axes: tuple[str, ...] = ()
    vocabulary: int = 1


def chunks(rows: int, places: int, vocabulary: int, head: int, split: Split = Split()) -> int:
    """Into how many chunks the supervised places of each row are cut, so that a device makes at most LOGITS bytes of logits at once, or as many as the sum of gradients of the
    head's `head` parameters takes, which each chunk reads and writes. 1 where all logits take no more than a chunk and that sum."""
    all_, summed = (4 * math.ceil(size / split.vocabulary) for size in (rows // split.groups * places * vocabulary, head))
    return min(places, math.ceil(all_ / max(LOGITS, summed))) if all_ > LOGITS + summed else 1


def next_token_in_chunks(read: Read, kernels: Kernels, hidden: jax.Array, targets: jax.Array, weights: jax.Array, chunks: int, split: Split = Split()) -> Sums:
    """`next_token` of `read(kernels, hidden)`, with logits for one chunk of the places of each row at a time.

    hidden f[B, S, D], targets i32[B, S], weights f32[B, S], B a multiple of the groups. A chunk's gradient is made with its logits: the sum of losses is linear in what will come back, a number. So
    nothing is computed twice, and what is kept for the backward pass is what it hands on, the gradients of hidden and kernels; a kernel that is frozen gets none.

    Over chunks the gradient of the kernels is summed in float32, in each group of rows by itself, and over groups once.
    """
    return _in_chunks(read, chunks, split, dict(kernels), hidden, targets, weights)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _in_chunks(read, chunks, split, kernels, hidden, targets, weights):
    return _in_groups(read, chunks, split, {}, kernels, hidden, targets, weights, onward=False)[0]


def _forward(read, chunks, split, kernels, hidden, targets, weights):
    learned, fixed = ({name: kernel.value for name, kernel in kernels.items() if kernel.perturbed == learns} for learns in (True, False))
    sums, own, back = _in_groups(read, chunks, split, learned, fixed, hidden.value, targets.value, weights.value, onward=hidden.perturbed)
    return sums, ({**dict.fromkeys(fixed), **own}, back)


def _backward(read, chunks, split, residuals, g):
    times = lambda grad: None if grad is None else grad * g[0].astype(grad.dtype)
    kernels, back = residuals
    return {name: times(grad) for name, grad in kernels.items()}, times(back), None, None


_in_chunks.defvjp(_forward, _backward, symbolic_zeros=True)


def _in_groups(read, chunks, split, learned, fixed, hidden, targets, weights, onward):
    """→ (sums, gradients of the learned kernels, gradient of hidden, None unless it is asked to go onward)."""
    of_group = functools.partial(_group, read, learned, fixed, chunks=chunks, onward=onward)
    if split.groups == 1:
        return of_group(hidden, targets, weights)
    # Each group of rows is a program of its own: no sum over devices inside the loop over chunks.
    parted = [x.reshape(split.groups, -1, *x.shape[1:]) for x in (hidden, targets, weights)]
    sums, own, back = jax.vmap(of_group, spmd_axis_name=split.axes or None)(*parted)
    total = functools.partial(jax.tree.map, functools.partial(jnp.sum, axis=0))
    return total(sums), total(own), back.reshape(hidden.shape) if onward else None


def _group(read, learned, fixed, hidden, targets, weights, chunks, onward):
    B, S = targets.shape
    size = math.ceil(S / chunks)
    size = next((smaller for smaller in range(size, size // 2, -1) if S % smaller == 0), size)  # else the last chunk is filled with places of no weight
    chunks = math.ceil(S / size)
    pad = size * chunks - S

    def one(hidden, targets, weights):
        asked = {"kernels": learned, **({"hidden": hidden} if onward else {})}
        logits, pull = jax.vjp(lambda asked: read({**asked["kernels"], **fixed}, asked.get("hidden", hidden)), asked)
        total, from_logits, rest = jax.vjp(lambda logits: (lambda total, *rest: (total, rest))(*next_token(logits, targets, weights)), logits, has_aux=True)
        back = pull(from_logits(jnp.ones_like(total))[0])[0] if learned or onward else asked
        return (total, *rest), back["kernels"], back.get("hidden")

    def cut(x):
        return jnp.moveaxis(jnp.pad(x, ((0, 0), (0, pad), *((0, 0),) * (x.ndim - 2))).reshape(B, chunks, size, *x.shape[2:]), 1, 0)

    def step(carry, part):
        sums, own, back = one(*part)
        return jax.tree.map(lambda a, b: a + b.astype(a.dtype), carry, (sums, own)), back

    start = (jnp.zeros((), jnp.float32),) * 3, {name: jnp.zeros(kernel.shape, jnp.float32) for name, kernel in learned.items()}
    (sums, own), back = jax.lax.scan(step, start, tuple(map(cut, (hidden, targets, weights))))
    own = {name: grad.astype(learned[name].dtype) for name, grad in own.items()}
    return sums, own, jnp.moveaxis(back, 0, 1).reshape(B, size * chunks, -1)[:, :S] if onward else None


def contrastive(image: jax.Array, text: jax.Array, scale: jax.Array, pair: jax.Array, real: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """CLIP's symmetric softmax loss over the whole global batch (Radford et al. 2021, figure 3).

    image, text f32[B, J] unnormalised, scale f32[] (the exponential of the learned one), pair i32[B]. Rows with the same
    number are positives of each other: the target of a row is uniform over its positives (all different: CLIP's own loss). real bool[B]: a row
    without is in neither softmax, neither a positive nor a negative, and is not counted: the result is that of the batch without it.
    → (sum over rows, number of rows, number of images whose most similar text is a positive), each f32[].
    """
    both = real[:, None] & real[None, :]
    unit = lambda x: (x := jnp.where(real[:, None], x, 1.0)) / jnp.linalg.norm(x, axis=-1, keepdims=True)  # a row that is not real gives no gradient
    logits = scale * jnp.einsum("bj,cj->bc", unit(image), unit(text), preferred_element_type=jnp.float32)
    logits = jnp.where(both, logits, NEVER)
    positive = (both & (pair[:, None] == pair[None, :])).astype(jnp.float32)
    target = positive / jnp.maximum(jnp.sum(positive, axis=1, keepdims=True), 1.0)
    rows = -jnp.sum(target * jax.nn.log_softmax(logits, axis=1), axis=1)
    columns = -jnp.sum(target * jax.nn.log_softmax(logits, axis=0).T, axis=1)
    hits = jnp.take_along_axis(positive, jnp.argmax(logits, axis=1)[:, None], axis=1)
    return jnp.sum(rows + columns) / 2, jnp.sum(real.astype(jnp.float32)), jnp.sum(hits)
