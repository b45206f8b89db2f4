"""A bundle of tiny random towers and language model (tests/train/tiny.py), and a task whose right answers an image decides."""
import collections
import dataclasses
import functools
import types

import jax
import numpy as np

from tests.data.tiny import TinySource, png
from tests.train import tiny
from vlmjax import bundle, param_rules, stacks
from vlmjax.data.conversation import TEMPLATES
from vlmjax.data.example import Turn
from vlmjax.data.tokenizer import word_level
from vlmjax.evaluate.task import Item, Task, exact_match
from vlmjax.layout import ImageLayout
from vlmjax.models import init_params

TOKENIZER = word_level(["is it red?", "is it blue?", "what color is it?", "and what shape is it?", "red blue gray yes no square"])
LAYOUT = ImageLayout(size=16, patch=8)
COLORS = {"red": (200, 0, 0), "blue": (0, 0, 200)}


@functools.cache
def parameters():
    """{path by layer: array} of all components, larger than at initialisation so that the model has opinions."""
    flat = {}
    for i, (name, module) in enumerate(tiny.modules().items()):
        flat.update(param_rules.flatten({name: jax.jit(functools.partial(init_params, module))(jax.random.key(i))}))
    return {path: np.asarray(leaf) * (3 if leaf.ndim > 1 else 1) for path, leaf in stacks.expand(flat).items()}


@functools.cache
def model(without=()):
    flat = {path: leaf for path, leaf in parameters().items() if path.split("/")[0] not in without}
    return bundle.make(tiny.modules(), flat, TOKENIZER, TEMPLATES["plain_qa"], LAYOUT)


def items(images=5):
    """Image n is red or blue and has n+1 questions; several questions are asked about many images."""
    out = []
    for n in range(images):
        color = ("red", "blue")[n % 2]
        asked = [("is it red?", "yes" if color == "red" else "no", "polar"), ("what color is it?", color, "color"),
                 ("is it blue?", "no" if color == "red" else "yes", "polar")]
        for k in range(n + 1):
            question, answer, kind = asked[k % 3]
            text = question if k < 3 else f"and {question}" if "what" in question else f"{question} {question}"
            out.append(Item(f"t/{n}/{k}", f"i{n}", (Turn("user", f"<image>{text}"),), answer, kind))
    return out


def source(images=5):
    return TinySource("tiny", [], {f"i{n}": png(np.full((16, 16, 3), COLORS[("red", "blue")[n % 2]], np.uint8)) for n in range(images)})


def prior(data_dir):
    return {"is it red?": "yes", "what color is it?": "blue"}


TASK = Task(
    name="tiny", about="", open=lambda data_dir, split: (source(), items()), prior=prior, parse=lambda text: text if text in ("yes", "no", *COLORS) else None,
    parser="as it is", score=exact_match, metric="exact_match", max_new_tokens=3,
)
CHOICE = dataclasses.replace(TASK, name="choice", metric="accuracy", choices=("blue", "red"))


@dataclasses.dataclass(frozen=True)
class Oracle(bundle.Bundle):
    """Reads rows as a perfect model would: the question from its tokens, the color from the pixels; grey is answered with `gray`."""

    seen: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    shapes: set = dataclasses.field(default_factory=set)
    shown: set = dataclasses.field(default_factory=set)  # (question, color, tiles of its image)

    def answer(self, batch, max_new_tokens):
        self.shapes.add(batch["tokens"].shape + batch["target_positions"].shape)
        out = np.zeros((*batch["target_positions"].shape, max_new_tokens), np.int32)
        for b, q in zip(*np.nonzero(batch["weights"])):
            own = batch["segments"][b, batch["target_positions"][b, q]]
            question = self.tokenizer.decode(batch["tokens"][b][batch["segments"][b] == own])
            color = self.color(batch["pixels"][b, 0])
            self.seen[question, batch["pixels"][b, 0].tobytes()] += 1
            self.shown.add((question, color, int(batch["image_mask"][b].sum())))
            assert {self.color(tile) for tile in batch["pixels"][b][batch["image_mask"][b]]} == {color}
            text = color if "what" in question else color if color == "gray" else "yes" if color in question else "no"
            out[b, q, :2] = *self.tokenizer.encode(text), self.tokenizer.eos
        return out

    def text_features(self, texts):
        return np.array([np.eye(3)[["red", "blue"].index(text)] for text in texts])

    def pixel_features(self, pixels):
        return np.array([COLORS.get(self.color(p), (1, 1, 1)) for p in pixels], float)[:, [0, 2, 1]] + 1

    @staticmethod
    def color(pixels):
        return next((name for name, value in COLORS.items() if (pixels == np.array(value)).all()), "gray")


def oracle():
    vlm = types.SimpleNamespace(encoder="has one", decoder=model().parts["decoder"])
    return Oracle({}, vlm, vlm, None, TOKENIZER, TEMPLATES["plain_qa"], LAYOUT)
