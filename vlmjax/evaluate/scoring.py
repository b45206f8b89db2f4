"""From predictions to numbers: a pure function of what is stored, so that anything can be scored again.

A metric is {"value", "stderr", "n", "variant"}: a fraction, or, where it has a "unit", a number of that unit.
"""
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from vlmjax.evaluate.controls import CONTROLS
from vlmjax.evaluate.task import Task

Metric = dict[str, Any]
Row = Mapping[str, Any]
Value = Callable[[Row], float]


def grade(task: Task, text: str, accepted: Sequence[str], options: Sequence[str] = ()) -> float:
    parsed = task.means(text, options)
    return 0.0 if parsed is None else task.score(parsed, accepted)


def rescore(predictions: Iterable[Row], task: Task) -> dict[str, Any]:
    """The scores of stored predictions, from their raw texts: {control: {metric: {value, stderr, n, variant}}, "unparsed": {control: n}}; of a task without a score how many are unparsed.

    Metrics are the task's, over all items and as `metric/KIND` over each kind; where items have groups also `sets`, the share of groups that are right in all their items, and
    items of one group, or about one image, are counted as depending on each other; then what else the task measures, from rows that have a `cluster` as well.
    """
    by_control: dict[str, list[dict[str, Any]]] = {}
    for row in predictions:
        parsed = task.means(row["prediction"], row.get("options", ()))
        score = 0.0 if parsed is None or task.score is None else task.score(parsed, accepted(row))
        by_control.setdefault(row["control"], []).append({**row, "parsed": parsed, "score": score})
    for rows in by_control.values():
        for row, number in zip(rows, clusters(rows)):
            row["cluster"] = number
    out: dict[str, Any] = {}
    for control, rows in by_control.items() if task.score else ():
        out[control] = {task.metric: mean(rows, "all")}
        kinds = dict.fromkeys(row["kind"] for row in rows if row["kind"])
        for kind in kinds:
            out[control][f"{task.metric}/{kind}"] = mean([row for row in rows if row["kind"] == kind], kind)
        if any(row.get("group") for row in rows):
            out[control]["sets"] = sets(rows)
        out[control] |= task.more(rows)
    return out | {"unparsed": {control: sum(row["parsed"] is None for row in rows) for control, rows in by_control.items()}}


def accepted(row: Row) -> tuple[str, ...]:
    return tuple(row.get("answers") or (row["answer"],))


def clusters(rows: Sequence[Row]) -> list[int]:
    """For each prediction a number that it shares with those it depends on: all that are joined by a group or an image, also over others. Of a part of the predictions what was found among all."""
    if all("cluster" in row for row in rows):
        return [row["cluster"] for row in rows]
    joined: dict[tuple[str, str], tuple[str, str]] = {}

    def first(node: tuple[str, str]) -> tuple[str, str]:
        while (next_ := joined.setdefault(node, node)) != node:
            joined[node] = joined[next_]  # halves the way for who comes next
            node = next_
        return node

    of = [[(key, str(row[key])) for key in ("group", "image") if row.get(key) not in (None, "")] or [("id", str(row["id"]))] for row in rows]
    for nodes in of:
        joined[first(nodes[-1])] = first(nodes[0])
    numbers: dict[tuple[str, str], int] = {}
    return [numbers.setdefault(first(nodes[0]), len(numbers)) for nodes in of]


def mean(rows: Sequence[Row], variant: str, of: Value = lambda row: row["score"], unit: str = "") -> Metric:
    """The mean of a value, the score unless another is named."""
    return ratio(rows, of, lambda row: 1.0, variant, unit)


def sets(rows: Sequence[Row], variant: str = "sets") -> Metric:
    """The share of groups that are right in all their items."""
    return mean(grouped(rows), variant)


def grouped(rows: Sequence[Row]) -> list[Row]:
    """One row for each group, right when all its items are."""
    found: dict[str, Row] = {}
    for row, number in zip(rows, clusters(rows)):
        if group := row.get("group"):
            found[group] = {"group": group, "cluster": number, "score": min(found.get(group, {"score": 1.0})["score"], float(row["score"] >= 1))}
    return [found[group] for group in sorted(found)]


def ratio(rows: Sequence[Row], over: Value, under: Value, variant: str, unit: str = "") -> Metric:
    """Σ over(row) / Σ under(row), as precision, recall and F1 are."""
    return total([(1.0, rows, over, under)], variant, unit)


def total(parts: Sequence[tuple[float, Sequence[Row], Value, Value]], variant: str, unit: str = "") -> Metric:
    """Σ weight · ratio over parts (weight, rows, over, under), which may be about the same images. n: rows of which `under` is not 0. Value None where one has none."""
    arrays = [(weight, np.array([over(row) for row in rows], float), np.array([under(row) for row in rows], float)) for weight, rows, over, under in parts]
    n = sum(int(np.count_nonzero(b)) for _, _, b in arrays)
    value = stderr = None
    if all(b.sum() for _, _, b in arrays):
        value = float(sum(weight * (a.sum() / b.sum()) for weight, a, b in arrays))
        residuals = np.concatenate([weight * (a - a.sum() / b.sum() * b) / b.sum() for weight, a, b in arrays])
        stderr = error(residuals, np.array(clusters([row for _, rows, _, _ in parts for row in rows])))
    return {"value": value, "stderr": stderr, "n": n, "variant": variant, **({"unit": unit} if unit else {})}


def error(residuals: np.ndarray, clusters: np.ndarray) -> float | None:
    """The standard error of a sum of residuals that depend on each other within a cluster (questions about one image).

    stderr² = C/(C−1) · Σ_c (Σ_{i∈c} r_i)², over C clusters; of a mean, r = (x − mean)/n, and for clusters of one the usual s²/n. None for one cluster.
    """
    sums = np.bincount(np.unique(clusters, return_inverse=True)[1], weights=residuals)
    C = len(sums)
    return math.sqrt(C / (C - 1) * float(np.sum(sums**2))) if C > 1 else None


def table(results: Row) -> str:
    """All results as text: one line per task and metric, one column per control, in per cent ± one standard error unless the metric has a unit."""
    wide = max([22, *(len(metric) for entry in results.values() for control in CONTROLS for metric in entry.get(control, ()))]) + 2
    lines = [f"{'task':20}{'metric':{wide}}{'n':>8}" + "".join(f"{control:>16}" for control in CONTROLS)]
    for task, entry in results.items():
        controls = {control: entry[control] for control in CONTROLS if control in entry}
        for metric in dict.fromkeys(metric for scores in controls.values() for metric in scores):
            cells, n = "", next(scores[metric]["n"] for scores in controls.values() if metric in scores)  # of precision: of the first control's
            for control in CONTROLS:
                cells += f"{shown(controls.get(control, {}).get(metric)):>16}"
            lines.append(f"{task:20}{metric:{wide}}{n:8,}{cells}")
    return "\n".join(lines)


def shown(score: Row | None) -> str:
    if score is None or score["value"] is None:
        return "-"
    scale = 1 if score.get("unit") else 100
    digits = 2 if score.get("unit") and abs(score["value"]) < 10 else 1
    return f"{scale * score['value']:.{digits}f}" + (f" ± {scale * score['stderr']:.{digits}f}" if score["stderr"] is not None else "")
