"""Building HTML so that a text from data cannot become markup: whatever is not `Html` is escaped."""
import html
from typing import Any

HASH_ENDS = 8
VOID = ("img", "input", "meta", "br", "wbr")


class Html(str):
    """Text that is markup already. Only `el`, `join` and literals in this room make it."""


def markup(child: Any) -> str:
    if child is None:
        return ""
    if isinstance(child, Html):
        return child
    if isinstance(child, (list, tuple)):
        return "".join(map(markup, child))
    return html.escape(str(child))


def join(*children: Any) -> Html:
    return Html(markup(children))


def el(tag: str, *children: Any, **attributes: Any) -> Html:
    """`el("td", 3, class_="n")` → `<td class="n">3</td>`.

    An attribute's underscores become hyphens and a last one is dropped; None leaves it out and True writes the bare name.
    """
    written = "".join(
        f" {name.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{html.escape(str(value))}"')
        for name, value in attributes.items() if value is not None)
    return Html(f"<{tag}{written}>" if tag in VOID else f"<{tag}{written}>{markup(children)}</{tag}>")


def note(*children: Any, kind: str = "") -> Html:
    """One plain sentence: an explanation, or what stands in the place of a part that the run does not have."""
    return el("p", *children, class_=f"note {kind}".strip())


def section(name: str, title: str, *children: Any) -> Html:
    return el("section", el("h2", title), *children, id=name)


def facts(pairs: list[tuple[Any, Any]]) -> Html:
    """Names and values; the pairs without a value are left out."""
    return el("dl", [el("div", el("dt", name), el("dd", value)) for name, value in pairs if value is not None], class_="facts")


def wide(*children: Any) -> Html:
    """A frame that scrolls sideways by itself, so that a wide table never makes a phone scroll the page."""
    return el("div", *children, class_="wide")


def shortened(sha: str | None) -> Html:
    """A hash by its ends; the whole of it is in the title."""
    if not sha:
        return el("code", "none")
    sha = str(sha)
    return el("code", sha if len(sha) <= 2 * HASH_ENDS else f"{sha[:HASH_ENDS]}…{sha[-HASH_ENDS:]}", title=sha)


def breakable(name: str) -> Html:
    """A name with underscores that a narrow column may break behind them."""
    first, *rest = name.split("_")
    return join(first, [["_", el("wbr"), part] for part in rest])
