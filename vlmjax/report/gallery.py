"""Right and wrong answers with their images, and what the model said to the same question without seeing."""
from collections.abc import Callable

from vlmjax.evaluate import lot
from vlmjax.report import heat, numbers
from vlmjax.report.html import Html, el, join, note, section
from vlmjax.report.picture import picture
from vlmjax.report.run import Run

EACH = 12  # cards of wrong and of right answers

ImageOf = Callable[[str, str], bytes | None]


def answer(label: str, row: dict, css: str) -> Html:
    """What was answered, with a mark, so that right and wrong do not hang on a colour."""
    return el("div", el("dt", label), el("dd", row.get("prediction") or "nothing", heat.mark(row), class_=css))


def card(row: dict, blind: dict | None, png: bytes | None, kind: str) -> Html:
    right = lot.right(row)
    question = str(row.get("question", ""))
    answers = [el("div", el("dt", "expected"), el("dd", row.get("answer"))), answer("answered", row, "good" if right else "bad"),
               answer("blind", blind, "muted") if blind else None]
    text = el("div", el("p", question, class_="question"), el("dl", answers), el("p", row.get("kind"), class_="kind"))
    return el("li", picture(png, question), text, class_=f"answer {'right' if right else 'wrong'} {kind}")


def filters(name: str, kinds: list[str]) -> list[Html]:
    """Radio buttons before the list of cards; style rules hide what does not match, so no script is needed."""
    def choice(group: str, key: str, label: str, first: bool) -> Html:
        mark = f"{name}-{key}"
        return join(el("input", type="radio", name=f"{name}-{group}", id=mark, class_=f"pick {key}", checked=True if first else None),
                    el("label", label, for_=mark))
    outcomes = [choice("outcome", "both", "all", True), choice("outcome", "only-wrong", "wrong", False),
                choice("outcome", "only-right", "right", False)]
    if len(kinds) < 2:
        return outcomes
    return [*outcomes, el("span", class_="gap"), choice("kind", "every", "every kind", True),
            *(choice("kind", f"only-k{i}", kind, False) for i, kind in enumerate(kinds))]


def task_gallery(name: str, number: int, rows: list[dict], maps: dict, image_of: ImageOf | None) -> Html | None:
    """The cards of one task; from the second task on they start folded."""
    real = [row for row in rows if row.get("control", "real") == "real"]
    if not real or "correct" not in real[0]:  # what is right is known to a server
        return None
    blind = {row.get("id"): row for row in rows if row.get("control") == "blind"}
    wrong, right = [row for row in real if not lot.right(row)], [row for row in real if lot.right(row)]
    shown = lot.choose(wrong, EACH) + lot.choose(right, EACH)
    kinds = sorted({str(row["kind"]) for row in shown if row.get("kind")})
    cards = [card(row, blind.get(row.get("id")), image_of(name, row["image"]) if image_of and row.get("image") is not None else None,
                  f"k{kinds.index(str(row['kind']))}" if row.get("kind") else "") for row in shown]
    said = f"{numbers.count(len(wrong))} of {numbers.count(len(real))} answers are wrong. " if wrong else \
        f"All {numbers.count(len(real))} answers are right. "
    content = join(
        note(said, "Shown are up to ", EACH, " wrong and ", EACH, " right ones, drawn by lot evenly over the kinds of question",
             "; blind is the model's answer to the same question about a grey image." if blind else "."),
        el("div", filters(f"g{number}", kinds), el("ul", cards, class_="cards"), class_="gallery"), heat.maps(real, maps))
    return el("details", el("summary", name), content) if number else el("div", el("h3", name), content)


def gallery(run: Run, image_of: ImageOf | None) -> Html:
    found = [part for i, (name, rows) in enumerate(run.predictions.items()) if (part := task_gallery(name, i, rows, run.maps.get(name, {}), image_of)) is not None]
    return section("gallery", "Answers", found or note("There are no answers to show yet: the run has no predictions."))


def filter_style(run: Run) -> Html:
    """The rules that hide cards, for as many kinds as any task has."""
    return filter_rules(max((len({str(row.get("kind")) for row in rows}) for rows in run.predictions.values()), default=0))


def filter_rules(most: int) -> Html:
    rules = [".pick.only-wrong:checked ~ .cards > .right, .pick.only-right:checked ~ .cards > .wrong { display: none; }"]
    rules += [f".pick.only-k{i}:checked ~ .cards > :not(.k{i}) {{ display: none; }}" for i in range(most)]
    return Html("\n".join(rules))
