"""Real processes that meet on this machine, without JAX."""
import os
import pathlib
import socket
import subprocess
import sys

START = """
import os, sys, threading, time
from vlmjax.errors import Stopped, UserError
from vlmjax.hosts import Job
from vlmjax.hosts.meeting import roll_call
port, count, index, timeout = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
def say(*what): print(*what, flush=True)
try:
    index, names, links, address = roll_call("127.0.0.1", port, count, index, timeout)
except (Stopped, UserError) as error:
    say(type(error).__name__, error)
    sys.exit(getattr(error, "status", 2))
job = Job(index, names, links)
"""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(program: str, count: int, indexes=None, timeout: float = 20.0, port: int | None = None) -> list[subprocess.Popen]:
    """`program` in the processes `indexes` of a job of `count`, each after the roll call."""
    port = port or free_port()
    env = {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[2])}
    command = lambda i: [sys.executable, "-c", START + program, str(port), str(count), str(i), str(timeout)]
    return [subprocess.Popen(command(i), env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for i in (range(count) if indexes is None else indexes)]


def finish(processes: list[subprocess.Popen], timeout: float = 60.0) -> list[tuple[int, str]]:
    """[(exit status, what it printed)], within `timeout` seconds."""
    try:
        printed = [process.communicate(timeout=timeout)[0].strip() for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, text) for process, text in zip(processes, printed)]
