"""Eight virtual CPU devices for every test, and one cache of compiled programs for all; set before jax is imported.

They compile cheaply (tests/xla_flags.py). What a user's flags compile is run by the tests that start `vlmjax train` as a process.
"""
import os
import pathlib

from tests import xla_flags

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (f"{os.environ.get('XLA_FLAGS', '')} {xla_flags.flags(8)}"
                           " --xla_cpu_collective_call_terminate_timeout_seconds=300")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).parent.parent / ".cache" / "xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
