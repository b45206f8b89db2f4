"""How fast a stage runs, measured where it runs: what a row of its metrics says beside the loss, and what record.json keeps of that."""
import collections
import functools
import queue
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from vlmjax.train import build, chips, floor

# Keys of a row that say how fast the steps since the last read were, equal for all of them. They are no part of what a resumed run repeats bit for bit.
KEYS = ("step_seconds", "examples_per_second", "tokens_per_second", "tflops_per_device", "mfu", "data_wait", "data_wait_share", "hbm_peak")
COMPILED = "/jax/core/compile/backend_compile_duration"  # JAX reports it for every program that is compiled, or read from the cache of compiled ones


@functools.cache
def compilations() -> collections.Counter:
    """{thread: programs compiled in it since the first call}."""
    found = collections.Counter()
    jax.monitoring.register_event_duration_secs_listener(lambda event, seconds, **more: found.update([threading.get_ident()] if event == COMPILED else []))
    return found


class Meter:
    """Measures the steps of a stage from one reading of its metrics to the next. Outside of the steps are the first batch, compiling and, with
    `start` after each, saves.

    step_seconds: wall time of a step. tokens_per_second: real tokens (segment > 0; image places count, padding does not), counted in the rows that
    this process fed and taken to be as many in those of the others. tflops_per_device, mfu: by floor.CONVENTION; no mfu where the peak of the
    device is not known. data_wait: seconds of a step in which the devices had finished everything and waited for their batch; data_wait_share:
    its part of the step. hbm_peak: the most bytes that a device of this process has held since the process began, where the backend says so.
    recompiles: programs that were compiled while a step was called; each step has its one program before the first.
    """

    def __init__(self, stage: build.Stage):
        self.flops, self.devices = floor.useful(floor.stage(stage)), stage.mesh.size
        self.peak = chips.peak(stage.mesh.devices.flat[0].device_kind)
        self.recompiles, self._rows = 0, stage.shape.rows
        self._tokens, self._watch = 0, _Watch()
        self.start()

    @property
    def about(self) -> str:
        """What is measured, in one line."""
        size = f"{self.flops / 1e12:,.1f} T" if self.flops >= 1e12 else f"{self.flops / 1e9:.3f} G"
        peak = f"{self.peak / 1e12:.0f} TFLOP/s" if self.peak else "not known, so no MFU"
        return f"{size}FLOP per step on {self.devices} device(s), peak of each {peak} ({floor.CONVENTION})"

    def start(self) -> None:
        """The steps begin, or go on after something that is none."""
        self._began, self._waited = time.monotonic(), 0.0

    def draw(self, batches: Iterator[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """The next batch."""
        asked = time.monotonic()
        rows = next(batches)
        self._waited += self._watch.idle(asked, time.monotonic())
        if len(segments := rows.get("segments", ())):  # what a batch lacks is said by its check
            self._tokens += int(np.count_nonzero(segments)) * self._rows / len(segments)
        return rows

    def step(self, function: Callable[..., tuple[Any, dict[str, jax.Array]]], *args: Any) -> tuple[Any, dict[str, jax.Array]]:
        """function(*args) → (state, metrics), one step."""
        here = threading.get_ident()
        before = compilations()[here]
        state, values = function(*args)
        self.recompiles += compilations()[here] - before
        self._watch.add(values)
        return state, values

    def read(self, steps: int, examples: int) -> dict[str, float]:
        """What stands in the rows of the last `steps` steps, `examples` in all, which the devices have finished. Begins anew."""
        seconds, tokens, waited = (time.monotonic() - self._began) / steps, self._tokens / steps, self._waited / steps
        self._tokens = 0
        self.start()
        rate = self.flops / seconds / self.devices
        found = {"step_seconds": seconds, "examples_per_second": examples / steps / seconds, "tokens_per_second": tokens / seconds, "tflops_per_device": rate / 1e12,
                 "data_wait": waited, "data_wait_share": waited / seconds}
        if self.peak:
            found["mfu"] = rate / self.peak
        if held := memory_peak():
            found["hbm_peak"] = held
        return found

    def __enter__(self) -> "Meter":
        return self

    def __exit__(self, *_) -> None:
        self._watch.add(None)


class _Watch:
    """Knows when the devices finished the last step: a thread waits for it, since the loop runs ahead of them."""

    def __init__(self):
        self._given, self._finished, self._at, self._steps = 0, 0, 0.0, queue.SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    def add(self, values: Any) -> None:
        """Metrics of a step that has been given to the devices; None ends the thread."""
        self._given += 1
        self._steps.put(values)

    def idle(self, asked: float, arrived: float) -> float:
        """Seconds of the time from `asked` to `arrived` in which nothing was left to do."""
        return max(arrived - max(asked, self._at), 0.0) if self._finished == self._given else 0.0

    def _run(self) -> None:
        while (values := self._steps.get()) is not None:
            try:
                jax.block_until_ready(values)
            except Exception:  # the loop meets it, too, and says so
                return
            self._at = time.monotonic()
            self._finished += 1


def memory_peak() -> int:
    """The most bytes a device of this process has held; 0 where the backend does not say."""
    return max((stats.get("peak_bytes_in_use", 0) for device in jax.local_devices() if (stats := device.memory_stats())), default=0)


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What record.json keeps of a stage's rows: the median of each key, of hbm_peak the most, and the convention of FLOPs."""
    values = {key: [row[key] for row in rows if key in row] for key in KEYS}
    found = {key: float(f"{statistics.median(numbers):.4g}") for key, numbers in values.items() if numbers and key != "hbm_peak"}
    return found | ({"hbm_peak": max(values["hbm_peak"])} if values["hbm_peak"] else {}) | {"flops_convention": floor.CONVENTION}
