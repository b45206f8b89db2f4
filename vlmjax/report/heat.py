"""Which image tokens some answers depended on, drawn over what the model saw (evaluate/dependence.py)."""
import base64
import math

from vlmjax.evaluate import lot
from vlmjax.report import numbers
from vlmjax.report.html import Html, el, join, note
from vlmjax.report.picture import picture, source

PALE = 0.1         # nats: a map in which no token takes a tenth of the answer's probability stays pale
NUMBERED = 4       # tokens in a row: up to there each cell says its number
CELL = 10          # units of the drawing for one token


def drawing(falls: list[list[float]], view: bytes, question: str) -> Html:
    """Cells over the grey image, opaque at the map's own largest value. A fall is warm, a rise cold."""
    side = len(falls)
    most = max(PALE, max(abs(fall) for line in falls for fall in line))

    def cell(fall: float, y: int, x: int) -> Html:
        place = {"x": x * CELL, "y": y * CELL, "width": CELL, "height": CELL}
        number = el("text", f"{fall:.2f}".replace("-0.00", "0.00"), x=x * CELL + CELL / 2, y=y * CELL + CELL / 2) if side <= NUMBERED else None
        return el("g", el("title", f"row {y + 1}, column {x + 1}: {fall:.3g}"), el("rect", **place, class_="fall" if fall >= 0 else "rise", fill_opacity=f"{0.85 * abs(fall) / most:.2f}"), number)

    cells = [cell(fall, y, x) for y, line in enumerate(falls) for x, fall in enumerate(line)]
    return el("svg", el("image", href=source(view), width=side * CELL, height=side * CELL), cells,
              viewBox=f"0 0 {side * CELL} {side * CELL}", class_="picture heat", role="img", aria_label=f"Image tokens that the answer depended on: {question}")


def per_cent(log_probability: float) -> str:
    value = 100 * math.exp(log_probability)
    return f"{value:.1f} %" if value >= 0.1 else "under 0.1 %"


def mark(row: dict) -> str:
    """Right, wrong, or how much of a full score."""
    score = float(row.get("correct") or 0)
    return f" ({numbers.percent(score)})" if 0 < score < 1 else " ✓" if score else " ✗"


def card(row: dict, found: dict) -> Html:
    question, falls = str(row.get("question", "")), [fall for line in found["falls"] for fall in line]
    facts = [("answered", join(row.get("prediction"), mark(row))), ("probability", per_cent(found["log_probability"])),
             ("one replaced", f"{per_cent(found['log_probability'] - max(falls))} at worst"), ("all replaced", per_cent(found["all_replaced"]))]
    view = base64.b64decode(found["view"])  # what the model saw, which need not be the whole image
    return el("li", el("div", picture(view, question), drawing(found["falls"], view, question), class_="pair"),
              el("div", el("p", question, class_="question"), el("dl", [el("div", el("dt", name), el("dd", value)) for name, value in facts])),
              class_=f"answer mapped {'right' if lot.right(row) else 'wrong'}")


def maps(rows: list[dict], found: dict) -> Html | None:
    """The maps of a task; one whose answer is not the stored one any more is left out."""
    by_id = {row.get("id"): row for row in rows}
    cards = [card(by_id[one["id"]], one) for one in found.get("maps", ()) if by_id.get(one["id"], {}).get("prediction") == one["prediction"]]
    if not cards:
        return None
    side, left_out = len(found["maps"][0]["falls"]), found.get("left_out") or {}
    return join(el("h4", "What an answer depended on"),
                note(f"The image is {side} × {side} tokens to the language model. A cell is the fall of the answer's log-probability when this one token is replaced by ",
                     f"the mean token of its place over {found['mean_of']} images; blue where it rises. Tokens that repeat each other lose little one by one: below it, what the answer keeps ",
                     "when the worst of them is replaced, and when all are. What the mean image is answered with anyway does not fall.",
                     f" Without a map, since they could not be laid out: {'; '.join(f'{id_} ({why})' for id_, why in left_out.items())}." if left_out else ""),
                el("ul", cards, class_="cards"))
