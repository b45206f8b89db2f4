"""Pixels to patch vectors."""
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def normalise(pixels: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """u8[…, h, w, 3] → f32[…, h, w, 3]: values in [0, 1], minus mean, over std, per channel."""
    return (pixels.astype(jnp.float32) / 255 - jnp.asarray(mean, jnp.float32)) / jnp.asarray(std, jnp.float32)


class PatchEmbed(nn.Module):
    """A linear map of each whole patch; patches go row by row. f[N, h, w, 3] → f[N, P, E].

    A convolution whose stride is its size, written as the contraction it is. Pixels beyond the last whole patch are not read.
    Parameters: kernel [patch, patch, 3, E], bias [E].
    """

    patch: int
    width: int
    bias: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        p, (N, h, w, c) = self.patch, images.shape
        rows, columns = h // p, w // p
        x = images[:, : rows * p, : columns * p].reshape(N, rows, p, columns, p, c)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (p, p, c, self.width), jnp.float32)
        x = jnp.einsum("Nyhxwc,hwcE->NyxE", x.astype(self.dtype), kernel.astype(self.dtype))
        x = x.reshape(N, rows * columns, self.width)  # [N, P, E]
        if self.bias:
            x += self.param("bias", nn.initializers.zeros, (self.width,), jnp.float32).astype(self.dtype)
        return x
