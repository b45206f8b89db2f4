"""Eight virtual CPU devices for every test, and one cache of compiled programs for all; set before jax is imported.

Programs here compile for seconds and run for milliseconds, so LLVM optimises nothing and XLA emits fusions the short way: an eighth of
the time. What a user's flags compile is run by the tests that start `vlmjax train` as a process.
"""
import os
import pathlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
                           " --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
                           " --xla_cpu_collective_call_terminate_timeout_seconds=300")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).parent.parent / ".cache" / "xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
