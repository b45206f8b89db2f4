"""What ran: the config's differences from its base, versions, machine, and where the time went."""
from typing import Any

from vlmjax.report import numbers
from vlmjax.report.html import Html, el, facts, note, section, shortened, wide
from vlmjax.report.run import Run

OPEN_UP_TO = 12   # more differences than this start folded


def machine(devices: dict) -> str | None:
    if not devices:
        return None
    kind, number, processes = str(devices.get("kind", "unknown")), devices.get("count"), devices.get("processes")
    text = kind if number is None else f"{numbers.count(number)} × {kind}"
    return f"{text} in {processes} processes" if numbers.is_number(processes) and processes > 1 else text


def mesh(axes: Any) -> str | None:
    if not isinstance(axes, dict):
        return numbers.plain(axes) if axes else None
    return ", ".join(f"{name} {size}" for name, size in axes.items()) or None


def times(run: Run) -> Html:
    """Seconds per stage as bars; what the stages do not explain is start-up, compilation and evaluation."""
    rows = [(stage.name, stage.record["seconds"]) for stage in run.stages if numbers.is_number(stage.record.get("seconds"))]
    if not rows:
        return note("No stage has finished, so there are no times yet.")
    wall = run.record.get("wall_seconds")
    rest = wall - sum(seconds for _, seconds in rows) if numbers.is_number(wall) else 0
    if rest > 0.5:
        rows.append(("everything else", rest))
    longest = max(seconds for _, seconds in rows) or 1
    return el("div", [
        el("div", el("span", name, class_="bar-name"),
           el("div", el("i", class_="time", style=f"width:{100 * seconds / longest:.1f}%"), class_="bar"),
           el("span", numbers.duration(seconds), class_="bar-value"), class_="bar-row")
        for name, seconds in rows], class_="bars times")


def differences(run: Run) -> Html:
    """{path: [base, value]} as a table."""
    changed = run.config.get("differences")
    if changed is None:
        return note("The run did not record how its config differs from a base.")
    if not changed:
        return note("The config is its base, unchanged.")
    rows = []
    for path, pair in sorted(changed.items()):
        base, value = pair if isinstance(pair, (list, tuple)) and len(pair) == 2 else (None, pair)
        rows.append(el("tr", el("th", el("code", path), scope="row"), el("td", el("code", numbers.plain(base))),
                       el("td", el("code", el("b", numbers.plain(value))))))
    head = el("tr", [el("th", text, scope="col") for text in ("key", "base", "this run")])
    return el("details", el("summary", numbers.plural(len(rows), "difference") + " from the base config"),
              wide(el("table", el("thead", head), el("tbody", rows), class_="differences")), open=True if len(rows) <= OPEN_UP_TO else None)


def what_ran(run: Run) -> Html:
    record = run.record
    commit = record.get("git_commit")
    fingerprint = record.get("fingerprint") or run.config.get("fingerprint")
    versions = ", ".join(f"{name} {version}" for name, version in (record.get("versions") or {}).items())
    known = [("config fingerprint", shortened(fingerprint) if fingerprint else None), ("git commit", shortened(commit) if commit else None),
             ("devices", machine(record.get("devices") or {})), ("mesh", mesh(record.get("mesh"))), ("versions", versions or None),
             ("wall time", numbers.duration(record["wall_seconds"]) if "wall_seconds" in record else None),
             ("of it in steps that count", f"{100 * record['goodput']:.0f} %" + (f", after {record['starts']} starts" if record.get("starts", 1) > 1 else "") if "goodput" in record else None)]
    return section(
        "run", "What ran",
        el("div", el("div", el("div", el("h3", "Time"), times(run)),
                     el("div", el("h3", "Setting"), facts(known),
                        None if record else note("There is no record.json yet: it is written when a stage has finished.")), class_="two even"),
           differences(run), class_="panel"))
