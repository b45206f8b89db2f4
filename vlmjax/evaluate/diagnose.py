"""Where a model fails, from what it answered about drawn scenes: with and without looking, by how hard it was made, and what it says instead."""
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vlmjax.data.datasets import scenes
from vlmjax.evaluate import scoring
from vlmjax.evaluate.task import Task
from vlmjax.evaluate.tasks.scenes import ALL

UNPARSED = "none of them"


def suite_of(task: Task) -> str:
    return task.name.removeprefix("scenes_")


def diagnose(predictions: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """{task: predictions} of `scenes` tasks → {suite: what is known of it}: `chance`; `scores`, what results.json has; `seen`: how much of what chance leaves was had by looking, (real - blind) / (1 - chance);
    `answers`: {right answer: {said: how often}} under `real`; for exists `yes`, the share of yes among its answers, `precision`, `recall` and `f1` of yes; for count `error`, the mean distance of the numbers
    that were said."""
    out = {}
    for task in ALL:
        if task.name not in predictions:
            continue
        suite, rows = suite_of(task), predictions[task.name]
        scores = scoring.rescore(rows, task)
        real = [(row["answer"], task.means(row["prediction"], row.get("options", ()))) for row in rows if row["control"] == "real"]
        found: dict[str, Any] = {"chance": scenes.CHANCE[suite], "scores": scores, "answers": confusion(real)}
        if "blind" in scores and real:
            found["seen"] = (scores["real"][task.metric]["value"] - scores["blind"][task.metric]["value"]) / (1 - scenes.CHANCE[suite])
        if suite == "exists" and real:
            found |= of_yes(real)
        if suite == "count" and (said := [abs(int(answer) - int(text)) for answer, text in real if text is not None]):
            found["error"] = float(np.mean(said))
        out[suite] = found
    return out


def confusion(pairs: Sequence[tuple[str, str | None]]) -> dict[str, dict[str, int]]:
    """[(right answer, what was said)] → {right answer: {said: how often}}, most frequent first."""
    out: dict[str, dict[str, int]] = {}
    for answer, text in pairs:
        row = out.setdefault(answer, {})
        row[text or UNPARSED] = row.get(text or UNPARSED, 0) + 1
    return {answer: dict(sorted(row.items(), key=lambda item: -item[1])) for answer, row in out.items()}


def of_yes(pairs: Sequence[tuple[str, str | None]]) -> dict[str, float | None]:
    """POPE's numbers (arXiv:2305.10355): yes is the positive answer; what is neither counts as no."""
    said, right = np.array([text == "yes" for _, text in pairs]), np.array([answer == "yes" for answer, _ in pairs])
    hits = int((said & right).sum())
    precision, recall = hits / said.sum() if said.any() else None, hits / right.sum() if right.any() else None
    f1 = 2 * hits / (said.sum() + right.sum()) if (said | right).any() else None
    return {"yes": float(said.mean()), **{key: None if value is None else float(value) for key, value in (("precision", precision), ("recall", recall), ("f1", f1))}}
