"""Programs that run once: at a stage's start they cost what compiling them costs."""
from collections.abc import Callable
from typing import Any

import jax


def run(function: Callable, *args: Any, out_shardings: Any = None) -> Any:
    """function(*args), compiled. For a CPU LLVM optimises nothing: drawing and moving parameters then takes a quarter to a half of
    the time to compile (7 s a component otherwise), and milliseconds more to run."""
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else {}
    return jax.jit(function, out_shardings=out_shardings).lower(*args).compile(compiler_options=options)(*args)
