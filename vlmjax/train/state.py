"""What a stage carries from step to step, and what it only reads."""
from typing import Any

import flax.struct
import jax


@flax.struct.dataclass
class Learned:
    """Everything a step changes, all of it saved.

    step i32[], trainable: parameters with None where frozen, opt_state: optax's, reached {path in memory: bool[] or bool[L]}: whether the
    leaf (each layer of a stack) ever had a gradient whose squares add up to more than 0 in float32, that is, an element of some 1e-19 or
    more, skipped i32[]: steps not applied because loss or gradient was not finite.
    """

    step: jax.Array
    trainable: Any
    opt_state: Any
    reached: dict[str, jax.Array]
    skipped: jax.Array


@flax.struct.dataclass
class TrainState:
    """`learned` changes; `frozen` (parameters with None where trainable) is an argument of every step and a result of none."""

    learned: Learned
    frozen: Any
