"""Two sides of a comparison, {stage/entry: array} each → one row per stage."""
import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

# In the order in which they are computed: the first row that fails is where to look.
STAGES = ("pixels", "normalised", "tokens", "vision_hidden", "text_hidden", "image_features", "text_features",
          "image_tokens", "hidden", "logits", "greedy", "text", "loss", "gradient")
EXACT = ("pixels", "tokens", "greedy", "text")
BARS = {**dict.fromkeys(EXACT, 0.0), "normalised": 1e-6, "loss": 1e-4, "gradient": 1e-4}
FLOAT_BAR = 1e-5
# Some gradients are zero but for rounding (a key's bias moves all logits of a query alike): below this share of the largest one they are measured by it.
TINY = 1e-6
MARKDOWN_HEADER = ("| family | stage | entries | ‖a−b‖/‖b‖ | max｜a−b｜/max｜b｜ | bar |", "|---|---|---|---|---|---|")


@dataclasses.dataclass(frozen=True)
class Row:
    """stage: its name, or for a failing entry of its own that entry and what is wrong. error: ‖a−b‖/‖b‖, worst: max|a−b|/max|b|, the largest
    of all entries; of exact stages the largest share of places that differ. ok: error is at most bar."""

    stage: str
    entries: int
    error: float
    worst: float
    bar: float
    ok: bool


def compare(ours: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]) -> list[Row]:
    """Rows in the order of STAGES. An entry that only one side has, or that has another shape, is a failing row that names it.

    Token ids and bytes may have any length: places behind the shorter end differ.
    """
    rows = []
    stages = {key.split("/")[0] for key in [*ours, *reference]}
    for stage in sorted(stages, key=lambda stage: (STAGES.index(stage) if stage in STAGES else len(STAGES), stage)):
        keys = [key for key in [*reference, *ours] if key.split("/")[0] == stage]
        bar, numbers, broken = BARS.get(stage, FLOAT_BAR), [], []
        norms = [_norms(np.asarray(reference[key])) for key in keys if key in reference] if stage == "gradient" else []
        largest = tuple(map(max, zip(*norms))) if norms else (0.0, 0.0)
        for key in dict.fromkeys(keys):
            if key not in ours or key not in reference:
                broken.append(f"{key} (only in {'vlmjax' if key in ours else 'the reference'})")
                continue
            a, b = np.asarray(ours[key]), np.asarray(reference[key])
            free = stage in EXACT and a.ndim == b.ndim == 1
            if a.shape != b.shape and not free:
                broken.append(f"{key} ({list(a.shape)} and not {list(b.shape)})")
            elif stage in EXACT:
                numbers.append((_share(a, b),) * 2)
            else:
                numbers.append(_distance(a, b, largest))
        if numbers:
            # numpy's max keeps NaN, Python's may lose it.
            error, worst = (float(np.max(column)) for column in zip(*numbers))
            rows.append(Row(stage, len(numbers), error, worst, bar, error <= bar))
        rows += [Row(name, 1, math.inf, math.inf, bar, False) for name in broken]
    return rows


def text(rows: Sequence[Row]) -> str:
    """An aligned table for a terminal."""
    cells = [("stage", "entries", "error", "largest", "bar", "")]
    cells += [(row.stage, str(row.entries), f"{row.error:.1e}", f"{row.worst:.1e}", f"{row.bar:.0e}" if row.bar else "0", "ok" if row.ok else "DIFFERS") for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells)]
    return "\n".join("  ".join([first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:]))]).rstrip() for first, *rest in cells)


def markdown(family: str, rows: Sequence[Row]) -> list[str]:
    """Lines under MARKDOWN_HEADER. Errors are bounds, so that the digits which depend on the machine do not show."""
    return [f"| {family} | {row.stage} | {row.entries} | {_bound(row.error)} | {_bound(row.worst)} | {_bound(row.bar)} |" for row in rows]


def _share(a: np.ndarray, b: np.ndarray) -> float:
    """Of the longer one's places, how many differ."""
    if a.shape == b.shape:
        return float(np.mean(a != b)) if b.size else 0.0
    n = min(len(a), len(b))
    return float(np.sum(a[:n] != b[:n]) + max(len(a), len(b)) - n) / max(len(a), len(b))


def _norms(b: np.ndarray) -> tuple[float, float]:
    """(‖b‖, max|b|)"""
    b = b.astype(np.float64)
    return float(np.sqrt(np.sum(b * b))), float(np.max(np.abs(b), initial=0.0))


def _distance(a: np.ndarray, b: np.ndarray, largest: tuple[float, float]) -> tuple[float, float]:
    """(‖a−b‖/‖b‖, max|a−b|/max|b|); against `largest` instead where b is tiny beside it."""
    scale = _norms(b)
    if scale[0] < TINY * largest[0]:
        scale = largest
    difference = _norms(a.astype(np.float64) - b.astype(np.float64))
    return tuple(x / y if y else 0.0 if x == 0 else math.inf for x, y in zip(difference, scale))


def _bound(x: float) -> str:
    """The next of 1, 2 or 5 times a power of ten that is not smaller."""
    if x == 0:
        return "identical"
    if not math.isfinite(x):
        return "not comparable"
    power = math.floor(math.log10(x))
    # What is on a step but for the last bits of the division stays on it.
    digit = next(digit for digit in (1, 2, 5, 10) if x / 10.0**power <= digit * (1 + 1e-9))
    return f"≤ 1e{power + 1}" if digit == 10 else f"≤ {digit}e{power}"
