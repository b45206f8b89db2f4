"""Stage → labels → optax.partition. The only owner of freezing: nothing else decides what learns.

One label tree says which leaves learn. The parameters are split into `trainable` and `frozen`, two trees of the same
structure with None in the other's places; the step differentiates `trainable` alone, so a frozen leaf has no gradient, no
optimizer state and no update.
"""
import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vlmjax import param_rules, stacks
from vlmjax.errors import UserError, did_you_mean

TRAINABLE, FROZEN = "trainable", "frozen"

# No decay on gains, biases, embeddings of position and class, and temperatures (Radford et al. 2021, §2.5). Total, not tight.
NO_DECAY_NAMES = r".*(/scale|/bias|class_token|position_embed|logit_scale)"


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """lr: peak learning rate. schedule: cosine, linear or constant after `warmup` (below 1 a share of the steps, from 1 on so many steps). last: what cosine and linear come down to. clip: global norm of
    the trainable gradients, 0 for none. decay: decoupled weight decay, a number (applied to all but gains, biases, position
    embeddings) or rules path → number. lr_scale: rules path → factor on lr. betas: of adamw and lion; betas[0] is sgd's momentum.
    """

    lr: float
    name: str = "adamw"
    schedule: str = "cosine"
    warmup: float = 0.03
    clip: float = 0.0
    decay: Any = 0.0
    lr_scale: tuple = ()
    betas: tuple[float, ...] = (0.9, 0.999)
    eps: float = 1e-8
    last: float = 0.0


@dataclasses.dataclass(frozen=True)
class Label:
    """What happens to one leaf; layers of a stack that differ in it lie in different segments."""

    trainable: bool
    decay: float = 0.0
    lr_scale: float = 1.0


def labels(paths: list[str], trainable: param_rules.Rules, config: OptimizerConfig, where: str) -> dict[str, Label]:
    """{path by layer: Label}. The rules are total and tight over `paths`; a stage that would train nothing is refused."""
    learns = param_rules.match(trainable, paths, what=f"{where}.trainable", tight=True)
    if bad := [value for value in learns.values() if not isinstance(value, bool)]:
        raise UserError(f"{where}.trainable: {bad[0]!r} is not True or False")
    moving = [path for path in paths if learns[path]]
    if not moving:
        raise UserError(f"{where}.trainable: nothing would learn; the components are {', '.join(sorted({p.split('/')[0] for p in paths}))}")
    if isinstance(config.decay, (int, float)):
        decay = param_rules.match(((NO_DECAY_NAMES, 0.0), (".*", float(config.decay))), moving, what="decay", tight=False)
    else:
        decay = param_rules.match(config.decay, moving, what=f"{where}.optimizer.decay", tight=True)
    scale = param_rules.match(config.lr_scale, moving, what=f"{where}.optimizer.lr_scale", tight=True) if config.lr_scale else {}
    return {p: Label(True, float(decay[p]), float(scale.get(p, 1.0))) if learns[p] else Label(False) for p in paths}


def split(tree: Any, by_layer: Mapping[str, Label]) -> tuple[Any, Any]:
    """params → (trainable, frozen), two trees with None in the other's places. `tree` is cut so that labels agree in a segment."""
    flat = param_rules.flatten(tree)
    learns = {path: by_layer[stacks.layer_paths(path)[0]].trainable for path in flat}
    return (param_rules.unflatten({p: leaf if learns[p] else None for p, leaf in flat.items()}),
            param_rules.unflatten({p: None if learns[p] else leaf for p, leaf in flat.items()}))


def merge(trainable: Any, frozen: Any) -> Any:
    """The inverse of `split`."""
    return jax.tree.map(lambda a, b: b if a is None else a, trainable, frozen, is_leaf=lambda x: x is None)


def schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Step → learning rate: linear from 0 over the steps of the warm-up (a share is rounded up), then as named, to config.last at the last step."""
    warm = int(config.warmup) if config.warmup >= 1 else int(-(-config.warmup * steps // 1))
    if warm > steps:
        raise UserError(f"optimizer.warmup: {warm} steps are more than the {steps} of the stage; below 1 it is a share of them")
    rest = max(steps - warm, 1)
    if not 0 <= config.last <= config.lr or config.last and config.schedule == "constant":
        raise UserError(f"optimizer.last: {config.last} is not what a {config.schedule} schedule comes down to from {config.lr}")
    shapes = {"cosine": optax.cosine_decay_schedule(config.lr, rest, config.last / config.lr if config.last else 0.0), "linear": optax.linear_schedule(config.lr, config.last, rest),
              "constant": optax.constant_schedule(config.lr)}
    if config.schedule not in shapes:
        raise UserError(f"optimizer.schedule: {config.schedule!r} is not known{did_you_mean(config.schedule, shapes)}")
    return optax.join_schedules([optax.linear_schedule(0.0, config.lr, max(warm, 1)), shapes[config.schedule]], [warm]) if warm else shapes[config.schedule]


def _adamw(config, moments):
    return optax.scale_by_adam(*config.betas, eps=config.eps, mu_dtype=moments)


def _lion(config, moments):
    return optax.scale_by_lion(*config.betas, mu_dtype=moments)


def _sgd(config, moments):
    return optax.trace(config.betas[0], accumulator_dtype=moments)


def _adafactor(config, moments):
    """Shazeer & Stern 2018: factored second moments, update clipped by block, scaled by the parameters' own size."""
    return optax.chain(optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0), optax.scale_by_param_block_rms())


OPTIMIZERS = {"adamw": _adamw, "adafactor": _adafactor, "lion": _lion, "sgd": _sgd}


def _clip(largest: float) -> optax.GradientTransformationExtraArgs:
    """Clips by global norm. A step that has the norm already gives it (`norm`); otherwise it is computed."""
    def update(updates, state, params=None, *, norm=None, **_):
        factor = jnp.minimum(1.0, largest / (optax.global_norm(updates) if norm is None else norm))
        return jax.tree.map(lambda u: u * factor.astype(u.dtype), updates), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def make(config: OptimizerConfig, by_layer: Mapping[str, Label], steps: int, moments: Any = jnp.float32) -> optax.GradientTransformation:
    """The optimizer of a stage, over the tree `trainable` (with holes) or over a whole tree: frozen leaves get no state.

    The clip sits inside the trainable partition: outside it, the norm of every gradient would have to be computed. `moments`
    is the storage type of first moments.
    """
    if config.name not in OPTIMIZERS:
        raise UserError(f"optimizer.name: {config.name!r} is not known{did_you_mean(config.name, OPTIMIZERS)}")

    def by_leaf(value):
        return lambda tree: jax.tree_util.tree_map_with_path(lambda path, _: value(by_layer[_layer_path(path)]), tree)

    decay_of, scale_of = by_leaf(lambda label: label.decay), by_leaf(lambda label: label.lr_scale)
    learn = optax.chain(
        _clip(config.clip) if config.clip else optax.identity(),
        OPTIMIZERS[config.name](config, moments),
        optax.stateless(lambda updates, params: jax.tree.map(lambda u, p, d: u + d * p if d else u, updates, params, decay_of(updates))),
        optax.stateless(lambda updates, params: jax.tree.map(lambda u, s: u * s if s != 1.0 else u, updates, scale_of(updates))),
        optax.scale_by_learning_rate(schedule(config, steps)),
    )
    return optax.partition({TRAINABLE: learn, FROZEN: optax.set_to_zero()}, by_leaf(lambda label: TRAINABLE if label.trainable else FROZEN))


def _layer_path(path) -> str:
    return stacks.layer_paths("/".join(str(k.key) for k in path))[0]
