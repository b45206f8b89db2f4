"""Real processes that share eight virtual devices, as the hosts of a pod."""
import os
import pathlib
import socket
import subprocess
import sys
import tempfile

from tests import xla_flags

START = """
import sys
import jax
from vlmjax import hosts
sys.stdout = open(sys.argv[1], "w")  # collectives write to the stream itself, in the middle of lines
hosts.connect()
"""
END = """
hosts.job().close()
"""


def run(program: str, count: int = 2) -> list[str]:
    """What each of `count` processes prints."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    env = {**os.environ, "XLA_FLAGS": xla_flags.flags(8 // count), "PYTHONPATH": str(pathlib.Path(__file__).parents[1]), "VLMJAX_COORDINATOR": f"127.0.0.1:{port}", "VLMJAX_PROCESSES": str(count)}
    with tempfile.TemporaryDirectory() as folder:
        printed = [pathlib.Path(folder) / str(i) for i in range(count)]
        start = lambda i: subprocess.Popen([sys.executable, "-c", START + program + END, str(printed[i])], env={**env, "VLMJAX_PROCESS_ID": str(i)},
                                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        started = [start(i) for i in range(count)]
        try:
            outputs = [process.communicate(timeout=240)[0] for process in started]
        finally:
            for process in started:  # one that waits for the other would wait for ever
                process.kill()
        assert [process.returncode for process in started] == [0] * count, outputs
        return [file.read_text().strip() for file in printed]
