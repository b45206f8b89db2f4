"""What `vlmjax diagnose` found → `diagnosis.html`: for each of four weaknesses what was had by looking, by how hard it was made, what was said instead, and answers with their images."""
from collections.abc import Mapping, Sequence
from typing import Any

from vlmjax.report import gallery, numbers, scores, style
from vlmjax.report.html import Html, el, facts, join, note, wide
from vlmjax.report.page import page as whole
from vlmjax.report.run import NOT_CONTROLS, Task

TITLES = {"exists": ("What is there", "hallucination: is there a red star, where half of the scenes have none, but red things and stars"),
          "count": ("How many", "one to eight of nine objects; their colour or shape is on others, too"),
          "where": ("Where", "left of, right of, above or below: the same two objects in all four places"),
          "detail": ("Small things", "the colour of a dot of 2 to 12 pixels in an image of 224")}


def page(title: str, found: Mapping[str, Mapping[str, Any]], predictions: Mapping[str, Sequence[dict]], image_of: gallery.ImageOf | None) -> Html:
    """found: what diagnosis.json holds, by suite. predictions: {suite: rows}."""
    body = [el("header", el("p", "vlmjax diagnosis", class_="eyebrow"), el("h1", title),
               el("p", "Every answer to every question is equally frequent, so who does not look is right by chance. A set is one question with a scene for each of its answers.", class_="muted")),
            summary(found), [suite(name, entry, predictions.get(name, []), number, image_of) for number, (name, entry) in enumerate(found.items())],
            note("± is one standard error; scenes of a set are counted as depending on each other. The bar of the right image is cut where the best score without it ends.")]
    most = max((len({row["kind"] for row in rows}) for rows in predictions.values()), default=0)
    return whole(title, join(style.CSS, gallery.filter_rules(most)), body)


def summary(found: Mapping[str, Mapping[str, Any]]) -> Html:
    head = el("tr", [el("th", text, scope="col", class_="n" if n else None) for n, text in enumerate(("", "right", "chance", "grey image", "wrong image", "whole sets", "unparsed", "had by looking"))])
    rows = []
    for name, entry in found.items():
        value = lambda control, metric="exact_match": numbers.percent(entry["scores"][control][metric]["value"]) if metric in entry["scores"].get(control, {}) else numbers.DASH
        seen, real = entry.get("seen"), entry["scores"].get("real", {}).get("exact_match")
        unparsed = numbers.percent(entry["scores"]["unparsed"]["real"] / real["n"]) if real else numbers.DASH
        rows.append(el("tr", el("th", TITLES[name][0], scope="row"), [el("td", text, class_="n") for text in (
            value("real"), numbers.percent(entry["chance"]), value("blind"), value("shuffled"), value("real", "sets"), unparsed, numbers.DASH if seen is None else numbers.percent(seen))]))
    return el("section", wide(el("table", el("thead", head), el("tbody", rows), class_="scores suites")),
              note("Had by looking: the share of what chance leaves, (right image - grey image) / (1 - chance). Unparsed: answers that name no option, or several; they count as wrong."), class_="panel")


def suite(name: str, entry: Mapping[str, Any], rows: Sequence[dict], number: int, image_of: gallery.ImageOf | None) -> Html:
    title, about = TITLES[name]
    task = Task(f"scenes_{name}", {key: value for key, value in entry["scores"].items() if key not in NOT_CONTROLS}, entry["scores"].get("unparsed"), {})
    share = lambda key: numbers.percent(entry[key]) if entry.get(key) is not None else None
    said = facts([("says yes to", share("yes")), ("precision of yes", share("precision")), ("recall of yes", share("recall")), ("F1 of yes", share("f1")),
                  ("mean distance from the number", numbers.short(entry["error"], 3) if "error" in entry else None)])
    return el("section", el("h2", title), el("p", about, class_="muted"), el("div", scores.bars(task), class_="panel"),
              el("div", scores.table(task), said, class_="panel"), el("div", el("h3", "What was said"), confusion(entry["answers"]), class_="panel"),
              el("div", gallery.task_gallery(task.name, number, list(rows), {}, image_of) or note("No answers are stored."), class_="panel"))


def confusion(answers: Mapping[str, Mapping[str, int]]) -> Html:
    """Rows: right answers; columns: what was said; a cell is as dark as its share of the row."""
    said = sorted({text for row in answers.values() for text in row}, key=lambda text: (text not in answers, list(answers).index(text) if text in answers else 0, text))
    head = el("tr", el("th", "right answer", scope="col"), [el("th", text, scope="col", class_="n") for text in said])
    rows = []
    for answer, row in answers.items():
        total = sum(row.values())
        rows.append(el("tr", el("th", answer, scope="row"), [el("td", numbers.count(row[text]) if row.get(text) else "", class_=f"n cell{' hit' if text == answer else ''}", style=f"--share:{row.get(text, 0) / total:.2f}") for text in said]))
    return wide(el("table", el("thead", head), el("tbody", rows), class_="confusion"))
