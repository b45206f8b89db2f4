"""CLIP: an image tower and a text tower that meet in one space."""
import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from vlmjax.models.attention import Attend, attend, visible
from vlmjax.models.lora import ATTENTION, LoRAConfig, dropout
from vlmjax.models.parts import fan_in, layer_norm, look_up, name_axes
from vlmjax.models.patch_embed import normalise
from vlmjax.models.stack import Stack
from vlmjax.models.vit import Block, ViT

Params = Mapping[str, Any]
MAX_SCALE = 100.0  # CLIP paper §2.5: above it training is unstable


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """Sizes of the text tower. length: the most tokens it has positions for. joint: width of the space it shares with images. lora: adapters
    of its projections."""

    projections: ClassVar = (*ATTENTION, "mlp/up", "mlp/down")

    vocab: int
    length: int
    width: int
    layers: int
    heads: int
    mlp: int
    joint: int
    activation: str = "quick_gelu"
    eps: float = 1e-5
    lora: LoRAConfig | None = None


class TextTower(nn.Module):
    """tokens i32[B, T], segments i32[B, T] (0: padding) → f[B, E], the last real token after the final norm.

    OpenAI's CLIP takes the highest id, which is its end-of-text: the last real token. T ≤ config.length; attention is causal.
    Parameters: embed [V, E], position_embed [length, E], layers/START-STOP/…, norm.
    """

    config: TextConfig
    segments: tuple[int, ...]
    dtype: Any = jnp.float32
    unroll: int | bool = 1
    remat: str = "none"
    attend: Attend = attend

    @nn.compact
    def __call__(self, tokens: jax.Array, segments: jax.Array) -> jax.Array:
        c = self.config
        B, T = tokens.shape
        table = self.param("embed", nn.initializers.normal(0.02), (c.vocab, c.width), jnp.float32)
        position_embed = self.param("position_embed", nn.initializers.normal(0.01), (c.length, c.width), jnp.float32)
        x = (look_up(table, tokens) + position_embed[:T]).astype(self.dtype)
        places = jnp.broadcast_to(jnp.arange(T), (B, T))
        mask = visible(segments, places, jnp.zeros_like(segments), segments, places)
        block = functools.partial(Block, c, dtype=self.dtype, attend=self.attend)
        stack = Stack(block, self.segments, self.unroll, self.remat, name="layers")
        x, _ = stack(name_axes(x, "batch", "length", "embed"), mask=mask)
        last = jnp.max(jnp.where(segments != 0, places, 0), axis=1)  # i32[B]
        pooled = jnp.take_along_axis(x, last[:, None, None], axis=1)[:, 0]
        return layer_norm(c.eps, self.dtype, "norm")(name_axes(pooled, "batch", "embed"))

    def everything(self) -> jax.Array:
        tokens = jnp.zeros((1, 1), jnp.int32)
        return self(tokens, tokens)


class ContrastHead(nn.Module):
    """What contrastive training adds to the towers, in float32.

    Parameters: vision_norm, vision_projection [E, J], text_projection [E of the text tower, J], logit_scale [].
    """

    vision_width: int
    text_width: int
    joint: int
    eps: float = 1e-5

    def setup(self):
        self.vision_norm = layer_norm(self.eps, jnp.float32)
        E, E_text, J = self.vision_width, self.text_width, self.joint
        self.vision_projection = self.param("vision_projection", fan_in(E), (E, J), jnp.float32)
        self.text_projection = self.param("text_projection", fan_in(E_text), (E_text, J), jnp.float32)
        self.logit_scale = self.param("logit_scale", nn.initializers.constant(math.log(1 / 0.07)), (), jnp.float32)

    def image(self, pooled: jax.Array) -> jax.Array:
        """f[B, E] of the vision tower → f32[B, J]."""
        return jnp.einsum("BE,EJ->BJ", self.vision_norm(pooled), self.vision_projection)

    def text(self, pooled: jax.Array) -> jax.Array:
        """f[B, E] of the text tower → f32[B, J]."""
        return jnp.einsum("BE,EJ->BJ", pooled, self.text_projection, preferred_element_type=jnp.float32)

    def scale(self) -> jax.Array:
        """f32[], what cosines are multiplied by."""
        return jnp.minimum(jnp.exp(self.logit_scale), MAX_SCALE)

    def everything(self) -> tuple[jax.Array, jax.Array, jax.Array]:
        return self.image(jnp.zeros((1, self.vision_width))), self.text(jnp.zeros((1, self.text_width))), self.scale()


@dataclasses.dataclass(frozen=True)
class CLIP:
    """Methods take params {"encoder", "text_tower", "contrast_head"}. Features are not normalised."""

    encoder: ViT
    text_tower: TextTower
    contrast_head: ContrastHead

    def image_features(self, params: Params, pixels: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """u8[B, 1, h, w, 3] → f32[B, J] of the class token, or of the mean patch in an encoder without one. key: of dropout, None: none is dropped."""
        config = self.encoder.config
        chex.assert_shape(pixels, (None, 1, config.size, config.size, 3))
        x = self.encoder.apply({"params": params["encoder"]}, normalise(pixels[:, 0], config.mean, config.std), rngs=dropout(key, "encoder"))
        pooled = x[:, 0] if config.class_token else x.mean(axis=1)
        return self.contrast_head.apply({"params": params["contrast_head"]}, pooled, method="image")

    def text_features(self, params: Params, tokens: jax.Array, segments: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """tokens i32[B, T], segments i32[B, T] (0: padding) → f32[B, J]."""
        pooled = self.text_tower.apply({"params": params["text_tower"]}, tokens, segments, rngs=dropout(key, "text_tower"))
        return self.contrast_head.apply({"params": params["contrast_head"]}, pooled, method="text")

    def logit_scale(self, params: Params) -> jax.Array:
        """f32[], what cosines are multiplied by: the learned scale, at most 100."""
        return self.contrast_head.apply({"params": params["contrast_head"]}, method="scale")


# OpenAI's CLIP, clip/model.py: clip-b belongs to B/32 and B/16, clip-l to L/14 at 224 and at 336.
VARIANTS = {
    "clip-b": TextConfig(vocab=49408, length=77, width=512, layers=12, heads=8, mlp=2048, joint=512),
    "clip-l": TextConfig(vocab=49408, length=77, width=768, layers=12, heads=12, mlp=3072, joint=768),
    "tiny": TextConfig(vocab=64, length=16, width=64, layers=2, heads=4, mlp=256, joint=64),
}
