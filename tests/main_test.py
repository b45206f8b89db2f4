"""What a process asks of its memory before anything of weight is imported."""
import platform
import subprocess
import sys

import pytest

KEEPS = """
import ctypes, resource
from vlmjax.__main__ import keep_freed_memory
keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc({size})
    libc.memset(block, 1, 64 << 20)
    libc.free(block)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    print(faults)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone gives memory back that has to be kept")
@pytest.mark.parametrize("size", (128 << 20, 5 << 29))  # 128 MiB, and 2.5 GiB, of which 64 MiB are written
def test_what_was_freed_is_not_faulted_in_again(size):
    done = subprocess.run([sys.executable, "-c", KEEPS.format(size=size)], capture_output=True, text=True, check=True)
    first, again = map(int, done.stdout.split())
    assert first > 1000 and again < 100, done.stdout
