"""One training step: the trainable tree alone is differentiated; the frozen tree is read."""
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vlmjax import optim, param_rules, stacks
from vlmjax.train.state import Learned

Batch = dict[str, jax.Array]
Loss = Callable[..., tuple[jax.Array, jax.Array, jax.Array]]  # params, batch, key of dropout or None → sum of losses, count, hits


def gradients(loss: Loss, accumulate: int) -> Callable[..., tuple[tuple[jax.Array, jax.Array, jax.Array], Any]]:
    """(trainable, frozen, batch, key of dropout or None) → ((sum of losses, count, hits), gradient of the sum), over `accumulate` micro-batches."""
    def sums(trainable, frozen, batch, key):
        total, count, hits = loss(optim.merge(trainable, frozen), batch, key)
        return total, (count, hits)

    def one(trainable, frozen, batch, key=None):
        (total, (count, hits)), grads = jax.value_and_grad(sums, has_aux=True)(trainable, frozen, batch, key)
        return (total, count, hits), grads

    if accumulate == 1:
        return one

    def several(trainable, frozen, batch, key=None):
        # Row r goes to micro-batch r mod A, so that rows stay on the device they lie on.
        micro = jax.tree.map(lambda x: jnp.swapaxes(x.reshape(x.shape[0] // accumulate, accumulate, *x.shape[1:]), 0, 1), batch)
        keys = None if key is None else jax.random.split(key, accumulate)
        add = lambda carry, part: (jax.tree.map(jnp.add, carry, one(trainable, frozen, *part)), None)
        zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(one, trainable, frozen, jax.tree.map(lambda x: x[0], micro)))
        return jax.lax.scan(add, zero, (micro, keys))[0]

    return several


def squares(tree: Any, factor: jax.Array | float = 1.0) -> dict[str, jax.Array]:
    """{path in memory: f32[1], or f32[L] of a stack: sum of the squares of a leaf times the factor}."""
    def of(path, leaf):
        return jnp.sum(jnp.square(leaf.astype(jnp.float32) * factor), axis=tuple(range(stacks.is_stacked(path), leaf.ndim))).reshape(-1)

    return {path: of(path, leaf) for path, leaf in param_rules.flatten(tree).items()}


def by_component(sums: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Of `squares` the norm of each component's leaves; a component without leaves is left out."""
    parts: dict[str, list[jax.Array]] = {}
    for path, sum_ in sums.items():
        parts.setdefault(path.split("/")[0], []).append(sum_)
    return {name: jnp.sqrt(jnp.sum(jnp.concatenate(part))) for name, part in parts.items()}


def make(loss: Loss, optimizer: optax.GradientTransformation, schedule: optax.Schedule, accumulate: int, key: Callable[[jax.Array], jax.Array] | None = None):
    """→ step(learned, frozen, batch) -> (learned, metrics {name: f32[]}).

    Sums and counts are accumulated and divided once, so the loss does not depend on how rows are grouped or split. A step
    whose loss or gradient is not finite changes nothing but `step` and `skipped`. One in whose batch nothing has weight (every example is
    broken) changes nothing but `step`, not even moments and decay, and its loss is 0. key: number of the step → key of its dropout; None:
    nothing is dropped.
    """
    differentiate = gradients(loss, accumulate)

    def step(learned: Learned, frozen: Any, batch: Batch) -> tuple[Learned, dict[str, jax.Array]]:
        (total, count, hits), grads = differentiate(learned.trainable, frozen, batch, key(learned.step) if key else None)
        counts, count = count > 0, jnp.where(count > 0, count, 1.0)
        share = 1 / count
        seen = squares(grads, share)
        grad_norm = by_component(seen)
        norm = jnp.sqrt(sum(jnp.square(part) for part in grad_norm.values()))
        finite = jnp.isfinite(total) & jnp.isfinite(norm)

        def move():
            # The mean is taken here, where it costs no pass of its own, and the norm is known.
            updates, opt_state = optimizer.update(jax.tree.map(lambda g: g * share, grads), learned.opt_state, learned.trainable, norm=norm)
            reached = {path: was | (seen[path] > 0).reshape(was.shape) for path, was in learned.reached.items()}
            return optax.apply_updates(learned.trainable, updates), opt_state, reached, by_component(squares(updates))

        def stay():
            return learned.trainable, learned.opt_state, learned.reached, jax.tree.map(jnp.zeros_like, grad_norm)

        # A branch, not a choice between two values of each element: those are passes over everything that is learned.
        trainable, opt_state, reached, update_norm = jax.lax.cond(finite & counts, move, stay)
        metrics = {"loss": total / count, "accuracy": hits / count, "lr": schedule(learned.step), "finite": finite.astype(jnp.float32)}
        for kind, norms in (("grad_norm", grad_norm), ("param_norm", by_component(squares(trainable))), ("update_norm", update_norm)):
            metrics.update({f"{kind}/{name}": norm for name, norm in norms.items()})
        learned = Learned(step=learned.step + 1, trainable=trainable, opt_state=opt_state, reached=reached, skipped=learned.skipped + (~finite).astype(jnp.int32))
        return learned, metrics

    return step
