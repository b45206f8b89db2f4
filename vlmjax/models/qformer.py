"""The Q-Former (BLIP-2, arXiv:2301.12597): learned queries that read an image, and a linear map of what they found to the language model's width."""
import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlmjax.models.attention import Attention
from vlmjax.models.parts import layer_norm, name_axes, products
from vlmjax.models.stack import Stack
from vlmjax.models.vit import MLP, ViTConfig

GROUP = ("even", "odd")  # layers 2i and 2i+1, the smallest group that repeats: the first of them reads the image


@dataclasses.dataclass(frozen=True)
class QFormerConfig:
    """Sizes of a BERT (norms behind what is added, biases everywhere) without words and positions, whose every second layer also attends to the image, from
    the first on. queries: image tokens that come out. Nothing drops out: in MiniGPT-4 it is frozen, and its BERT is not in training."""

    kind: str = "qformer"
    queries: int = 32
    width: int = 768
    layers: int = 12
    heads: int = 12
    mlp: int = 3072
    activation: str = "gelu"
    eps: float = 1e-12

    def reads(self, encoder: ViTConfig) -> int:
        """Tokens of the encoder's that it reads: all, its class token too."""
        return encoder.tokens_per_image + encoder.class_token

    def tokens(self, read: int) -> int:
        """Image tokens it makes of so many."""
        return self.queries

    def places(self, encoder: ViTConfig) -> dict[str, int]:
        """What an ImageLayout has to know of it."""
        return {"tokens": self.queries}


class Layer(nn.Module):
    """f[N, Q, W] → f[N, Q, W]. source: f[N, P, E], the image, None in a layer that does not read it.

    Parameters: attention, attention_norm, where it reads the image cross_attention and cross_norm, mlp, mlp_norm.
    """

    config: QFormerConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, source: jax.Array | None = None) -> jax.Array:
        c = self.config
        norm = lambda name, x: name_axes(layer_norm(c.eps, self.dtype, f"{name}_norm")(x), "batch", "length", "embed")
        attention = functools.partial(Attention, c.width, c.heads, c.heads, c.width // c.heads, ("q", "k", "v", "o"), dtype=self.dtype)
        x = norm("attention", x + attention(name="attention")(x)[0])
        if source is not None:
            x = norm("cross", x + attention(name="cross_attention")(x, source=source)[0])
        return norm("mlp", x + MLP(c.mlp, c.layers, c.activation, self.dtype, name="mlp")(x))


class Pair(nn.Module):
    """Two layers, of which the first reads the image; as a stack's block. Parameters: even, odd."""

    config: QFormerConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, turns=None, mask=None, cache=None, place=None, *, source):
        even, odd = (Layer(self.config, self.dtype, name=name) for name in GROUP)
        return odd(even(x, source)), cache


class QFormer(nn.Module):
    """f[N, P, E], the encoder's class token and patches → f[N, Q, D], Q = config.queries; out_width None: → f[N, Q, W], without the linear map.

    Parameters: queries [Q, W], pre_norm, layers/START-STOP/{even,odd}/…, of which the i-th holds the layers 2i and 2i+1, and linear_0.
    """

    config: QFormerConfig
    segments: tuple[int, ...]
    in_width: int
    out_width: int | None
    dtype: Any = jnp.float32
    unroll: int | bool = 1
    remat: str = "none"

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        c = self.config
        queries = self.param("queries", nn.initializers.normal(0.02), (c.queries, c.width), jnp.float32).astype(self.dtype)
        x = jnp.broadcast_to(layer_norm(c.eps, self.dtype, "pre_norm")(queries), (image.shape[0], *queries.shape))
        stack = Stack(functools.partial(Pair, c, self.dtype), self.segments, self.unroll, self.remat, name="layers")
        x, _ = stack(name_axes(x, "batch", "length", "embed"), source=name_axes(image, "batch", "length", "embed"))
        if self.out_width is not None:
            x = nn.Dense(self.out_width, dtype=self.dtype, dot_general_cls=products, name="linear_0")(x)
        return name_axes(x, "batch", "length", "embed")

    def everything(self) -> jax.Array:
        return self(jnp.zeros((1, 1, self.in_width)))


# BLIP-2 and MiniGPT-4 (arXiv:2304.10592): the sizes of BERT base.
VARIANTS = {"qformer": QFormerConfig()}
