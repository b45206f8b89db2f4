"""Many runs of one config with changes → what each change does, with intervals that know of the questions and of the seeds.

A row is a set of overrides; each of its runs has another seed. Rows are compared with the first one question by question and seed by seed: what all
runs find hard, or a seed makes of all rows, is in none of the differences.
"""
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from scipy import stats

from vlmjax import files
from vlmjax.errors import UserError
from vlmjax.evaluate import runner, scoring
from vlmjax.evaluate.controls import CONTROLS

SURE = 0.95
# What of a finished run's record is named where runs of a table do not have it in common.
SAME = ("git_commit", "devices", "versions", "mesh")


@dataclasses.dataclass(frozen=True)
class Scores:
    """Of one run under one control: what each question got. ids, kinds: str[n]; clusters (what depends on each other): i[n]; scores: f[n]."""

    ids: np.ndarray
    clusters: np.ndarray
    kinds: np.ndarray
    scores: np.ndarray


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run. scores: {task: {control: Scores}}; metrics: {task: name}; data: {task: hash of its questions and images}."""

    seed: int
    workdir: str
    scores: dict[str, dict[str, Scores]]
    metrics: dict[str, str]
    data: dict[str, str]
    about: dict[str, Any]


def ended(record: Mapping[str, Any] | None) -> bool:
    """Whether a run with this record.json has trained and answered all that it is asked."""
    return record is not None and "wall_seconds" in record


def read(workdir: epath.PathLike, seed: int) -> Run | None:
    """The run in a directory; None while it has not ended."""
    record = files.read_json(epath.Path(workdir) / "record.json")
    if not ended(record):
        return None
    scores: dict[str, dict[str, Scores]] = {}
    results = {task: entry for task, entry in runner.read_results(workdir).items() if any(control in entry for control in CONTROLS)}  # what is uploaded has no scores
    for task in results:
        rows: dict[str, list] = {}
        for row in runner.read_predictions(workdir, task):
            rows.setdefault(row["control"], []).append(row)
        scores[task] = {control: Scores(np.array([row["id"] for row in of]), np.array(scoring.clusters(of)), np.array([row["kind"] for row in of]), np.array([row["correct"] for row in of], float))
                        for control, of in rows.items()}
    metrics = {task: next(name for control in scores[task] for name in entry[control] if "/" not in name) for task, entry in results.items()}
    return Run(seed, str(workdir), scores, metrics, {task: entry["provenance"]["data"] for task, entry in results.items()},
               {key: record.get(key) for key in SAME} | {"seconds": record["wall_seconds"]})


def table(rows: Mapping[str, Sequence[Run]]) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """{row: its runs}, the first to be compared with → {task: {control: {metric: {row: {"score", "difference"}}}}}, metrics also for each kind of question (`metric/KIND`).

    Both are what `interval` says; the difference to the first row is over the seeds that both have, and None for itself and where there is none.
    UserError where two runs were not asked the same.
    """
    every = [run for runs in rows.values() for run in runs]
    base = next(iter(rows), None)
    out: dict[str, Any] = {}
    for task in reversed(dict.fromkeys(task for run in every for task in run.scores)):  # what the last stage is asked comes first
        having = [run for run in every if task in run.scores]
        for run in having[1:]:
            if run.data[task] != having[0].data[task]:
                raise UserError(f"{run.workdir}: {task} asked other questions than in {having[0].workdir}, so the two cannot be compared; evaluate.split and evaluate.sample are the same in all rows")
        for control in dict.fromkeys(control for run in having for control in run.scores[task]):
            of = {name: {run.seed: run.scores[task][control] for run in runs if control in run.scores.get(task, {})} for name, runs in rows.items()}
            one, metric = next(scores for runs in of.values() for scores in runs.values()), having[0].metrics[task]
            places = {metric: np.ones(len(one.ids), bool), **{f"{metric}/{kind}": one.kinds == kind for kind in dict.fromkeys(one.kinds.tolist()) if kind}}
            out.setdefault(task, {})[control] = {
                name: {row: _cell(runs, of[base] if row != base else {}, where) for row, runs in of.items() if runs} for name, where in places.items()}
    return out


def _cell(own: Mapping[int, Scores], base: Mapping[int, Scores], where: np.ndarray) -> dict[str, Any]:
    values = lambda runs, seeds: np.stack([runs[seed].scores[where] for seed in seeds])
    clusters, common = next(iter(own.values())).clusters[where], [seed for seed in own if seed in base]
    return {"score": interval(values(own, own), clusters, 0.0),  # a question's score is from 0 to 1 (evaluate/task.py)
            "difference": interval(values(own, common) - values(base, common), clusters, -1.0) if common else None}


def interval(values: np.ndarray, clusters: np.ndarray, least: float = -math.inf) -> dict[str, Any]:
    """The mean of f[R, n], R runs (seeds) of the same n questions, with an interval for other questions and other seeds: {"value", "low", "high", "stderr", "questions", "seeds", "n", "runs"}.
    least: no value is below it, or above 1.

    stderr² is what the questions give (of their means over runs, those about one image depending on each other: Miller, arXiv:2411.00640) plus what the seeds give (of the runs' means): questions
    and seeds are crossed. Each part reaches as far as Student's distribution of its own degrees of freedom says, and the interval is the hypotenuse of both: what few seeds happen not to show is not
    taken for certain, and the interval is rather too wide. Of one run nothing is known of the seeds: `seeds` is None, and the interval is for other questions only. None where nothing differs at all.
    """
    per_run = values.mean(axis=1)
    R, items = len(values), scoring.error((values.mean(axis=0) - values.mean()) / values.shape[1], clusters)
    seeds = float(per_run.std(ddof=1)) / math.sqrt(R) if R > 1 else None
    parts = [(part, freedom) for part, freedom in ((items, len(set(clusters.tolist())) - 1), (seeds, R - 1)) if part is not None]
    variance, value = sum(part**2 for part, _ in parts), float(per_run.mean())
    reach = math.hypot(*(part * float(stats.t.ppf((1 + SURE) / 2, freedom)) for part, freedom in parts))
    known = reach > 0  # one question and one run say nothing of others, nor do any that are all alike
    most = math.inf if least == -math.inf else 1.0
    return {"value": value, "low": max(value - reach, least) if known else None, "high": min(value + reach, most) if known else None, "stderr": math.sqrt(variance) if known else None,
            "questions": items, "seeds": seeds, "n": values.shape[1], "runs": [float(x) for x in per_run]}


def unlike(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """{key of their records: its values} where the runs of a table do not have it in common."""
    found = {key: [run.about[key] for run in runs] for key in SAME}
    return {key: distinct for key, values in found.items() if len(distinct := [value for i, value in enumerate(values) if value not in values[:i]]) > 1}


def markdown(data: Mapping[str, Any], names: Sequence[str], absent: Mapping[str, str]) -> str:
    """The tables of a paper: per task a row for each row, real answers, their difference to the first row, and the other controls; then the kinds of questions. absent: {row: why it has no score}."""
    parts = []
    for task, controls in data.items():
        shown = "real" if "real" in controls else next(iter(controls))
        metric = next(iter(controls[shown]))
        others = [control for control in controls if control != shown]
        scores = controls[shown][metric]
        n = next(iter(scores.values()))["score"]["n"]
        lines = [f"**{task}**, {metric} of {n:,} questions, per cent [95 % interval]", "",
                 f"| row | seeds | {shown} | against {_text(names[0])} |" + "".join(f" {control} |" for control in others), "|---|---:|---:|---:|" + "---:|" * len(others)]
        for name in names:
            if name in scores:
                cells = [_percent(controls[control][metric][name]["score"]) if name in controls[control].get(metric, {}) else "–" for control in others]
                lines.append(f"| {_text(name)} | {len(scores[name]['score']['runs'])} | {_percent(scores[name]['score'])} | {_points(scores[name]['difference'])} |" + "".join(f" {cell} |" for cell in cells))
            elif name in absent:
                lines.append(f"| {_text(name)} | 0 | {absent[name]} | – |" + " – |" * len(others))
        kinds = [name for name in controls[shown] if name != metric]
        if kinds:
            lines += ["", f"| {shown}, by kind |" + "".join(f" {kind.split('/', 1)[1]} |" for kind in kinds), "|---|" + "---:|" * len(kinds)]
            lines += [f"| {_text(name)} |" + "".join(f" {_percent(controls[shown][kind][name]['score'])} |" for kind in kinds) for name in names if name in scores]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _text(name: str) -> str:
    """In a cell of a table."""
    return name.replace("|", "\\|")


def _percent(score: Mapping[str, Any]) -> str:
    return f"{100 * score['value']:.1f}" + (f" [{100 * score['low']:.1f}, {100 * score['high']:.1f}]" if score["low"] is not None else "")


def _points(score: Mapping[str, Any] | None) -> str:
    """A difference; in bold where its interval leaves out 0."""
    if score is None:
        return "–"
    text = f"{100 * score['value']:+.1f}" + (f" [{100 * score['low']:+.1f}, {100 * score['high']:+.1f}]" if score["low"] is not None else "")
    return f"**{text}**" if score["low"] is not None and not score["low"] <= 0 <= score["high"] else text
