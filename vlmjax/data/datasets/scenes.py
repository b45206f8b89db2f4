"""Drawn scenes that ask what vision-language models get wrong: what is there, how many, where, and small things (224x224, drawn when they are read).

A question is drawn first, then one scene for each of its answers: the set. So every answer to every question string is equally frequent, and who does not look is right by chance alone.
Scenes of a set have as many objects, at the same places where the question allows it; sets lie whole in one split.

    exists    is there a red star?              yes, no              one object differs; `adversarial`: colour and shape are there, on others
    count     how many red stars are there?     1 … 8                nine objects, some of the colour, some of the shape; in half of the sets the stars' area is the same
    where     where is the red star: left of, right of, above or below the blue circle?      the same two objects, by their distance
    detail    what color is the small dot?      six colors           by its side in pixels
"""
import dataclasses
import functools
import io
import zlib
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw

from vlmjax.data.example import IMAGE_MARK, Example, Source, Turn
from vlmjax.errors import UserError, did_you_mean

NAME, VERSION = "scenes", 1  # the version is part of every draw
SIDE, CELL = 224, 56
COLORS = {"red": (214, 39, 40), "green": (44, 160, 44), "blue": (31, 80, 190), "yellow": (240, 200, 30), "purple": (148, 70, 189), "orange": (255, 127, 14)}
SHAPES = ("circle", "square", "triangle", "star")
GROUND = (236, 236, 232)
SIDES, DOTS, HALVES = ("left", "right", "above", "below"), (2, 3, 4, 6, 8, 12), (24, 40, 64)
MOST = 8  # things that are counted; a scene has one object more
# Sets of each suite in each split. `comp`: what is asked for is a colour on a shape that no scene of train and test has; each of the two is in them.
SETS = {"train": {"exists": 2000, "count": 500, "where": 1000, "detail": 600}, "test": {"exists": 250, "count": 64, "where": 126, "detail": 84},
        "comp": {"exists": 250, "count": 64, "where": 126, "detail": 0}}  # fmt: skip
SUITES = tuple(SETS["train"])
CHANCE = {"exists": 1 / 2, "count": 1 / MOST, "where": 1 / 4, "detail": 1 / len(COLORS)}

Kind = tuple[str, str]  # (color, shape)
ALL = [(color, shape) for color in COLORS for shape in SHAPES]
# A Latin square: every colour is seen on three shapes, every shape in four or five colours.
HELD_OUT = [kind for n, kind in enumerate(ALL) if (n // len(SHAPES) + n % len(SHAPES)) % len(SHAPES) == 0]
SEEN = [kind for kind in ALL if kind not in HELD_OUT]


@dataclasses.dataclass(frozen=True)
class Thing:
    """An object: its middle and half of its side, in pixels."""

    kind: Kind
    x: int
    y: int
    half: int


@dataclasses.dataclass(frozen=True)
class Scene:
    """things, and a dot (color, x, y, side) on top of the ground."""

    things: tuple[Thing, ...]
    dot: tuple[str, int, int, int] | None = None


@dataclasses.dataclass(frozen=True)
class Asked:
    """A question with the scene in which `answer` is right. level: how hard it is made."""

    question: str
    answer: str
    level: str
    scene: Scene


def group(split: str, suite: str, number: int) -> list[Asked]:
    """A set: one question and its scenes, by (version, split, suite, number) and nothing else."""
    rng = np.random.default_rng([VERSION, zlib.crc32(f"{split}/{suite}".encode()), number])
    return _SUITES[suite](rng, number, HELD_OUT if split == "comp" else SEEN)


def _pick(rng: np.random.Generator, kinds: Sequence[Kind]) -> Kind:
    return kinds[rng.integers(len(kinds))]


def _place(rng: np.random.Generator, cell: int, half: int) -> tuple[int, int]:
    """A middle inside a cell of the grid of 4x4, so that nothing overlaps."""
    room = CELL // 2 - half - 1
    row, column = divmod(int(cell), SIDE // CELL)
    dx, dy = rng.integers(-room, room + 1, 2)
    return column * CELL + CELL // 2 + int(dx), row * CELL + CELL // 2 + int(dy)


def _exists(rng: np.random.Generator, number: int, asked: Sequence[Kind]) -> list[Asked]:
    color, shape = target = _pick(rng, asked)
    adversarial = number % 2 == 0
    near = [kind for kind in SEEN if kind != target and (kind[0] == color) != (kind[1] == shape)]
    far = [kind for kind in SEEN if kind[0] != color and kind[1] != shape]
    count = int(rng.integers(3, 7))
    others = [_pick(rng, [kind for kind in near if kind[0] == color]), _pick(rng, [kind for kind in near if kind[1] == shape])] if adversarial else []
    others += [_pick(rng, far) for _ in range(count - 1 - len(others))]
    instead = _pick(rng, near if adversarial else far)
    cells, halves = rng.permutation(16)[:count], rng.integers(13, 22, count)
    places = [_place(rng, cell, int(half)) for cell, half in zip(cells, halves)]
    scene = lambda first: Scene(tuple(Thing(kind, *place, int(half)) for kind, place, half in zip([first, *others], places, halves)))
    question, level = f"is there {'an' if color[0] == 'o' else 'a'} {color} {shape}?", "adversarial" if adversarial else "random"
    return [Asked(question, "yes", level, scene(target)), Asked(question, "no", level, scene(instead))]


def _count(rng: np.random.Generator, number: int, asked: Sequence[Kind]) -> list[Asked]:
    color, shape = target = _pick(rng, asked)
    distractors = [_pick(rng, [kind for kind in SEEN if kind != target and kind[n % 2] == target[n % 2]]) for n in range(MOST + 1)]
    cells, halves = rng.permutation(16)[: MOST + 1], rng.integers(10, 18, MOST + 1)
    places = [_place(rng, cell, 22) for cell in cells]
    out = []
    for k in range(1, MOST + 1):
        own = [round(22 / k**0.5)] * k if number % 2 else [int(half) for half in halves[:k]]  # half of the sets: one area for all numbers
        things = [Thing(target if n < k else distractors[n], *place, own[n] if n < k else int(halves[n])) for n, place in enumerate(places)]
        out.append(Asked(f"how many {color} {shape}s are there?", str(k), str(k), Scene(tuple(things))))
    return out


def _where(rng: np.random.Generator, number: int, asked: Sequence[Kind]) -> list[Asked]:
    first = _pick(rng, asked)
    second = _pick(rng, [kind for kind in SEEN if kind[0] != first[0] and kind[1] != first[1]])
    half = HALVES[number % len(HALVES)]
    x, y = (int(n) for n in rng.integers(half + 22, SIDE - half - 22, 2))
    sizes, (a, b) = rng.integers(13, 19, 2), rng.integers(-6, 7, 2)
    ends = {"left": (x - half, y + int(a)), "right": (x + half, y + int(b)), "above": (x + int(a), y - half), "below": (x + int(b), y + half)}
    opposite = dict(zip(SIDES, ("right", "left", "below", "above")))
    free = np.stack(np.meshgrid(*(np.arange(20, SIDE - 19, 4),) * 2), -1).reshape(-1, 2)
    apart = lambda place, least: np.abs(free - place).max(axis=1) > least
    for end in ends.values():
        free = free[apart(end, 36)]
    others: list[Thing] = []
    for _ in range(2):
        if len(free):
            u, v = (int(n) for n in free[rng.integers(len(free))])
            others.append(Thing(_pick(rng, [kind for kind in SEEN if kind not in (first, second)]), u, v, 14))
            free = free[apart((u, v), 32)]
    question = f"where is the {' '.join(first)}: left of, right of, above or below the {' '.join(second)}?"
    return [Asked(question, side, f"{2 * half} px", Scene((Thing(first, *ends[side], int(sizes[0])), Thing(second, *ends[opposite[side]], int(sizes[1])), *others))) for side in SIDES]


def _detail(rng: np.random.Generator, number: int, asked: Sequence[Kind]) -> list[Asked]:
    side = DOTS[number % len(DOTS)]
    cells = rng.permutation(16)[:4]
    halves = rng.integers(13, 22, 3)
    things = tuple(Thing(_pick(rng, SEEN), *_place(rng, cell, int(half)), int(half)) for cell, half in zip(cells[1:], halves))
    x, y = _place(rng, cells[0], 12)
    return [Asked("what color is the small dot?", color, f"{side} px", Scene(things, (color, x, y, side))) for color in COLORS]


_SUITES: dict[str, Callable] = {"exists": _exists, "count": _count, "where": _where, "detail": _detail}

_FINE = 4  # things are drawn so many times larger and made smaller, for smooth edges


def draw(scene: Scene) -> Image.Image:
    """RGB, 224x224."""
    image = Image.new("RGB", (SIDE * _FINE, SIDE * _FINE), GROUND)
    pen = ImageDraw.Draw(image)
    for thing in scene.things:
        x, y, r = (value * _FINE for value in (thing.x, thing.y, thing.half))
        color, shape = COLORS[thing.kind[0]], thing.kind[1]
        if shape == "circle":
            pen.ellipse((x - r, y - r, x + r, y + r), fill=color)
        elif shape == "square":
            pen.rectangle((x - 0.88 * r, y - 0.88 * r, x + 0.88 * r, y + 0.88 * r), fill=color)
        else:
            turns, inner = (3, 1.0) if shape == "triangle" else (10, 0.42)
            angles = [-np.pi / 2 + 2 * np.pi * n / turns for n in range(turns)]
            pen.polygon([(x + r * (inner if n % 2 and turns == 10 else 1) * np.cos(angle), y + r * (inner if n % 2 and turns == 10 else 1) * np.sin(angle)) for n, angle in enumerate(angles)], fill=color)
    image = image.resize((SIDE, SIDE), Image.Resampling.BOX)
    if scene.dot:  # exactly so many pixels, of exactly its color
        color, x, y, side = scene.dot
        ImageDraw.Draw(image).rectangle((x - side // 2, y - side // 2, x - side // 2 + side - 1, y - side // 2 + side - 1), fill=COLORS[color])
    return image


def caption(scene: Scene) -> str:
    """`a red star, a blue circle and a green dot`: things row by row of the grid, then the dot."""
    things = sorted(scene.things, key=lambda thing: (thing.y // CELL, thing.x))
    said = [" ".join(thing.kind) for thing in things] + ([f"{scene.dot[0]} dot"] if scene.dot else [])
    said = [f"{'an' if text[0] == 'o' else 'a'} {text}" for text in said]
    return " and ".join(filter(None, (", ".join(said[:-1]), said[-1])))


@functools.lru_cache(maxsize=1 << 15)  # 2 KB each: the later epochs of a run draw nothing
def _png(split: str, suite: str, number: int, n: int) -> bytes:
    out = io.BytesIO()
    draw(_group(split, suite, number)[n].scene).save(out, "PNG")
    return out.getvalue()


_group = functools.lru_cache(maxsize=1 << 14)(group)


def keys(split: str, suites: Sequence[str] = SUITES) -> list[tuple[str, int, int]]:
    """(suite, set, scene) of a split, in order."""
    sizes = {"exists": 2, "count": MOST, "where": len(SIDES), "detail": len(COLORS)}
    return [(suite, number, n) for suite in suites for number in range(SETS[split][suite]) for n in range(sizes[suite])]


@dataclasses.dataclass(frozen=True)
class ScenesSource(Source):
    """A view of a split; images are drawn when they are asked for."""

    name: str
    examples: list[Example]

    def read_image(self, key: str) -> bytes:
        split, suite, number, n = key.split("/")
        return _png(split, suite, int(number), int(n))

    @property
    def faults(self) -> dict[str, str]:
        return {}

    @property
    def altered(self) -> dict[str, int]:
        return {}


def build(data_dir: str) -> None:
    """Refused: `vlmjax data build SPEC --name=NAME` writes a part of it as shards, as of any other set."""
    raise UserError("scenes: there is nothing to build, its images are drawn when they are read; a stage names scenes:train:questions (as shards: vlmjax data build scenes:train:questions --name=NAME)")


def open_source(data_dir: str, split: str, view: str) -> ScenesSource:
    """split: train, test or comp. view: questions (of all suites), one of the suites, captions, or texts (questions and captions as language)."""
    if split not in SETS:
        raise UserError(f"scenes: no split {split!r}{did_you_mean(split, SETS)}")
    if view not in ("questions", "captions", "texts", *SUITES):
        raise UserError(f"scenes: {view!r} is not one of its views{did_you_mean(view, ('questions', 'captions', 'texts', *SUITES))}")
    return _open(split, view)


@functools.lru_cache(maxsize=16)
def _open(split: str, view: str) -> ScenesSource:
    examples = []
    for suite, number, n in keys(split, (view,) if view in SUITES else SUITES):
        asked, key = _group(split, suite, number)[n], f"{split}/{suite}/{number}/{n}"
        if view == "captions":
            turns, images = (Turn("user", f"{IMAGE_MARK}describe the image"), Turn("assistant", caption(asked.scene))), (key,)
        elif view == "texts":
            turns, images = (Turn("assistant", asked.question if n % 2 else caption(asked.scene)),), ()
        else:
            turns, images = (Turn("user", IMAGE_MARK + asked.question), Turn("assistant", asked.answer)), (key,)
        examples.append(Example(f"{NAME}/{key}{'' if images else '/text'}", images, turns))
    if not examples:
        raise UserError(f"scenes: the split {split!r} has none of {view}")
    return ScenesSource(f"{NAME}/{split}/{view}", examples)
