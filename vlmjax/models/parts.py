"""Small pieces that several components share."""
import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": functools.partial(nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(nn.gelu, approximate=True),
    "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),  # OpenAI's CLIP
}


def name_axes(x: jax.Array, *names: str | None) -> jax.Array:
    """Names the axes of an activation: "batch", "length", "embed", "heads", "mlp", "vocab". Only the step knows a mesh. A dimension that its
    mesh axes do not divide stays whole, as it does in a parameter."""
    mesh, rules = jax.sharding.get_abstract_mesh(), dict(nn.get_logical_axis_rules())
    if mesh.empty or not rules:
        return x
    splits = [split_over(name) for name in names]
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*(axes or None if size % parts == 0 else None for (axes, parts), size in zip(splits, x.shape))))


def split_over(name: str) -> tuple[tuple[str, ...], int]:
    """The mesh axes that an axis of activations is split over, and into how many parts; ((), 1) outside of a step."""
    mesh, rules = jax.sharding.get_abstract_mesh(), dict(nn.get_logical_axis_rules())
    axes = () if mesh.empty or not rules.get(name) else rules[name]
    axes = (axes,) if isinstance(axes, str) else tuple(axes)
    return axes, math.prod(mesh.shape[axis] for axis in axes)


def products() -> Callable[..., jax.Array]:
    """What layers multiply with (`dot_general_cls` of flax's): `jax.lax.dot_general`, in a step for one CPU device as a product of two matrices.

    With several axes of tokens or of heads XLA on CPUs computes the gradient of a kernel from a transposed copy of what comes back, written column by column: a
    quarter of a training step. On TPUs, where a length that is no multiple of a tile would be copied for it, nothing changes.
    """
    mesh = jax.sharding.get_abstract_mesh()
    alone = mesh.size == 1 and mesh.abstract_device is not None and mesh.abstract_device.platform == "cpu"
    return _as_matrices if alone else jax.lax.dot_general


def _as_matrices(x: jax.Array, kernel: jax.Array, dimension_numbers: Any, precision: Any = None, preferred_element_type: Any = None) -> jax.Array:
    """x: f[…, *I]. kernel: f[*I, *O] or f[*O, *I]. Returns f[…, *O]."""
    (_, inside), _ = dimension_numbers
    n, first = len(inside), inside[0] == 0
    inner, outer = (kernel.shape[:n], kernel.shape[n:]) if first else (kernel.shape[-n:], kernel.shape[:-n])
    size = math.prod(inner)
    matrices = x.reshape(-1, size), kernel.reshape((size, -1) if first else (-1, size))
    y = jax.lax.dot_general(*matrices, (((1,), (0 if first else 1,)), ((), ())), precision=precision, preferred_element_type=preferred_element_type)
    return y.reshape(*x.shape[:-n], *outer)


def wide(product: Callable[..., jax.Array], a: jax.Array, b: jax.Array) -> jax.Array:
    """`product(a, b, preferred_element_type=float32)` of two arrays of one dtype, with gradients whose products read that dtype, too.

    What comes back to it is float32. Products that read float32 are exact (commands/common.py), in three passes or six on a TPU: where activations are bfloat16 it is rounded
    first, as what comes back to every other layer is.
    """
    return product(a, b, preferred_element_type=jnp.float32) if a.dtype == jnp.float32 else _wide(product, (a.shape, b.shape), a, b)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _wide(product, shapes, a, b):
    return product(a, b, preferred_element_type=jnp.float32)


def _wide_forward(product, shapes, a, b):
    """Each is kept for the gradient of the other alone: that of something frozen would be a product for nothing."""
    return product(a.value, b.value, preferred_element_type=jnp.float32), (a.value if b.perturbed else None, b.value if a.perturbed else None)


def _wide_backward(product, shapes, residuals, g):
    a, b = residuals
    back = lambda function, shape, dtype: jax.linear_transpose(function, jax.ShapeDtypeStruct(shape, dtype))(g.astype(dtype))[0]
    return (None if b is None else back(lambda x: product(x, b), shapes[0], b.dtype)), (None if a is None else back(lambda x: product(a, x), shapes[1], a.dtype))


_wide.defvjp(_wide_forward, _wide_backward, symbolic_zeros=True)


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
