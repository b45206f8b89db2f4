"""How XLA compiles in tests: programs here compile for seconds and run for milliseconds, so LLVM optimises nothing and XLA emits fusions the short way, an eighth of the time."""
import functools
import os
import subprocess
import sys

CHEAP = ("--xla_backend_optimization_level=0", "--xla_cpu_use_fusion_emitters=false")


@functools.cache
def cheap() -> str:
    """Those of CHEAP that the installed jaxlib knows: it ends a process that names another, and jaxlib 0.12 has no short way any more. Asked once, by a process, for all workers."""
    if "VLMJAX_TEST_FLAGS" not in os.environ:
        os.environ["VLMJAX_TEST_FLAGS"] = " ".join(flag for flag in CHEAP if not subprocess.run(
            [sys.executable, "-c", "import jax; jax.devices()"], env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flag}, capture_output=True).returncode)
    return os.environ["VLMJAX_TEST_FLAGS"]


def flags(devices: int) -> str:
    return f"--xla_force_host_platform_device_count={devices} {cheap()}"
