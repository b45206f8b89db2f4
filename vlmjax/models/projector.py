"""The projector: from the encoder's width to the language model's, one image token at a time."""
import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlmjax.models.parts import ACTIVATIONS, name_axes


@dataclasses.dataclass(frozen=True)
class ProjectorConfig:
    """depth: linear maps, with the activation between them; 1 is LLaVA's and MiniGPT-4's linear projector."""

    kind: str = "mlp"
    depth: int = 2
    activation: str = "gelu"


class Projector(nn.Module):
    """f[N, P, E] → f[N, P, D], hidden width D. Parameters: linear_0 … linear_(depth-1), each {kernel, bias}."""

    config: ProjectorConfig
    in_width: int
    out_width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i in range(self.config.depth):
            if i:
                x = ACTIVATIONS[self.config.activation](x)
            x = nn.Dense(self.out_width, dtype=self.dtype, name=f"linear_{i}")(x)
            x = name_axes(x, "batch", "length", "embed")
        return x

    def everything(self) -> jax.Array:
        return self(jnp.zeros((1, 1, self.in_width)))


# LLaVA: arXiv:2304.08485 (linear) and arXiv:2310.03744 (mlp2x, with exact GELU).
VARIANTS = {"linear": ProjectorConfig(depth=1), **{f"mlp{n}x": ProjectorConfig(depth=n) for n in (2, 3, 4)}}
