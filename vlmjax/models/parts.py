"""Small pieces that several components share."""
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": functools.partial(nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(nn.gelu, approximate=True),
    "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),  # OpenAI's CLIP
}


def name_axes(x: jax.Array, *names: str | None) -> jax.Array:
    """Names the axes of an activation: "batch", "length", "embed", "heads", "mlp", "vocab". Only the step knows a mesh."""
    return nn.with_logical_constraint(x, names)


def fan_in(size: int, scale: float = 1.0) -> nn.initializers.Initializer:
    """Normal with standard deviation scale / √size: a contraction over `size` multiplies its input's deviation by `scale`."""
    return nn.initializers.normal(scale * size**-0.5)


def look_up(table: jax.Array, tokens: jax.Array) -> jax.Array:
    """f[V, D] at i32[B, T] → f[B, T, D]. An id outside the table becomes NaN instead of some other token's vector.

    The width of the table is gathered first: a gather from a table split along it would leave the rows whole on every device.
    """
    table = name_axes(table, "vocab", "embed")
    return table.at[tokens].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)


def layer_norm(eps: float, dtype: Any, name: str | None = None) -> nn.LayerNorm:
    """LayerNorm with float32 statistics. The variance is that of the centred values: E[x²] - E[x]² cancels at CLIP's outliers."""
    return nn.LayerNorm(eps, dtype, use_fast_variance=False, name=name)
