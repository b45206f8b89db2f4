"""The projector: from the encoder's width to the language model's, one image token at a time, or through a Q-Former (qformer.py)."""
import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlmjax.errors import UserError
from vlmjax.models import qformer
from vlmjax.models.parts import ACTIVATIONS, layer_norm, name_axes, products
from vlmjax.models.qformer import QFormer, QFormerConfig
from vlmjax.models.vit import ViTConfig

EPS = 1e-5  # of torch's LayerNorm, which InternVL's projector takes as it is


@dataclasses.dataclass(frozen=True)
class ProjectorConfig:
    """depth: linear maps, with the activation between them; 1 is LLaVA's and MiniGPT-4's linear projector. shuffle: side of the square of neighbouring
    patches whose vectors are joined into one token before the first map (pixel shuffle, in SmolVLM's order, which is InternVL's, too), 1: none. norm: a LayerNorm of
    what is joined. join: so many tokens that follow each other in a row of patches are one (MiniGPT-4 with Llama 2)."""

    kind: str = "mlp"
    depth: int = 2
    activation: str = "gelu"
    shuffle: int = 1
    norm: bool = False
    join: int = 1

    def reads(self, encoder: ViTConfig) -> int:
        """Tokens of the encoder's that it reads, from the last on: patches, no class token."""
        return encoder.tokens_per_image

    def tokens(self, read: int) -> int:
        """Image tokens it makes of so many."""
        return read // self.shuffle**2 // self.join

    def places(self, encoder: ViTConfig) -> dict[str, int]:
        """What an ImageLayout has to know of it."""
        if self.join == 1:
            return {"shuffle": self.shuffle}
        side = encoder.size // encoder.patch
        if side % (self.join * self.shuffle):
            raise UserError(f"projector: {side} patches in a row are not whole runs of {self.join}")
        return {"tokens": self.tokens(self.reads(encoder))}


class Projector(nn.Module):
    """f[N, P, E], patches row by row of a square → f[N, P/s²/j, D], s = config.shuffle, j = config.join, hidden width D. Parameters: linear_0 … linear_(depth-1), each
    {kernel, bias}; the first maps s²·j·E; with a norm pre_norm/{scale, bias}."""

    config: ProjectorConfig
    in_width: int
    out_width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = shuffle(x, self.config.shuffle)
        x = x.reshape(len(x), -1, self.config.join * x.shape[-1]) if self.config.join > 1 else x
        if self.config.norm:
            x = layer_norm(EPS, self.dtype, "pre_norm")(x)
        for i in range(self.config.depth):
            if i:
                x = ACTIVATIONS[self.config.activation](x)
            x = nn.Dense(self.out_width, dtype=self.dtype, dot_general_cls=products, name=f"linear_{i}")(x)
            x = name_axes(x, "batch", "length", "embed")
        return x

    def everything(self) -> jax.Array:
        return self(jnp.zeros((1, self.config.shuffle**2 * self.config.join, self.in_width)))


def make(config: ProjectorConfig | QFormerConfig, in_width: int, out_width: int | None, dtype: Any = jnp.float32, unroll: int | bool = 1, remat: str = "none") -> nn.Module:
    """The whole module of a config. out_width: None where no language model follows, which only a Q-Former can do."""
    if isinstance(config, QFormerConfig):
        return QFormer(config, (config.layers // len(qformer.GROUP),), in_width, out_width, dtype, unroll, remat)
    return Projector(config, in_width, out_width, dtype)


def shuffle(x: jax.Array, side: int) -> jax.Array:
    """f[N, P, E] → f[N, P/side², side²·E]: each square of patches becomes one token, its patches row by row (SmolVLM, arXiv:2504.05299)."""
    if side == 1:
        return x
    N, P, E = x.shape
    h = math.isqrt(P) // side
    return x.reshape(N, h, side, h, side, E).swapaxes(2, 3).reshape(N, h * h, side * side * E)


# LLaVA: arXiv:2304.08485 (linear) and arXiv:2310.03744 (mlp2x, with exact GELU). InternVL: arXiv:2404.16821. MiniGPT-4 with Llama 2:
# Vision-CAIR/MiniGPT-4, models/minigpt4.py without a Q-Former.
VARIANTS = {"linear": ProjectorConfig(depth=1), **{f"mlp{n}x": ProjectorConfig(depth=n) for n in (2, 3, 4)},
            **{f"mlp2x-shuffle{s}": ProjectorConfig(shuffle=s) for s in (2, 4)},
            "internvl": ProjectorConfig(shuffle=2, norm=True), "linear-join4": ProjectorConfig(depth=1, join=4), **qformer.VARIANTS}
CONFIGS = {config.kind: config for config in (ProjectorConfig, QFormerConfig)}
