"""Vision transformers: images to patch vectors that have seen each other."""
import dataclasses
import functools
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlmjax.layout import ImageLayout
from vlmjax.models.attention import Attend, Attention, attend, take
from vlmjax.models.lora import ATTENTION, LoRAConfig, adapt
from vlmjax.models.parts import ACTIVATIONS, fan_in, layer_norm, name_axes, products
from vlmjax.models.patch_embed import PatchEmbed
from vlmjax.models.stack import Stack


@dataclasses.dataclass(frozen=True)
class ViTConfig:
    """Sizes and conventions of a vision transformer.

    size, patch: side of the image and of a patch in pixels. pre_norm: a norm before the first block (CLIP's `pre_layrnorm`).
    final_norm: one after the last. qkv_bias: which of the three projections have a bias. feature_layer: the output that a
    language model reads, as in transformers' `hidden_states`: -1 the last block, -2 the one before. mean, std: of the pixels
    it was trained on, per channel, of values in [0, 1]. layer_scale: what the gains begin with that each layer has for what its attention and its MLP add
    (arXiv:2103.17239), None: it has none. lora: adapters of its projections. final_eps: epsilon of the final norm, None: that of the others.
    """

    projections: ClassVar = (*ATTENTION, "mlp/up", "mlp/down")

    size: int
    patch: int
    width: int
    layers: int
    heads: int
    mlp: int
    activation: str = "quick_gelu"
    eps: float = 1e-5
    class_token: bool = True
    pre_norm: bool = True
    final_norm: bool = False
    patch_bias: bool = False
    qkv_bias: tuple[str, ...] = ("q", "k", "v")
    feature_layer: int = -2
    mean: tuple[float, float, float] = ImageLayout.mean
    std: tuple[float, float, float] = ImageLayout.std
    layer_scale: float | None = None
    lora: LoRAConfig | None = None
    final_eps: float | None = None

    @property
    def tokens_per_image(self) -> int:
        """P: patches of one image, without the class token."""
        return ImageLayout(self.size, self.patch).tokens_per_image

    @property
    def feature_blocks(self) -> int:
        """How many blocks the feature layer needs; those above it need neither computing nor storing."""
        return self.layers + 1 + self.feature_layer


class MLP(nn.Module):
    """f[B, T, E] → [F] → activation → f[B, T, E]; initialised as CLIP's. Parameters: up, down, each {kernel, bias}."""

    mlp: int
    layers: int
    activation: str
    dtype: Any = jnp.float32
    lora: LoRAConfig | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        E = x.shape[-1]
        dense = functools.partial(nn.Dense, dtype=self.dtype, dot_general_cls=products)
        hidden = adapt(self.lora, "mlp/up", x, dense(self.mlp, kernel_init=fan_in(2 * E), name="up")(x))
        hidden = ACTIVATIONS[self.activation](name_axes(hidden, "batch", "length", "mlp"))
        y = dense(E, kernel_init=fan_in(E, (2 * self.layers) ** -0.5), name="down")(hidden)
        return adapt(self.lora, "mlp/down", hidden, y)


class Block(nn.Module):
    """A pre-norm transformer layer with LayerNorm and biases, of a vision or of CLIP's text tower. f[B, T, E] → f[B, T, E].

    config: of either tower; only the sizes they share are read. Parameters: norm1, attention, norm2, mlp; with layer scale also scale1 and scale2, [E].
    """

    config: Any
    qkv_bias: tuple[str, ...] = ("q", "k", "v")
    dtype: Any = jnp.float32
    attend: Attend = attend

    @nn.compact
    def __call__(self, x, turns=None, mask=None, cache=None, place=None, asked=None):
        c = self.config
        begin = getattr(c, "layer_scale", None)
        scaled = lambda name, y: y if begin is None else y * self.param(name, nn.initializers.constant(begin), (c.width,), jnp.float32).astype(self.dtype)
        attention = Attention(
            width=c.width,
            heads=c.heads,
            kv_heads=c.heads,
            head_dim=c.width // c.heads,
            biases=(*self.qkv_bias, "o"),
            out_scale=(2 * c.layers) ** -0.5,
            dtype=self.dtype,
            attend=self.attend,
            lora=c.lora,
            name="attention",
        )
        y, cache = attention(layer_norm(c.eps, self.dtype, "norm1")(x), turns, mask, cache, place, asked)
        x = name_axes(take(x, asked) + scaled("scale1", y), "batch", "length", "embed")
        y = MLP(c.mlp, c.layers, c.activation, self.dtype, c.lora, name="mlp")(layer_norm(c.eps, self.dtype, "norm2")(x))
        return name_axes(x + scaled("scale2", y), "batch", "length", "embed"), cache


class ViT(nn.Module):
    """Normalised images f32[N, h, w, 3] → f[N, P, E], with a class token in front f[N, P+1, E]; f[N, 1, E] where asked_only.

    Runs exactly sum(segments) blocks: config.layers of them for a contrastive objective, config.feature_blocks in front of a
    projector. The final norm belongs to the last block: it is there when the config has one and all blocks run.
    asked_only: only the class token comes out, all that a contrastive objective reads of a CLIP. The last block, which needs a segment of its own, is then
    computed for it alone; the numbers are the same.
    Parameters: patch_embed, class_token [E], position_embed [P(+1), E], pre_norm, layers/START-STOP/…, final_norm.
    """

    config: ViTConfig
    segments: tuple[int, ...]
    dtype: Any = jnp.float32
    unroll: int | bool = 1
    remat: str = "none"
    attend: Attend = attend
    asked_only: bool = False

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        c = self.config
        N, E = images.shape[0], c.width
        x = PatchEmbed(c.patch, E, c.patch_bias, self.dtype, name="patch_embed")(images)
        if c.class_token:
            token = self.param("class_token", fan_in(E), (E,), jnp.float32).astype(self.dtype)
            x = jnp.concatenate([jnp.broadcast_to(token, (N, 1, E)), x], axis=1)  # [N, P+1, E]
        x += self.param("position_embed", fan_in(E), x.shape[1:], jnp.float32).astype(self.dtype)
        if c.pre_norm:
            x = layer_norm(c.eps, self.dtype, "pre_norm")(x)
        block = functools.partial(Block, c, c.qkv_bias, self.dtype, self.attend)
        stack = Stack(block, self.segments, self.unroll, self.remat, name="layers")
        x, _ = stack(name_axes(x, "batch", "length", "embed"), asked=1 if self.asked_only else None)
        if c.final_norm and sum(self.segments) == c.layers:
            x = layer_norm(c.eps if c.final_eps is None else c.final_eps, self.dtype, "final_norm")(x)
        return x

    def everything(self) -> jax.Array:
        return self(jnp.zeros((1, self.config.size, self.config.size, 3)))


# CLIP: OpenAI, arXiv:2103.00020, clip/model.py. EVA ViT-g: arXiv:2211.07636 as BLIP-2 and MiniGPT-4 use it, without its 40th
# block; `-hf` as in transformers' BLIP-2. ViT: arXiv:2010.11929, vit_jax/configs/models.py. InternViT: arXiv:2404.16821.
_EVA_G14 = ViTConfig(
    size=224, patch=14, width=1408, layers=39, heads=16, mlp=6144, activation="gelu", eps=1e-6,
    pre_norm=False, patch_bias=True, qkv_bias=("q", "v"), feature_layer=-1,
)  # fmt: skip
VARIANTS = {
    "clip-b32": ViTConfig(size=224, patch=32, width=768, layers=12, heads=12, mlp=3072),
    "clip-b16": ViTConfig(size=224, patch=16, width=768, layers=12, heads=12, mlp=3072),
    "clip-l14": ViTConfig(size=224, patch=14, width=1024, layers=24, heads=16, mlp=4096),
    "clip-l14-336": ViTConfig(size=336, patch=14, width=1024, layers=24, heads=16, mlp=4096),
    "eva-g14": _EVA_G14,
    "eva-g14-hf": dataclasses.replace(_EVA_G14, qkv_bias=("q", "k", "v"), final_norm=True),
    "vit-b16": ViTConfig(
        size=224, patch=16, width=768, layers=12, heads=12, mlp=3072, activation="gelu_tanh", eps=1e-6,
        pre_norm=False, final_norm=True, patch_bias=True, feature_layer=-1, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5),
    ),
    "internvit-300m": ViTConfig(
        size=448, patch=14, width=1024, layers=24, heads=16, mlp=4096, activation="gelu", eps=1e-6, pre_norm=False, patch_bias=True, feature_layer=-1,
        mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), layer_scale=0.1,
    ),
    "tiny-64": ViTConfig(size=64, patch=8, width=64, layers=4, heads=4, mlp=256, feature_layer=-1),
}  # fmt: skip
