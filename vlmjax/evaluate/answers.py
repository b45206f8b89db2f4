"""Answers of an evaluation that is not finished, in numbered parts beside its predictions: an interrupted one goes on where it was."""
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from etils import epath

from vlmjax import files
from vlmjax.train.metrics import say

SECONDS = 10.0  # between parts


class Answers:
    """`known`: {number of a batch: its texts}. Parts of anything but `fingerprint` are not read.

        predictions/TASK.parts/00017.json    {"fingerprint": what is asked of which model, "answers": {batch: [text, …]}}

    directory: None keeps nothing. share: hands what the first process of a job reads to all of them; only that one (`writes`) makes files.
    """

    def __init__(self, directory: epath.PathLike | None = None, task: str = "", writes: bool = True, share: Callable[[Callable[[], Any]], Any] = lambda read: read(),
                 every: float = SECONDS):
        self._directory = epath.Path(directory) / "predictions" / f"{task}.parts" if directory is not None else None
        self._task = task
        self._writes, self._share, self._every = writes and directory is not None, share, every
        self._fingerprint, self._new, self._part, self._saved = "", {}, 0, time.monotonic()
        self.known: dict[int, list[str]] = {}

    def begin(self, fingerprint: str) -> None:
        """Reads what earlier parts hold of this evaluation."""
        self._fingerprint = fingerprint
        if self._directory is not None:
            self._part, found = self._share(self._read)
            self.known = {int(batch): texts for batch, texts in found.items()}
            if self.known:
                say(f"{self._task}: resumes at step {len(self.known)}")  # batches are the steps of an evaluation

    def _read(self) -> tuple[int, dict[str, list[str]]]:
        """(number of the next part, answers)."""
        parts, found = sorted(self._directory.glob("*.json")) if self._directory.exists() else [], {}
        for part in parts:
            held = files.read_json(part)
            found.update(held["answers"] if held["fingerprint"] == self._fingerprint else {})
        return 1 + int(parts[-1].stem) if parts else 0, found

    def add(self, batch: int, texts: Sequence[str]) -> None:
        self._new[batch] = list(texts)
        if time.monotonic() - self._saved > self._every:
            self.flush()

    def flush(self) -> None:
        if self._new and self._writes:
            files.write(self._directory / f"{self._part:05d}.json", json.dumps({"fingerprint": self._fingerprint, "answers": self._new}) + "\n")
            self._part += 1
        self._new, self._saved = {}, time.monotonic()

    def clear(self) -> None:
        """The parts have done their work when the predictions are written."""
        self._new = {}
        if self._writes and self._directory.exists():
            self._directory.rmtree()
