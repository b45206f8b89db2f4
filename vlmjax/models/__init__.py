"""What is computed: Flax modules as pure functions of their parameters. Each file ends with its table of variants."""
from typing import Any

import flax.linen as nn
import jax


def init_params(module: nn.Module, key: jax.Array) -> dict[str, Any]:
    """All parameters of one component (f32), whatever methods read them.

    A component's `everything` calls each of its parts once on the smallest inputs its config permits. Under `jax.eval_shape`
    nothing is computed, and under `jax.jit` the forward pass is dead code.
    """
    return module.init(key, method="everything")["params"]
