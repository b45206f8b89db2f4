"""Progress of work that is counted: a bar on a terminal, elsewhere a line with the time left now and then."""
import sys
import time

from tqdm import tqdm

LINE_SECONDS = 15.0


class Bar:
    """`update(done, of)` as often as one likes."""

    def __init__(self, name: str, unit: str):
        self._name, self._unit, self._bar, self._first = name, unit, None, None

    def __enter__(self) -> "Bar":
        self._began = self._said = time.monotonic()
        return self

    def update(self, done: int, of: int) -> None:
        self._first = done if self._first is None else self._first
        now = time.monotonic()
        if sys.stderr.isatty():
            self._bar = self._bar or tqdm(total=of, initial=done, desc=self._name, unit=self._unit, dynamic_ncols=True, file=sys.stderr)
            self._bar.update(done - self._bar.n)
        elif now - self._said >= LINE_SECONDS and done < of:
            self._said = now
            left = f", {(of - done) * (now - self._began) / (done - self._first):.0f} s left" if done > self._first else ""
            print(f"{self._name}: {done}/{of} {self._unit}s{left}", flush=True)

    def __exit__(self, *_) -> None:
        if self._bar is not None:
            self._bar.close()
