"""The frame of every page: one file without scripts whose content policy forbids any, as well as every request."""
from typing import Any

from vlmjax.report.html import Html, el, join

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(title: str, css: Html, body: Any) -> Html:
    head = [el("meta", charset="utf-8"), el("meta", name="viewport", content="width=device-width, initial-scale=1"),
            el("meta", http_equiv="Content-Security-Policy", content=POLICY), el("meta", name="color-scheme", content="light dark"),
            el("title", f"{title} – vlmjax"), el("style", css)]
    return join(Html("<!doctype html>\n"), el("html", el("head", head), el("body", el("main", body)), lang="en"))
