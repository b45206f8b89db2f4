"""What a run scored, beside what the same questions give without looking: the headline and the tables of results."""
import math

from vlmjax.report import numbers
from vlmjax.report.html import Html, el, facts, join, note, section, wide
from vlmjax.report.run import Run, Task

CONTROLS = {   # in the order of the columns: from no picture to the right picture
    "prior": ("question alone", "the most common answer to the same wording, in training or about other images; no model"),
    "noimage": ("no image", "the model without image tokens"),
    "noise": ("noise", "the model is shown noise"),
    "blind": ("grey image", "the model is shown uniform grey"),
    "shuffled": ("wrong image", "the model is shown another item's image"),
    "caption": ("caption", "the model reads a caption in place of the image"),
    "real": ("right image", "the model is shown the image the question is about"),
}
SHARES = ("accuracy", "exact_match")   # measures that are the share of right answers
NOT_LOOKING = ("prior", "blind", "noimage", "noise")   # what is right here was right without the picture


def ordered(task: Task) -> list[str]:
    return [name for name in CONTROLS if name in task.controls] + [name for name in task.controls if name not in CONTROLS]


def is_fraction(score: dict) -> bool:
    """A measure that has a unit is none, whatever its value."""
    return not score.get("unit") and numbers.is_number(score.get("value")) and -1 <= score["value"] <= 1


def value(score: dict) -> str:
    """Fractions as per cent; another measure as it is, with its unit."""
    number = score.get("value")
    if not numbers.is_number(number) or not math.isfinite(number):
        return numbers.DASH
    return numbers.percent(number) if is_fraction(score) else " ".join(filter(None, (numbers.short(number), score.get("unit"))))


def error(score: dict) -> str | None:
    number = score.get("stderr")
    if not numbers.is_number(number):
        return None
    return f"± {100 * number:.1f}" if is_fraction(score) else f"± {numbers.short(number, 2)}"


def guessed(task: Task) -> dict | None:
    """The best score that was had without the picture."""
    scores = [score for name in NOT_LOOKING if (score := task.score(name)) and numbers.is_number(score.get("value"))]
    return max(scores, key=lambda score: score["value"], default=None)


def verdict(task: Task) -> Html:
    """One sentence: how much was seen and how much may have been guessed."""
    real, guess = task.score("real"), guessed(task)
    if guess is None:
        return join("No control without the picture was scored, so nothing says how much of this was seen and how much guessed.")
    gain = real["value"] - guess["value"]
    spread = math.hypot(real.get("stderr") or 0, guess.get("stderr") or 0)
    if gain <= 2 * spread:
        return join(el("b", value(guess)), " is had without seeing the picture: nothing here shows that the model looked.")
    return join(el("b", value(guess)), " can be guessed without seeing the picture; the other ",
                el("b", f"{100 * gain:.1f} points", class_="seen"), " came from looking.")


def bars(task: Task) -> Html:
    """One bar per control on a common axis from 0 to 100 %; the real one is cut where guessing ends."""
    guess = guessed(task)
    limit = guess["value"] if guess else 0.0
    rows = []
    for name in reversed(ordered(task)):
        score = task.score(name)
        if not score or not numbers.is_number(score.get("value")):
            continue
        full = min(max(score["value"], 0), 1)
        cut = min(limit, full) if name == "real" else full
        label, explanation = CONTROLS.get(name, (name, ""))
        rows.append(el(
            "div", el("span", label, class_="bar-name", title=explanation),
            el("div",
               el("i", class_="guess", style=f"width:{100 * cut:.2f}%") if cut else None,
               el("i", class_="see", style=f"left:{100 * cut:.2f}%;width:{100 * (full - cut):.2f}%") if full > cut else None,
               class_="bar"),
            el("span", value(score), class_="bar-value"), class_="bar-row real" if name == "real" else "bar-row"))
    legend = el("p", el("span", "guessable without the picture", class_="key guess"),
                el("span", "seen", class_="key see"), class_="legend") if guess else None
    return el("div", el("div", rows, class_="bars", role="img", aria_label=", ".join(
        f"{CONTROLS.get(name, (name,))[0]} {value(task.score(name))}" for name in ordered(task) if task.score(name))), legend)


def headline(run: Run) -> Html:
    task = next((task for task in run.tasks if task.score("real")), None)
    if task is None:
        return el("section", note("No results yet: nothing has been evaluated in this run. ", el("code", "vlmjax evaluate"),
                                  " scores it with its controls."), id="headline", class_="panel")
    score = task.score("real")
    if not is_fraction(score):
        return el("section", el("div", el("p", value(score), class_="score"), el("p", f"{task.metric} on {task.name}")),
                  id="headline", class_="panel")
    return el(
        "section",
        el("div",
           el("p", f"{100 * score['value']:.1f}", el("small", " %"), class_="score"),
           el("p", f"of {numbers.count(score.get('n'))} answers on {task.name} are right" if task.metric in SHARES else f"{task.metric} of {numbers.count(score.get('n'))} answers on {task.name}", class_="score-of"),
           el("p", verdict(task), class_="verdict")),
        bars(task), id="headline", class_="panel headline")


def table(task: Task) -> Html:
    """Rows: the whole task and its kinds. Columns: the controls."""
    controls = ordered(task)
    metrics = list(dict.fromkeys([task.metric, *(name for control in controls for name in task.controls[control])]))
    head = el("tr", el("th", "questions", scope="col"), [
        el("th", name, el("small", CONTROLS[name][0] if name in CONTROLS else None), scope="col", class_="n real" if name == "real" else "n",
           title=CONTROLS.get(name, ("", ""))[1]) for name in controls])
    rows = []
    for metric in metrics:
        scores = {name: task.score(name, metric) for name in controls}
        sizes = list(dict.fromkeys(score.get("n") for score in scores.values() if score))
        kind = "all" if metric == task.metric else metric.removeprefix(f"{task.metric}/")  # of another measure its whole name
        one_size = len(sizes) == 1
        cells = []
        for name in controls:
            score = scores[name]
            full = 100 * max(score["value"], 0) if score and is_fraction(score) else 0
            cells.append(el("td", None if score is None else [
                value(score), el("small", error(score), None if one_size else f" n = {numbers.count(score.get('n'))}"),
                el("i", style=f"--part:{full:.1f}%")] if score else numbers.DASH, class_="n real" if name == "real" else "n"))
        rows.append(el("tr", el("th", kind, el("small", f"n = {numbers.count(sizes[0])}") if one_size else None, scope="row"), cells,
                       class_="whole" if metric == task.metric else None))
    return wide(el("table", el("thead", head), el("tbody", rows), class_="scores"))


def details(task: Task) -> Html:
    unparsed = task.unparsed
    if isinstance(unparsed, dict):
        unparsed = ", ".join(f"{name} {numbers.count(n)}" for name, n in unparsed.items())
    variants = {score["variant"] for metrics in task.controls.values() for score in metrics.values()
                if isinstance(score, dict) and score.get("variant") not in (None, "", "all")}
    pairs = [("measure", task.metric), ("variant", ", ".join(sorted(map(str, variants))) or None),
             ("answers that could not be parsed", numbers.count(unparsed) if numbers.is_number(unparsed) else unparsed),
             *((key, numbers.plain(item)) for key, item in task.provenance.items())]
    return el("details", el("summary", "How it was measured"), facts(pairs))


def accuracy(run: Run) -> Html:
    """Every task that has controls or kinds, as a table."""
    tasks = [task for task in run.tasks if is_full(task)]
    if not tasks:
        return section("accuracy", "Accuracy", note("No task with controls has been scored in this run yet."))
    return section(
        "accuracy", "Accuracy, and what guessing gives", [
            el("div", el("h3", task.name), table(task), details(task), class_="panel") for task in tasks],
        note("± is one standard error; questions about one image are counted as depending on each other. ",
             " ".join(f"{name}: {CONTROLS[name][1]}." for name in CONTROLS if any(name in task.controls for task in tasks))))


def is_full(task: Task) -> bool:
    return len(task.controls) > 1 or any(len(metrics) > 1 for metrics in task.controls.values())


def other_tasks(run: Run) -> Html | None:
    """The tasks that are one number: zero-shot of the contrastive stage, captions of the alignment, …"""
    tasks = [task for task in run.tasks if not is_full(task) and task.controls]
    if not tasks:
        return section("tasks", "Results of the stages", note("No further task has been scored in this run."))
    tiles = []
    for task in tasks:
        score = task.score(ordered(task)[-1]) or {}
        tiles.append(el("div", el("h3", task.name), el("p", value(score), el("small", error(score)), class_="tile-value"),
                        el("p", f"{task.metric}, n = {numbers.count(score.get('n'))}", class_="muted"), details(task), class_="panel tile"))
    return section("tasks", "Results of the stages", el("div", tiles, class_="tiles"))
