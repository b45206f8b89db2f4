"""What each stage read: counts, what was left out, and rows as the step sees them, with what is supervised marked."""
from vlmjax.report import numbers
from vlmjax.report.html import Html, el, note, section
from vlmjax.report.run import Run

SHOWN_SPANS = 60   # of a row; a packed one is long


def row(spans: list) -> Html:
    """[[kind, text], …] of one row; an example begins on a line of its own."""
    parts = []
    for kind, text in spans[:SHOWN_SPANS]:
        if kind == "next":
            parts.append(el("br"))
        elif kind == "image":
            parts.append(el("span", f"image, {text} tokens", class_="image-tokens"))
        else:
            parts.append(el("span", text, class_="supervised" if kind == "supervised" else None))
    if len(spans) > SHOWN_SPANS:
        parts.append(el("span", " …", class_="muted"))
    return el("p", parts, class_="row-shown")


def stage(name: str, found: dict) -> Html:
    """The findings of one stage."""
    counts = [numbers.plural(found["examples"], "example")]
    if found["images"]:
        checked = "all" if found["images_checked"] == found["images"] else numbers.count(found["images_checked"])
        counts.append(f"{numbers.plural(found['images'], 'image')}, {checked} decoded beforehand")
    if used := found.get("usage"):
        counts.append(f"{numbers.plural(used['rows'], 'row')} an epoch, {used['tokens']:.0%} of their tokens real")
    lines = [f"{what}: {numbers.count(tally['count'])} × {tally['reason']} ({', '.join(tally['of'])}{', …' if tally['count'] > len(tally['of']) else ''})"
             for what, key in (("left out", "left_out"), ("unreadable", "unreadable")) for tally in found[key]]
    lines += [f"{what}: {numbers.count(count)}" for what, count in found["altered"].items()]
    return el("div", el("h3", name), el("p", " · ".join(counts), class_="muted"), [note(line, kind="warn") for line in lines],
              [row(spans) for spans in found["samples"]], class_="panel")


def data(run: Run) -> Html | None:
    """None for a run without preflight.json."""
    if not run.preflight:
        return None
    return section("data", "Data",
                   note("The first rows of each stage, token by token as its step reads them. Marked text is supervised: the loss is computed there and nowhere else."),
                   [stage(name, found) for name, found in run.preflight.get("stages", {}).items()],
                   [note(line) for line in run.preflight.get("notes", ())])
