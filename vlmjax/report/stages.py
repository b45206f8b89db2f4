"""The stages of a run: who learned when, the curves, and the proof that the frozen parts did not move."""
from vlmjax.report import numbers
from vlmjax.report.charts import Line, finite, line_chart, smooth, smoothing_window, wants_log
from vlmjax.report.html import Html, breakable, el, facts, join, note, section, shortened, wide
from vlmjax.report.run import Run, Stage
from vlmjax.train.speed import KEYS

MOST_EXTRAS = 4
KNOWN = ("loss", "lr", "batch", "seconds", "time", "epoch", *KEYS)
NORMS = ("grad_norm", "param_norm", "update_norm")   # whole or by component


def color(run: Run, component: str) -> str:
    """A component has one colour on the whole page."""
    known = run.components
    return f"c{known.index(component) % 6}" if component in known else "c6"


def matrix(run: Run) -> Html | None:
    """Components × stages: which part learned, stood still, or was not in the stage at all."""
    finished = [stage for stage in run.stages if stage.record]
    if not finished:
        return None
    rows = []
    for component in run.components:
        if not any(component in (stage.record.get(part) or {}) for stage in finished for part in ("trainable", "frozen")):
            continue
        cells = []
        for stage in finished:
            if component in (stage.record.get("trainable") or {}):
                cells.append(el("td", el("span", "learns", class_=f"learns {color(run, component)}")))
            elif component in (stage.record.get("frozen") or {}):
                cells.append(el("td", el("span", "frozen", class_="frozen")))
            else:
                cells.append(el("td", el("span", numbers.DASH, class_="muted", title="not part of this stage")))
        rows.append(el("tr", el("th", breakable(component), scope="row"), cells))
    head = el("tr", el("th", "component", scope="col"), [el("th", stage.name, scope="col") for stage in finished])
    return wide(el("table", el("thead", head), el("tbody", rows), class_="matrix"))


def smoothed_lines(points, css: str, name: str, log: bool) -> list[Line]:
    """The raw values, faint, under their running mean; only the raw ones when there are too few to smooth."""
    points = [(x, y) for x, y in finite(points) if y > 0 or not log]
    window = smoothing_window(len(points))
    if window == 1:
        return [Line(points, css, name)]
    return [Line(points, css, faint=True), Line(smooth(points, window, log), css, name)]


def curves(run: Run, stage: Stage) -> list[Html]:
    loss = stage.series("loss")
    if not loss:
        return [note("No metrics were recorded for this stage.")]
    log = wants_log(loss)
    first_last = stage.record.get("loss") or {"first": loss[0][1], "last": loss[-1][1]}
    window = smoothing_window(len(finite(loss)))
    lines = smoothed_lines(loss, "accent", "loss" if window == 1 else f"mean of {window} points", log)
    if window > 1:
        lines[0] = Line(lines[0].points, "accent", "as recorded", faint=True)
    remark = f"{numbers.short(first_last.get('first'))} → {numbers.short(first_last.get('last'))}"
    charts = [line_chart("Loss", lines, log, remark=remark)]
    if lost := len(loss) - len(finite(loss)):
        charts.append(note(f"{numbers.plural(lost, 'step')} had no finite loss and cannot be drawn.", kind="warn"))
    small = []
    norms = [key for key in stage.keys() if key.startswith("grad_norm/") and finite(stage.series(key))]
    if norms:
        small.append(line_chart("Gradient norm", [
            line for key in norms for name in [key.removeprefix("grad_norm/")]
            for line in smoothed_lines(stage.series(key), color(run, name), name, log=True)], log=True, small=True))
    extras = [key for key in stage.keys()
              if key not in KNOWN and not key.startswith(NORMS) and len(finite(stage.series(key))) > 1]
    for key in extras[:MOST_EXTRAS]:
        points = finite(stage.series(key))
        small.append(line_chart(key.replace("_", " "), smoothed_lines(points, "accent", "", log=False), small=True,
                                remark=f"{numbers.short(points[0][1], 3)} → {numbers.short(points[-1][1], 3)}"))
    return [*charts, el("div", small, class_="small-charts")] if small else charts


def proof(run: Run, stage: Stage) -> Html:
    """The table of components with what each cost the optimizer, and the hashes in words."""
    record = stage.record
    if not record:
        return note("This stage has not finished, so there is no proof of what it left unchanged.", kind="warn")
    trainable, frozen, held = (record.get(key) or {} for key in ("trainable", "frozen", "optimizer_bytes"))
    rows = []
    for name in dict.fromkeys([*trainable, *frozen]):
        learns, rests = trainable.get(name), frozen.get(name)
        state = "learns" if not rests else "frozen" if not learns else f"{numbers.count(learns)} learn"
        extra = held.get(name, 0)
        wrong = bool(extra) and not learns
        rows.append(el("tr", el("th", breakable(name), scope="row"),
                       el("td", el("span", state, class_=f"learns {color(run, name)}" if learns else "frozen")),
                       el("td", numbers.count((learns or 0) + (rests or 0)), class_="n"),
                       el("td", numbers.scaled(extra, "B", 1024), class_="n bad" if wrong else "n")))
    total, moving = sum(trainable.values()) + sum(frozen.values()), sum(trainable.values())
    foot = el("tr", el("th", "together", scope="row"), el("td", f"{numbers.short(100 * moving / total, 3)} % learn" if total else None),
              el("td", numbers.count(total), class_="n"), el("td", numbers.scaled(sum(held.values()), "B", 1024), class_="n"))
    head = el("tr", [el("th", text, scope="col", class_=css) for text, css in
                     (("component", None), ("", None), ("parameters", "n"), ("optimizer", "n"))])
    return join(wide(el("table", el("thead", head), el("tbody", rows), el("tfoot", foot), class_="proof")), statement(stage))


def statement(stage: Stage) -> Html:
    hashes = stage.record.get("frozen_sha256") or {}
    before, after = hashes.get("before"), hashes.get("after")
    pair = el("p", el("span", "before"), shortened(before), el("br"), el("span", "after"), shortened(after), class_="hashes")
    match stage.frozen_is_equal:
        case None:
            return el("div", el("p", "Nothing is frozen in this stage: every parameter in it learns."), class_="statement")
        case True:
            return el("div", el("p", el("b", "The hashes are equal. "),
                                "Every frozen parameter is, bit for bit, what it was before the stage."), pair, class_="statement good")
        case _ if before and after:
            return el("div", el("p", el("b", "The hashes differ. "), "A frozen parameter changed: do not use this stage."), pair,
                      class_="statement bad")
        case _:
            return el("div", el("p", el("b", "There is no proof. "), "The record lacks a hash of the frozen parameters."), pair,
                      class_="statement warn")


def problem(n) -> Html | str:
    """A count that should be zero."""
    number = len(n) if isinstance(n, (list, dict)) else n
    return el("b", numbers.count(n), class_="warn") if number else numbers.count(n)


def speed(stage: Stage) -> list[tuple[str, Html | str | None]]:
    """How fast it ran: medians of a finished stage, of another the last that was recorded. What was not measured is left out."""
    found = stage.record or (stage.metrics[-1] if stage.metrics else {})
    rate = lambda key, say: say(found[key]) if numbers.is_number(found.get(key)) else None
    mfu = rate("mfu", numbers.percent)
    return [
        ("time per step", rate("step_seconds", lambda s: numbers.duration(s) if s >= 10 else f"{numbers.short(s if s >= 1 else 1e3 * s, 3)} {'s' if s >= 1 else 'ms'}")),
        ("tokens per second", rate("tokens_per_second", numbers.count)),
        ("per device", rate("tflops_per_device", lambda tera: numbers.scaled(1e12 * tera, "FLOP/s"))),
        ("MFU", el("span", mfu, title=found.get("flops_convention")) if mfu else None),
        ("waits for data", rate("data_wait_share", numbers.percent)),
        ("peak of a device's memory", rate("hbm_peak", lambda count: numbers.scaled(count, "B", 1024))),
    ]


def card(run: Run, number: int, stage: Stage) -> Html:
    record = stage.record
    examples = record.get("examples_per_step")
    what = facts([
        ("steps", numbers.count(record.get("steps"))),
        ("examples", numbers.count(record.get("examples"))),
        ("examples per step", numbers.short(examples) if examples is not None else None),
        ("supervised tokens", numbers.count(record.get("supervised_tokens"))),
        ("per step", numbers.scaled(record.get("flops_per_step"), "FLOP")),
        ("attention", f"{record['attention']}; {numbers.short(record['attention_error'], 2)} from the plain one" if "attention_error" in record else None),
        *speed(stage),
        ("recompiles", problem(record.get("recompiles"))),
        ("quarantined", problem(record.get("quarantined"))),
    ]) if record else facts([("last recorded step", numbers.count(stage.metrics[-1]["step"]) if stage.metrics else "none"), *speed(stage)])
    return el("article",
              el("header", el("span", number, class_="number"), el("h3", stage.name),
                 el("span", str(record["objective"]).replace("_", "-"), class_="chip") if record.get("objective") else None,
                 el("span", numbers.duration(record["seconds"]) if "seconds" in record else None if record else "not finished",
                    class_="time" if record else "time warn")),
              what,
              el("div", el("div", curves(run, stage)), el("div", proof(run, stage)), class_="two"),
              class_="panel stage", id=f"stage-{number}")


def stages(run: Run) -> Html:
    if not run.stages:
        return section("stages", "Stages", note("No stage has begun in this run."))
    overview = matrix(run)
    return section("stages", "Stages, and what each left unchanged",
                   el("div", el("h3", "Who learned when"), overview, class_="panel") if overview else None,
                   [card(run, i, stage) for i, stage in enumerate(run.stages, 1)])
