"""What a run says while it runs: metrics in numbered parts, TensorBoard events, a bar on a terminal or lines in a log."""
import dataclasses
import json
import pathlib
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath
from tensorboardX import SummaryWriter
from tqdm import tqdm

from vlmjax import files
from vlmjax.errors import UserError, at_least

WAIT_SAID = 0.05  # share of a step that devices wait for data above which a line says so


@dataclasses.dataclass(frozen=True)
class LoggingConfig:
    """every: steps between reading metrics from the devices. line_seconds: between plain lines where there is no terminal. trace_steps: of each stage
    that are traced (trace.py), 0: none; trace_start: steps of this process before them; trace_process: which one traces, −1: all."""

    every: int = 20
    line_seconds: float = 15.0
    tensorboard: bool = True
    trace_steps: int = 0
    trace_start: int = 10
    trace_process: int = 0

    def __post_init__(self):
        at_least("logging", self, every=1, trace_steps=0, trace_start=0, trace_process=-1)


def say(text: str) -> None:
    """One plain line, from the first process of a pod."""
    if jax.process_index() == 0:
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()


class Writer:
    """Metrics of one stage. `add` keeps them; `flush` makes a new part of what was added (object stores cannot append)."""

    def __init__(self, workdir: epath.PathLike, stage: str, config: LoggingConfig):
        self.workdir = epath.Path(workdir)
        self._directory, self._stage, self._rows = self.workdir / "metrics", stage, []
        self._first = jax.process_index() == 0
        self._part = sum(1 for _ in self._directory.glob(f"{stage}-*.jsonl")) if self._directory.exists() else 0
        self._events_at, self._events = epath.Path(workdir) / "events" / stage, None
        if config.tensorboard and self._first:
            # A store cannot append: there the events are written on this machine, and copied whole at every flush.
            self._local = tempfile.TemporaryDirectory() if files.in_store(workdir) else None
            self._events = SummaryWriter(self._local.name if self._local else str(self._events_at), filename_suffix=f".{self._part:03d}")

    def add(self, step: int, values: dict[str, float]) -> None:
        self._rows.append({"step": step, **values})
        if self._events:
            for name, value in values.items():
                self._events.add_scalar(name, value, step)

    def flush(self) -> None:
        if self._rows and self._first:
            files.write(self._directory / f"{self._stage}-{self._part:03d}.jsonl", "".join(json.dumps(row) + "\n" for row in self._rows))
            self._part += 1
        self._rows = []
        if self._events:
            self._events.flush()
            self._copy_events()

    def _copy_events(self) -> None:
        for path in pathlib.Path(self._local.name).iterdir() if self._local else ():
            files.write(self._events_at / path.name, path.read_bytes())

    def close(self) -> None:
        self.flush()
        if self._events:
            self._events.close()
            self._copy_events()


def read(workdir: epath.PathLike, stage: str) -> list[dict[str, Any]]:
    """All parts of a stage joined, by step; where a resumed run repeated a step, the later part counts."""
    rows: dict[int, dict[str, Any]] = {}
    for part in sorted((epath.Path(workdir) / "metrics").glob(f"{stage}-*.jsonl")):
        rows.update({row["step"]: row for row in read_part(part)})
    return [rows[step] for step in sorted(rows)]


def read_part(path: epath.PathLike) -> list[dict[str, Any]]:
    """The rows of one part; a line that is none is an error that names it."""
    try:
        lines = epath.Path(path).read_text().splitlines()
    except (OSError, UnicodeError) as error:
        raise UserError(f"{path}: cannot be read: {files.reason(error)}") from None
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or "step" not in row:
            raise UserError(f"{path}: line {number} is no row of metrics (a JSON object with a step): {line[:40]!r}; put the file back as it was, or take the line out")
        rows.append(row)
    return rows


class Progress:
    """A bar on a terminal; elsewhere a line with the time left every `line_seconds`, from the first process of a pod."""

    def __init__(self, name: str, start: int, total: int, config: LoggingConfig):
        self._name, self._start, self._total, self._every = name, start, total, config.line_seconds
        self._began = self._said = time.monotonic()
        self._bar = tqdm(total=total, initial=start, desc=name, unit="step", dynamic_ncols=True, file=sys.stderr) if sys.stderr.isatty() and jax.process_index() == 0 else None

    def update(self, step: int, loss: float, speed: Mapping[str, float]) -> None:
        """`step` steps are done; speed: what speed.Meter read of the last ones."""
        now = time.monotonic()
        if self._bar is not None:
            self._bar.set_postfix_str(", ".join(state(loss, speed)), refresh=False)
            self._bar.update(step - self._bar.n)
        elif now - self._said >= self._every:
            self._said = now
            left = (self._total - step) * (now - self._began) / (step - self._start)  # with its share of saves
            say(f"{self._name}: step {step}/{self._total}, {', '.join(state(loss, speed))}, {clock(left)} left")

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def state(loss: float, speed: Mapping[str, float]) -> list[str]:
    """Loss and speed, as a line says them."""
    step = speed["step_seconds"]
    out = [f"loss {loss:.4f}", f"{speed['examples_per_second']:,.0f} examples/s", f"{step:.2f} s/step" if step >= 1 else f"{1e3 * step:.3g} ms/step"]
    out += [f"MFU {100 * speed['mfu']:.1f} %"] if "mfu" in speed else []
    return out + ([f"waits for data {100 * speed['data_wait_share']:.0f} %"] if speed["data_wait_share"] > WAIT_SAID else [])


def clock(seconds: float) -> str:
    """40 s, 3 min 20 s, 5 h 07 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60:02d} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02d} min"
