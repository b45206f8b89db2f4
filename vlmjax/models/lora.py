"""Low-rank adapters beside the projections of a stack: y + b(a(x)) · alpha / rank (LoRA, arXiv:2106.09685).

An adapter has leaves of its own, `…/attention/q_lora/a` and `…/b`, so that the rules of a stage let it learn beside a kernel that is frozen, and so that
without them the model is, bit for bit, the one it was.
"""
import dataclasses
import re
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vlmjax.errors import UserError, nearest
from vlmjax.models.parts import name_axes, products

ATTENTION = ("attention/q", "attention/k", "attention/v", "attention/o")
_LEAF = re.compile(r"(.*)_lora/[ab]")


@dataclasses.dataclass(frozen=True)
class LoRAConfig:
    """targets: patterns of the projections of a layer that have an adapter (`attention/q`, `mlp/up`, …). alpha: the adapter's output is scaled by
    alpha / rank. dropout: of its input, while training."""

    rank: int
    alpha: float
    dropout: float = 0.0
    targets: tuple[str, ...] = (".*",)

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    def adapts(self, projection: str) -> bool:
        return any(re.fullmatch(pattern, projection) for pattern in self.targets)

    def check(self, where: str, projections: Iterable[str]) -> None:
        """Refuses numbers without a meaning, and a pattern that matches none of the model's projections."""
        if self.rank < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1:
            raise UserError(f"{where}: rank {self.rank}, alpha {self.alpha}, dropout {self.dropout}: rank is at least 1, alpha above 0, dropout in [0, 1)")
        for pattern in self.targets:
            try:
                found = any(re.fullmatch(pattern, name) for name in projections)
            except re.error as error:
                raise UserError(f"{where}.targets: {pattern!r} is not a regular expression: {error}") from None
            if not found:
                raise UserError(f"{where}.targets: {pattern!r} matches no projection; nearest: {', '.join(nearest(pattern, list(projections), 3))}")
        if not self.targets:
            raise UserError(f"{where}.targets: names no projection")


class Adapter(nn.Module):
    """f[B, T, *inputs] → f[B, T, *outputs]. Parameters: a [*inputs, r], b [r, *outputs]; b begins at 0, so the model begins as it was.

    a begins as in Hugging Face's PEFT: uniform within ±1/√(size of inputs). Without an rng named `dropout` nothing is dropped.
    """

    config: LoRAConfig
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c, bound = self.config, float(np.prod(self.inputs)) ** -0.5
        a = self.param("a", lambda key, shape: jax.random.uniform(key, shape, jnp.float32, -bound, bound), (*self.inputs, c.rank))
        b = self.param("b", nn.initializers.zeros, (c.rank, *self.outputs), jnp.float32)
        if c.dropout:
            x = nn.Dropout(c.dropout, deterministic=not self.has_rng("dropout"))(x)
        n, multiply = len(self.inputs), products()
        hidden = multiply(x, a.astype(self.dtype), ((tuple(range(2, 2 + n)), tuple(range(n))), ((), ())))
        return multiply(name_axes(hidden, "batch", "length", None), b.astype(self.dtype), (((2,), (0,)), ((), ()))) * c.scale


def adapt(config: LoRAConfig | None, projection: str, x: jax.Array, y: jax.Array, inputs: int = 1) -> jax.Array:
    """y: what `projection` makes of x, plus what its adapter does, if it has one. inputs: how many trailing axes of x it contracts. To be called in a
    module's `__call__`, of which the adapter becomes a part."""
    if config is None or not config.adapts(projection):
        return y
    name = projection.rpartition("/")[2] + "_lora"
    return y + Adapter(config, x.shape[-inputs:], y.shape[2:], y.dtype, name=name)(x)


def dropout(key: jax.Array | None, component: str) -> dict[str, jax.Array]:
    """The `rngs` of a component's `apply`; without a key nothing is dropped."""
    return {} if key is None else {"dropout": jax.random.fold_in(key, zlib.crc32(component.encode()))}


def is_adapter(path: str) -> bool:
    """Whether a path, in memory or by layer, is a leaf of an adapter."""
    return _LEAF.fullmatch(path) is not None


def drop(by_layer: Mapping[str, Any]) -> dict[str, Any]:
    """{path by layer: parameter} without the adapters'."""
    return {path: leaf for path, leaf in by_layer.items() if not is_adapter(path)}


def merge(by_layer: Mapping[str, np.ndarray], configs: Mapping[str, LoRAConfig]) -> dict[str, np.ndarray]:
    """{path by layer: parameter} with every adapter added to the kernel beside it. configs: {component: its adapters'}."""
    out = drop(by_layer)
    for path in by_layer:
        if path.endswith("_lora/a"):
            name, scale = path.removesuffix("_lora/a"), configs[path.split("/")[0]].scale
            out[f"{name}/kernel"] = np.asarray(out[f"{name}/kernel"] + scale * np.tensordot(by_layer[path], by_layer[f"{name}_lora/b"], 1), np.float32)
    return out
