"""An image on the page, inside the page's own file."""
import base64

from vlmjax.report.html import Html, el

SMALL_IMAGE = 160  # pixels; below it an image is enlarged as squares, so that what the model saw is what one sees


def source(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def picture(png: bytes | None, question: str) -> Html:
    if not png:
        return el("div", "no image", class_="picture none")
    width = int.from_bytes(png[16:20], "big")   # a PNG's first chunk is its header
    return el("img", src=source(png), alt=f"The image of: {question}", loading="lazy",
              class_="picture pixels" if width <= SMALL_IMAGE else "picture")
