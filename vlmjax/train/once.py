"""Programs that run once: at a stage's start they cost what compiling them costs."""
from collections.abc import Callable
from typing import Any

import jax

from vlmjax import kernels

CHEAP = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}


def run(function: Callable, *args: Any, out_shardings: Any = None) -> Any:
    """function(*args), compiled. For a CPU LLVM optimises nothing, and XLA's older way to write out loops makes fewer of them: drawing and moving parameters
    then takes a third to a half of the time to compile, and milliseconds more to run."""
    options = {name: value for name, value in CHEAP.items() if kernels.is_known(name, value)} if jax.default_backend() == "cpu" else {}
    return jax.jit(function, out_shardings=out_shardings).lower(*args).compile(compiler_options=options)(*args)
