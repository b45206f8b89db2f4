"""What is computed: Flax modules as pure functions of their parameters. Each file ends with its table of variants."""
import functools
from typing import Any

import flax.linen as nn
import jax


def init_params(module: nn.Module, key: jax.Array) -> dict[str, Any]:
    """All parameters of one component (f32), whatever methods read them.

    A component's `everything` calls each of its parts once on the smallest inputs its config permits. Under `jax.eval_shape`
    nothing is computed, and under `jax.jit` the forward pass is dead code.
    """
    return module.init(key, method="everything")["params"]


@functools.lru_cache(maxsize=256)  # a run asks for each component a dozen times, and tracing one takes tenths of a second
def param_shapes(module: nn.Module) -> dict[str, Any]:
    """The tree of `init_params` as ShapeDtypeStructs; not to be changed."""
    return jax.eval_shape(lambda: init_params(module, jax.random.key(0)))
