"""One process of a job, beside the others: what they agree on, when they stop, and what becomes of the others when one ends.

Plain TCP beside the collectives, so that it also works while they wait: every process keeps one connection to process 0, which passes
messages on as JSON lines. A process that ends without a word is noticed by its connection, long before XLA's heartbeats.
"""
import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from vlmjax.errors import UserError

GRACE = 20  # seconds that a process asked to stop may still compute before it ends as it is
OUTLAST = 10  # seconds that process 0 waits at most for the others to have ended
TERMINATED = 128 + signal.SIGTERM


class Job:
    """One process of a job; `links`: {process: its connection}, of process 0 to all others, of the others to process 0. names: of their hosts."""

    def __init__(self, index: int = 0, names: Sequence[str] = ("",), links: Mapping[int, socket.socket] = {}):
        self.index, self.names, self.count = index, tuple(names), len(names)
        self._links, self._lines = dict(links), {peer: threading.Lock() for peer in links}
        self._changed = threading.Condition()
        self._asked = 0  # gatherings so far
        self._brought: dict[int, dict[int, Any]] = {}  # process 0: {gathering: {process: value}}
        self._results: dict[int, list[Any]] = {}
        self._step, self._until, self._holding, self._places = 0, None, False, {}
        self._stopping, self._saving, self._done = "", False, False
        self._parted: set[int] = set()  # said goodbye
        self._gone: set[int] = set()  # have ended: the system closes a process's connections after its last thread
        for peer, link in self._links.items():
            threading.Thread(target=self._listen, args=(peer, link), daemon=True).start()

    # --- what they agree on ---------------------------------------------------------------------------------------------------

    def gather(self, value: Any) -> list[Any]:
        """The value of every process, in their order; all have to ask. Values are JSON."""
        if self.count == 1:
            return [value]
        with self._changed:
            number, self._asked = self._asked, self._asked + 1
        self._tell(0, {"gather": number, "value": value})
        with self._changed:
            self._changed.wait_for(lambda: number in self._results)
            return self._results.pop(number)

    def share(self, value: Callable[[], Any]) -> Any:
        """What process 0 finds; the others do not look."""
        return self.gather(value() if self.index == 0 else None)[0]

    def barrier(self) -> None:
        self.gather(None)

    @contextlib.contextmanager
    def agreed(self) -> Iterator[None]:
        """An error that a user can cause on one host ends the block on all of them, before any enters a collective the others do not."""
        error = None
        try:
            yield
        except UserError as caught:
            error = caught
        found = self.gather(str(error) if error else None)
        if error:
            raise error
        if wrong := [(i, text) for i, text in enumerate(found) if text is not None]:
            raise UserError(f"{self.name(wrong[0][0])}: {wrong[0][1]}")

    # --- stopping at one place -------------------------------------------------------------------------------------------------

    def catch_termination(self, grace: float = GRACE) -> None:
        """From now on SIGTERM to one process stops all of them at one place (`stops`). Where that does not come within `grace` seconds, in a
        compilation for instance, they end as they are; what has been saved stays."""
        heard, wake = socket.socketpair()
        heard.setblocking(True)
        wake.setblocking(False)
        signal.signal(signal.SIGTERM, lambda *_: None)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)  # is written to at once, also while the main thread computes

        def watch():
            while number := heard.recv(1):
                if number[0] == signal.SIGTERM and not self._stopping:
                    self._tell(0, {"stop": f"{self.name(self.index)} was asked to stop (SIGTERM)"})
                    time.sleep(grace)
                    if not self._saving and not self._done:
                        self.fail("stopped (SIGTERM) before the next step; the same command resumes from the last checkpoint", TERMINATED)

        self._wake = wake  # lives as long as the job
        threading.Thread(target=watch, daemon=True).start()

    def stops(self) -> str:
        """Asked by every process equally often, after each step or batch: the reason to stop here, the same place in all of them; empty: go on."""
        with self._changed:
            self._changed.wait_for(lambda: not self._holding)
            self._step += 1
            if self._until is None or self._step < self._until:
                return ""
            self._saving = True
            return self._stopping

    # --- how it ends ----------------------------------------------------------------------------------------------------------

    def name(self, index: int) -> str:
        return f"process {index} of {self.count}{f' on {self.names[index]}' if self.names[index] else ''}"

    def leave(self, text: str, status: int) -> None:
        """Ends this process where all of them have agreed to end; does not return."""
        self._part()
        self._end(f"vlmjax: {text}", status)

    def fail(self, text: str, status: int) -> None:
        """Ends all processes at once, with this status and text; does not return. Nothing waits for collectives that will not come."""
        with self._changed:
            self._done = True
        if self.count > 1:
            for peer in self._links:
                self._tell(peer, {"failed": text, "status": status, "by": self.index})
        self._end(f"vlmjax: {text}", status)

    def close(self) -> None:
        """Waits for all processes, so that none ends while another needs it."""
        if self.count > 1:
            self.barrier()
            self._part()

    def _part(self) -> None:
        with self._changed:
            self._done = True
        for peer in self._links:
            self._tell(peer, {"bye": True})

    def _end(self, text: str, status: int) -> None:
        """Says one line, once: what this process found out and what another told it may come at the same moment. Process 0 ends last: XLA's coordination
        service lives in it, and a process that misses it is ended by SIGABRT, whatever it was about to say."""
        if not _ending.acquire(blocking=False):
            threading.Event().wait()  # for the thread that came first to end them all
        print(text, file=sys.stderr)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        if self.index == 0:
            with self._changed:
                self._changed.wait_for(lambda: self._gone.issuperset(self._links), OUTLAST)
        os._exit(status)

    # --- messages -------------------------------------------------------------------------------------------------------------

    def _tell(self, peer: int, message: Mapping[str, Any]) -> None:
        if peer == self.index:
            return self._hear(peer, message)
        with self._lines[peer], contextlib.suppress(OSError):  # a lost connection is noticed where it is read
            self._links[peer].sendall(json.dumps(message).encode() + b"\n")

    def _all(self, message: Mapping[str, Any]) -> None:
        for peer in (*self._links, self.index):  # itself last: what it does then must not overtake what the others are told
            self._tell(peer, message)

    def _listen(self, peer: int, link: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), link.makefile("rb") as lines:
            for line in lines:
                message = json.loads(line)
                self._hear(peer, message)
        with self._changed:
            self._gone.add(peer)
            self._changed.notify_all()
            missed = not self._done and peer not in self._parted
        if missed:
            self.fail(f"{self.name(peer)} is gone, without a word; the same command on every host resumes from the last checkpoint", 1)

    def _hear(self, peer: int, message: Mapping[str, Any]) -> None:
        if "bye" in message:
            with self._changed:
                self._parted.add(peer)
        elif "failed" in message:
            with self._changed:
                self._done = True
            if self.index == 0:
                for other in self._links:
                    if other != peer:
                        self._tell(other, message)
            text = f"vlmjax: {self.name(message['by'])} stopped: {message['failed']}"
            threading.Thread(target=self._end, args=(text, message["status"])).start()  # this thread goes on to listen for the end of who failed
        elif "gather" in message:
            with self._changed:
                brought = self._brought.setdefault(message["gather"], {})
                brought[peer] = message["value"]
                complete = len(brought) == self.count and self._brought.pop(message["gather"])
            if complete:
                self._all({"gathered": message["gather"], "values": [complete[i] for i in range(self.count)]})
        elif "gathered" in message:
            with self._changed:
                self._results[message["gathered"]] = message["values"]
                self._changed.notify_all()
        elif "stop" in message:  # to process 0: asks all where they are; they wait there until the step is known
            with self._changed:
                first = not self._stopping
                self._stopping = self._stopping or message["stop"]
            if first:
                self._all({"where": message["stop"]})
        elif "where" in message:
            with self._changed:
                self._stopping, self._holding = message["where"], True
                step = self._step
            self._tell(0, {"at": step})
        elif "at" in message:
            with self._changed:
                self._places[peer] = message["at"]
                complete = len(self._places) == self.count
            if complete:
                self._all({"until": max(self._places.values()) + 1})
        elif "until" in message:
            with self._changed:
                self._until, self._holding = message["until"], False
                self._changed.notify_all()


_ending = threading.Lock()
