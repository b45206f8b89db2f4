"""How the processes of a job find each other, and who is missing when they do not.

    VLMJAX_COORDINATOR=HOST:PORT   where process 0 listens     VLMJAX_PROCESSES=N   VLMJAX_PROCESS_ID=0 … N−1
    VLMJAX_TIMEOUT=SECONDS         how long they wait for each other at the start (300)

A launcher sets them on every host. On a Cloud TPU VM without them, JAX finds the processes itself.
"""
import contextlib
import glob
import json
import os
import socket
import time
from collections.abc import Mapping
from typing import Any

from vlmjax.errors import Stopped, UserError
from vlmjax.hosts.job import Job

COORDINATOR, PROCESSES, PROCESS_ID, TIMEOUT = "VLMJAX_COORDINATOR", "VLMJAX_PROCESSES", "VLMJAX_PROCESS_ID", "VLMJAX_TIMEOUT"
HEARTBEAT = 20  # seconds without a sign of life until a host counts as gone, here and in XLA

_job = Job()


def job() -> Job:
    """The job of this process; a process that nobody connected is alone."""
    return _job


def connect() -> Job:
    """Joins the job that the environment speaks of, and starts jax.distributed for it. Before anything asks for a device."""
    import jax  # not before: who only asks for `job` starts nothing

    global _job
    if _job.count > 1 or jax.distributed.is_initialized():
        return _job
    if os.environ.get(COORDINATOR):
        index, names, links, address = roll_call(*_settings())
        if len(names) > 1:
            jax.distributed.initialize(address, num_processes=len(names), process_id=index, heartbeat_timeout_seconds=HEARTBEAT)
        _job = Job(index, names, links)
    elif on_tpu_vm():
        try:
            jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT)
        except (ValueError, RuntimeError) as error:  # no metadata server: a notebook's machine, or a slice under another scheduler
            if jax.process_count() > 1:
                raise UserError(f"this slice has {jax.process_count()} hosts, and JAX does not find them ({error}); set {COORDINATOR}, {PROCESSES} and {PROCESS_ID} on each") from None
        _job = meet()
    return _job


def on_tpu_vm() -> bool:
    """Whether this machine has TPU chips that JAX will use."""
    return os.environ.get("JAX_PLATFORMS", "tpu").startswith("tpu") and bool(glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*"))


def meet() -> Job:
    """The job of processes that jax.distributed has brought together already: process 0 says by a collective where it listens."""
    import jax
    import numpy as np
    from jax.experimental import multihost_utils

    index, count = jax.process_index(), jax.process_count()
    if count == 1:
        return Job()
    server = socket.create_server(("", 0), backlog=count) if index == 0 else None
    address = f"{socket.gethostbyname(socket.gethostname())}:{server.getsockname()[1]}" if server else ""
    told = multihost_utils.broadcast_one_to_all(np.frombuffer(address.encode().ljust(64), np.uint8))
    host, _, port = bytes(np.asarray(told, np.uint8)).decode().strip().rpartition(":")
    index, names, links, _ = roll_call(host, int(port), count, index, 60.0, server)
    return Job(index, names, links)


def _settings() -> tuple[str, int, int, int, float]:
    """(host, port, processes, index, timeout) from the environment."""
    host, _, port = os.environ[COORDINATOR].rpartition(":")
    numbers = {name: os.environ.get(name, "") for name in (PROCESSES, PROCESS_ID)}
    if not host or not (port.isascii() and port.isdigit()) or not 1 <= int(port) <= 65535:
        raise UserError(f"{COORDINATOR}: {os.environ[COORDINATOR]!r} is not HOST:PORT, with a port of 1 … 65535")
    for name, text in numbers.items():
        if not text.isdigit():
            raise UserError(f"{name}: {text!r} is not a number; {COORDINATOR} needs {PROCESSES} and {PROCESS_ID} beside it")
    count, index = (int(text) for text in numbers.values())
    if not index < count:
        raise UserError(f"{PROCESS_ID}: {index} is not one of 0 … {count - 1} ({PROCESSES}={count})")
    timeout = os.environ.get(TIMEOUT, "300")
    if not timeout.replace(".", "", 1).isdigit():
        raise UserError(f"{TIMEOUT}: {timeout!r} is not a number of seconds")
    return host, int(port), count, index, float(timeout)


def roll_call(host: str, port: int, count: int, index: int, timeout: float, server: socket.socket | None = None) -> tuple[int, list[str], dict[int, socket.socket], str]:
    """Waits until all processes are there → (index, the names of their hosts, connections, where jax.distributed shall coordinate).

    Stopped: names who has not come within `timeout` seconds.
    """
    own, deadline = socket.gethostname(), time.monotonic() + timeout
    if count == 1:
        return 0, [own], {}, ""
    if index:
        link = _reach(host, port, deadline, timeout)
        _send(link, {"process": index, "of": count, "name": own})
        # Process 0 says by then who is missing; the rest is for a process 0 that has died.
        answer = _receive(link, deadline + 10) or {"failed": f"process 0 of {count} at {host}:{port} ended while the processes gathered"}
        if "failed" in answer:
            raise Stopped(answer["failed"], 1)
        return index, answer["names"], {0: link}, answer["jax"]
    names, links = {0: own}, {}
    try:
        server = server or socket.create_server(("", port), backlog=count)
    except OSError as error:
        raise UserError(f"{COORDINATOR}: process 0 cannot listen at port {port}: {error.strerror}") from None
    with server:
        while len(names) < count:
            server.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                link, _ = server.accept()
            except TimeoutError:
                missing = [str(i) for i in range(count) if i not in names]
                here = ", ".join(f"{i} on {name}" for i, name in sorted(names.items()))
                text = (f"process{'es' if len(missing) > 1 else ''} {', '.join(missing)} of {count} did not come within {timeout:.0f} s (here: {here}); "
                        "the same command has to run on every host")
                for link in links.values():
                    _send(link, {"failed": text})
                raise Stopped(text, 1) from None
            hello = _receive(link, time.monotonic() + 10)
            if not hello or "process" not in hello:
                link.close()  # something else that knocks at ports
                continue
            if hello["of"] != count or hello["process"] in names or not 0 < hello["process"] < count:
                problem = f"{hello['name']} says it is process {hello['process']} of {hello['of']}, which does not fit the {count} processes of this job or is there already"
                for other in (*links.values(), link):
                    _send(other, {"failed": problem})
                raise UserError(problem)
            names[hello["process"]], links[hello["process"]] = hello["name"], link
    with socket.create_server(("", 0)) as free:
        address = f"{host}:{free.getsockname()[1]}"
    in_order = [names[i] for i in range(count)]
    for link in links.values():
        _send(link, {"names": in_order, "jax": address})
        _keep_alive(link)
    return 0, in_order, links, address


def _reach(host: str, port: int, deadline: float, timeout: float) -> socket.socket:
    while True:
        try:
            link = socket.create_connection((host, port), timeout=5)
            link.settimeout(None)
            _keep_alive(link)
            return link
        except UnicodeError:  # of a name that is none, as a..b, for which nobody has to wait
            raise UserError(f"{COORDINATOR}: {host!r} is not the name of a host") from None
        except OSError as error:
            if time.monotonic() > deadline:
                raise Stopped(f"process 0 does not answer at {host}:{port} ({error.strerror or error}) within {timeout:.0f} s; the same command has to run on every host", 1) from None
            time.sleep(0.2)


def _keep_alive(link: socket.socket) -> None:
    """A host that falls silent counts as gone after HEARTBEAT seconds."""
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", HEARTBEAT // 4), ("TCP_KEEPINTVL", HEARTBEAT // 4), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            link.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _send(link: socket.socket, message: Mapping[str, Any]) -> None:
    with contextlib.suppress(OSError):
        link.sendall(json.dumps(message).encode() + b"\n")


def _receive(link: socket.socket, deadline: float) -> dict[str, Any] | None:
    """One line, byte by byte: what follows it is for whoever listens next."""
    line = b""
    try:
        while not line.endswith(b"\n"):
            link.settimeout(max(deadline - time.monotonic(), 0.01))
            byte = link.recv(1)
            if not byte or len(line) > 1 << 16:
                return None
            line += byte
        link.settimeout(None)
        return json.loads(line)
    except (OSError, ValueError):
        return None
