"""A tiny world: four images of 8x8, questions about them, a processor of 4 tokens per image."""
import dataclasses
import io

import numpy as np
from PIL import Image

from vlmjax.data.conversation import TEMPLATES
from vlmjax.data.example import Example, Source, Turn
from vlmjax.data.processor import Processor
from vlmjax.data.tokenizer import word_level
from vlmjax.layout import ImageLayout

LAYOUT = ImageLayout(size=8, patch=4)
TOKENIZER = word_level(["is it red?", "is it a blue square?", "yes", "no", "what color is it?", "red blue", "a red square"])
PROCESSOR = Processor(TOKENIZER, TEMPLATES["plain_qa"], LAYOUT)
TILED = Processor(TOKENIZER, TEMPLATES["plain_qa"], ImageLayout(size=8, patch=4, resize="squash", tiles=4))


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def qa(id_: str, images: tuple[str, ...], question: str, answer: str) -> Example:
    return Example(id_, images, (Turn("user", "<image>" * len(images) + question), Turn("assistant", answer)))


@dataclasses.dataclass
class TinySource(Source):
    """images: {key: the file, or what reading it raises}."""

    name: str
    examples: list[Example]
    images: dict[str, bytes | Exception]
    faults: dict[str, str] = dataclasses.field(default_factory=dict)
    altered: dict[str, int] = dataclasses.field(default_factory=dict)

    def read_image(self, key: str) -> bytes:
        if isinstance(self.images[key], Exception):
            raise self.images[key]
        return self.images[key]


def questions() -> TinySource:
    """Four images with one to four questions each."""
    asked = [("is it red?", "yes"), ("what color is it?", "red"), ("is it a blue square?", "no"), ("is it a red square?", "yes")]
    images = {f"i{n}": png(np.full((8, 8, 3), 40 * n, np.uint8)) for n in range(4)}
    return TinySource("questions", [qa(f"q{n}.{k}", (f"i{n}",), *asked[k]) for n in range(4) for k in range(n + 1)], images)


SHAPES = {"square": (8, 8, 1), "wide": (8, 16, 3), "tall": (23, 8, 4), "large": (20, 19, 5)}  # {image: (height, width, tiles with the thumbnail)}


def shapes() -> TinySource:
    """Images of four shapes: one question about each, a second one about the wide one, one about two of them, one about none."""
    draw = np.random.default_rng(0)
    images = {key: png(draw.integers(1, 256, (height, width, 3), np.uint8)) for key, (height, width, _) in SHAPES.items()}
    asked = [(key, (key,)) for key in SHAPES] + [("wide2", ("wide",)), ("both", ("tall", "square")), ("none", ())]
    return TinySource("shapes", [qa(id_, keys, "what color is it?" if id_ == "wide2" else "is it red?", "yes") for id_, keys in asked], images)


def captions() -> TinySource:
    images = questions().images
    texts = ("a red square", "a blue square", "a red square", "red")
    return TinySource("captions", [qa(f"c{n}", (f"i{n}",), "", text) for n, text in enumerate(texts)], images)


def texts() -> TinySource:
    return TinySource("texts", [Example(f"t{n}", (), (Turn("assistant", "it is a red square"),)) for n in range(6)], {})
