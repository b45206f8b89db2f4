"""What `vlmjax ablate` found → `ablation.html`: for each task a picture of all rows with their intervals, and the numbers."""
from collections.abc import Mapping, Sequence
from typing import Any

from vlmjax.report import charts, numbers, style
from vlmjax.report.html import Html, el, note, wide
from vlmjax.report.page import page as whole

Scores = Mapping[str, Mapping[str, Any]]  # {row: {"score", "difference"}}


def page(title: str, data: Mapping[str, Any], names: Sequence[str]) -> Html:
    """data: what ablation.json holds. names: of the rows, in order."""
    rows = data["rows"]
    runs = sum(len(row["runs"]) for row in rows.values())
    seconds = sum(run["seconds"] for row in rows.values() for run in row["runs"].values())
    body = [el("header", el("p", "vlmjax ablation", class_="eyebrow"), el("h1", title),
               el("p", f"{data['config']}: {numbers.plural(len(rows), 'row')}, {numbers.plural(runs, 'run')}, {numbers.duration(seconds)} in all", class_="muted"),
               [note(text, kind="warn") for text in data["notes"]]),
            [task(name, controls, names) for name, controls in data["tasks"].items()] or note("No run has ended yet."),
            el("section", el("h2", "The rows"), wide(el("table", [
                el("tr", el("th", name, scope="row"), el("td", [el("div", el("code", f"{key} = {numbers.plain(value)}")) for key, value in rows[name]["overrides"].items()] or "the config as it is"))
                for name in names], class_="overrides"))),
            note("Intervals are of 95 %, for other questions and other seeds: questions about one image are counted as depending on each other, and a row is compared with the first one question by "
                 "question under the same seeds. Rows are not corrected for how many there are.")]
    return whole(title, style.CSS, body)


def task(name: str, controls: Mapping[str, Mapping[str, Scores]], names: Sequence[str]) -> Html:
    shown = "real" if "real" in controls else next(iter(controls))
    metric, *kinds = controls[shown]
    scores = controls[shown][metric]
    n = next(iter(scores.values()))["score"]["n"]
    others = [control for control in controls if control != shown and metric in controls[control]]
    head = el("tr", el("th", "row", scope="col"), [el("th", text, scope="col", class_="n") for text in (shown, *others, *(kind.split("/", 1)[1] for kind in kinds))])
    cell = lambda score: el("td", numbers.DASH if score is None else [numbers.percent(score["value"]), el("small", f"± {100 * score['stderr']:.1f}" if score["stderr"] is not None else None)], class_="n")
    of = lambda control, metric, row: (controls[control][metric].get(row) or {}).get("score")
    body = [el("tr", el("th", row, scope="row"), [cell(of(control, metric, row)) for control in (shown, *others)], [cell(of(shown, kind, row)) for kind in kinds]) for row in names if row in scores]
    return el("section", el("h2", name), el("div", picture(scores, names), el("p", f"{metric} of {n:,} questions, per cent; a line is the interval, a small mark one seed.", class_="muted"), class_="panel"),
              el("details", el("summary", "Controls and kinds of questions, ± one standard error"), wide(el("table", el("thead", head), el("tbody", body), class_="scores"))))


def picture(scores: Scores, names: Sequence[str]) -> Html:
    """A line for each row on one axis: its interval, its mean and its seeds; beside it the difference to the first row."""
    shown = [name for name in names if name in scores]
    ends = [end for name in shown for end in (scores[name]["score"]["low"], scores[name]["score"]["high"], *scores[name]["score"]["runs"]) if end is not None]
    low, high = min(ends), max(ends)
    pad = 0.06 * (high - low) or 0.01
    low, high = low - pad, high + pad
    at = lambda value: f"left:{100 * (value - low) / (high - low):.2f}%"
    lines = []
    for name in shown:
        score, difference = scores[name]["score"], scores[name]["difference"]
        known = difference is not None and difference["low"] is not None
        kind = "" if not known or difference["low"] <= 0 <= difference["high"] else " good" if difference["low"] > 0 else " bad"
        interval = el("i", class_="interval", style=f"{at(score['low'])};width:{100 * (score['high'] - score['low']) / (high - low):.2f}%") if score["low"] is not None else None
        marks = [el("i", class_="seed", style=at(value)) for value in score["runs"]] if len(score["runs"]) > 1 else None
        said = el("small", f"{100 * difference['value']:+.1f}" + (f" [{100 * difference['low']:+.1f}, {100 * difference['high']:+.1f}]" if known else ""), class_=f"delta{kind}") if difference else el("small", "", class_="delta")
        lines.append(el("div", el("span", name, class_="bar-name"), el("div", interval, marks, el("i", class_="mean", style=at(score["value"])), class_=f"forest{kind}"),
                        el("span", numbers.percent(score["value"]), said, class_="bar-value"), class_="forest-row"))
    ticks = [el("span", numbers.short(100 * tick, 4), style=at(tick)) for tick in charts.ticks(low, high, 6)]
    label = ", ".join(f"{name} {numbers.percent(scores[name]['score']['value'])}" for name in shown)
    return el("div", lines, el("div", el("span"), el("div", ticks, class_="forest-axis", aria_hidden="true"), el("span"), class_="forest-row"), role="img", aria_label=label)
