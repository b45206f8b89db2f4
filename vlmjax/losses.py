"""Losses as sums and counts: they are added up over micro-batches and devices and divided once."""
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
