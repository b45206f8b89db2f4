"""The projector: from the encoder's width to the language model's, one image token at a time."""
import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlmjax.models.parts import ACTIVATIONS, layer_norm, name_axes, products

EPS = 1e-5  # of torch's LayerNorm, which InternVL's projector takes as it is


@dataclasses.dataclass(frozen=True)
class ProjectorConfig:
    """depth: linear maps, with the activation between them; 1 is LLaVA's and MiniGPT-4's linear projector. shuffle: side of the square of neighbouring
    patches whose vectors are joined into one token before the first map (pixel shuffle, in SmolVLM's order, which is InternVL's, too), 1: none. norm: a LayerNorm of
    what is joined."""

    kind: str = "mlp"
    depth: int = 2
    activation: str = "gelu"
    shuffle: int = 1
    norm: bool = False


class Projector(nn.Module):
    """f[N, P, E], patches row by row of a square → f[N, P/s², D], s = config.shuffle, hidden width D. Parameters: linear_0 … linear_(depth-1), each
    {kernel, bias}; the first maps s²·E; with a norm pre_norm/{scale, bias}."""

    config: ProjectorConfig
    in_width: int
    out_width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = shuffle(x, self.config.shuffle)
        if self.config.norm:
            x = layer_norm(EPS, self.dtype, "pre_norm")(x)
        for i in range(self.config.depth):
            if i:
                x = ACTIVATIONS[self.config.activation](x)
            x = nn.Dense(self.out_width, dtype=self.dtype, dot_general_cls=products, name=f"linear_{i}")(x)
            x = name_axes(x, "batch", "length", "embed")
        return x

    def everything(self) -> jax.Array:
        return self(jnp.zeros((1, self.config.shuffle**2, self.in_width)))


def shuffle(x: jax.Array, side: int) -> jax.Array:
    """f[N, P, E] → f[N, P/side², side²·E]: each square of patches becomes one token, its patches row by row (SmolVLM, arXiv:2504.05299)."""
    if side == 1:
        return x
    N, P, E = x.shape
    h = math.isqrt(P) // side
    return x.reshape(N, h, side, h, side, E).swapaxes(2, 3).reshape(N, h * h, side * side * E)


# LLaVA: arXiv:2304.08485 (linear) and arXiv:2310.03744 (mlp2x, with exact GELU). InternVL: arXiv:2404.16821.
VARIANTS = {"linear": ProjectorConfig(depth=1), **{f"mlp{n}x": ProjectorConfig(depth=n) for n in (2, 3, 4)},
            **{f"mlp2x-shuffle{s}": ProjectorConfig(shuffle=s) for s in (2, 4)},
            "internvl": ProjectorConfig(shuffle=2, norm=True)}
