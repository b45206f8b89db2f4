"""A run's directory → `report.html`: one page with curves, proofs, scores and pictures that opens without a network.

The page has no scripts, and its content policy forbids any, as well as every request (page.py).
"""
from etils import epath

from vlmjax import files
from vlmjax.report import data, gallery, numbers, run, scores, stages, style, what_ran
from vlmjax.report.html import Html, el, join, note
from vlmjax.report.page import page as whole

LINKS = (("accuracy", "Accuracy"), ("gallery", "Answers"), ("stages", "Stages"), ("data", "Data"), ("tasks", "Results of the stages"),
         ("run", "What ran"))


def chips(found: run.Run) -> list[Html]:
    """The state of the run at a glance."""
    def chip(text: str, kind: str) -> Html:
        return el("span", text, class_=f"chip {kind}")
    done = len(found.stages) - len(found.unfinished)
    marks = [chip(numbers.plural(done, "stage") + " finished", "good") if found.stages and not found.unfinished
             else chip(f"unfinished: {done} of {numbers.plural(len(found.stages), 'stage')}", "warn")]
    proofs = [stage.frozen_is_equal for stage in found.stages if stage.frozen_is_equal is not None]
    if proofs:
        marks.append(chip("frozen parts unchanged, proven", "good") if all(proofs) else chip("a frozen part is not proven unchanged", "bad"))
    for key, noun in ("recompiles", "recompile"), ("quarantined", "quarantined example"):
        total = sum(len(n) if isinstance(n, (list, dict)) else n or 0 for n in (stage.record.get(key) for stage in found.stages))
        if total:
            marks.append(chip(numbers.plural(total, noun), "warn"))
    return marks


def page(found: run.Run, image_of: gallery.ImageOf | None) -> Html:
    seconds = found.record.get("wall_seconds")
    line = ", ".join(filter(None, (what_ran.machine(found.record.get("devices") or {}), numbers.duration(seconds) if seconds else None)))
    unfinished = note("Not finished: ", ", ".join(found.unfinished), ". The same ", el("code", "vlmjax train"), " command continues it.",
                      kind="warn") if found.unfinished else None
    body = [
        el("header", el("p", "vlmjax run", class_="eyebrow"), el("h1", found.name), el("p", line, class_="muted") if line else None,
           el("p", chips(found), class_="chips"), unfinished),
        scores.headline(found),
        el("nav", [el("a", text, href=f"#{name}") for name, text in LINKS if name != "data" or found.preflight], aria_label="Sections"),
        scores.accuracy(found),
        gallery.gallery(found, image_of),
        stages.stages(found),
        data.data(found),
        scores.other_tasks(found),
        what_ran.what_ran(found),
    ]
    return whole(found.name, join(style.CSS, gallery.filter_style(found)), body)


def write(workdir, image_of: gallery.ImageOf | None = None) -> epath.Path:
    """Writes `workdir/report.html` and returns its path.

    image_of(task, image key): an image of the gallery as PNG bytes, or None where there is none.
    """
    html = page(run.read(workdir), image_of)
    path = epath.Path(workdir) / "report.html"
    files.write(path, html)
    return path
