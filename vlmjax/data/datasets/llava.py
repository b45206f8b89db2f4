"""Conversations as LLaVA publishes them: a JSON list, or JSONL, of {"id", "image", "conversations": [{"from": "human", "value": …}, …]}.

`llava:FILE:FOLDER` reads FILE, whose `image` entries lie under FOLDER; both relative to the data directory, absolute, or gs://…; FOLDER may be a zip
archive (`images.zip`, `images.zip/prefix`). Nothing is built; of a file on a disk only the places of its rows are held: 665,298 rows in 16 MB.

What becomes of a row, after haotian-liu/LLaVA, llava/train/train.py and llava/model/llava_arch.py at c121f04, and after LLaVA-VL/LLaVA-NeXT where it
has several images:

    leading answers       are dropped, as preprocess_v1 drops the first turn unless it is a question
    one mark in a turn    comes first in it, on a line of its own (preprocess_multimodal); several marks of a row's one image are one
    several images        keep their places (LLaVA-NeXT's preprocess_multimodal)
    an image, no mark     the images come before the first question; LLaVA's model puts no feature of such an image anywhere and trains blind
    no image              text alone; LLaVA runs its encoder on black pixels for it, here nothing is encoded
    left out (`faults`)   no answer; two turns of one speaker in a row (LLaVA stops there); marks that are not as many as images; a mark in an answer
"""
import array
import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Sequence
from typing import Any

from vlmjax.data import json_rows
from vlmjax.data.datasets import published
from vlmjax.data.datasets.published import PublishedSource
from vlmjax.data.example import IMAGE_MARK, Example, Lazy, Turn
from vlmjax.data.files_at import File
from vlmjax.errors import UserError

NAME = "llava"
ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}

LEADING = "conversations without their leading answers, which no question precedes"
MOVED = "questions whose image was put first, on a line of its own"
MERGED = "questions that marked the place of their one image more than once"
PLACED = "conversations whose images were put before the first question, as nothing marked their place"


def build(data_dir: str | os.PathLike) -> None:
    raise UserError(f"{NAME}: its JSON files are read as they are published; there is nothing to build")


def open_source(data_dir: str | os.PathLike, split: str, view: str) -> PublishedSource:
    """split: the file; view: the folder of its images."""
    return _open(*published.paths(data_dir, split, view))


@functools.lru_cache(8)
def _open(path: str, folder: str) -> PublishedSource:
    file = File(path).held()
    notes, examples = read(file, NAME, conversation)
    return published.source(NAME, file, notes, examples, folder)


# What a row becomes: (images, turns, what was altered). ValueError for a row that cannot be used.
Convert = Callable[[Any], tuple[tuple[str, ...], tuple[Turn, ...], Sequence[str]]]


def read(file: File, name: str, convert: Convert, rows: int | None = None) -> tuple[published.Notes, Lazy]:
    """What becomes of the first `rows` rows of a file, or of all, and the examples of those that can be used; name: what their ids begin with."""
    notes, made = published.Notes(), _Examples(name, convert, json_rows.Rows(file))
    for i, (start, raw) in enumerate(itertools.islice(json_rows.scan(file), rows)):
        notes.rows += 1
        try:
            row = json_rows.parse(raw)
            _, _, altered = convert(row)
            id_ = published.text(made.id(row, i))
        except (ValueError, RecursionError) as error:
            notes.fault(f"{file.name}[{i}]", error)
            continue
        for what in altered:
            notes.altered[what] += 1
        made.append(i, start, raw, notes.copy(id_))
    return notes, Lazy(len(made.rows), made)


@dataclasses.dataclass(frozen=True)
class _Examples:
    """Makes the examples of the rows that can be used: their numbers in the file, and which copy of its id each one has."""

    name: str
    convert: Convert
    rows: json_rows.Rows
    numbers: array.array = dataclasses.field(default_factory=lambda: array.array("i"))
    copies: array.array = dataclasses.field(default_factory=lambda: array.array("i"))

    def append(self, number: int, start: int, raw: bytes, copy: int) -> None:
        self.rows.append(start, raw)
        self.numbers.append(number)
        self.copies.append(copy)

    def __call__(self, i: int) -> Example:
        row = self.rows[i]
        images, turns, _ = self.convert(row)
        return Example(published.numbered(self.id(row, self.numbers[i]), self.copies[i]), images, turns)

    def id(self, row: dict[str, Any], number: int) -> str:
        id_ = row.get("id")
        return f"{self.name}/{number if id_ is None or id_ == '' else id_}"


def conversation(row: Any, in_place: bool = False) -> tuple[tuple[str, ...], tuple[Turn, ...], list[str]]:
    """(images, turns, what was altered) of one row; in_place: as many marks as images stay where they are. ValueError for a row that cannot be used."""
    if not isinstance(row, dict) or not isinstance(row.get("conversations"), list):
        raise ValueError("has no list 'conversations'")
    images, altered = _images(row.get("image")), []
    turns = [_turn(turn) for turn in row["conversations"]]
    answers = next((i for i, turn in enumerate(turns) if turn.role == "user"), len(turns))
    if answers:
        turns, altered = turns[answers:], [LEADING]
    if not any(turn.role == "assistant" for turn in turns):
        raise ValueError("holds no answer" + (" to a question" if answers else ""))
    for i, turn in enumerate(turns):
        if turn.role != ("user", "assistant")[i % 2]:
            raise ValueError(f"two turns of the {turn.role} follow each other")
        if turn.role == "assistant" and IMAGE_MARK in turn.text:
            raise ValueError(f"an answer holds {IMAGE_MARK}, the mark of an image's place")
    marked = [turn.text.count(IMAGE_MARK) for turn in turns]
    if images and not any(marked):
        altered.append(PLACED)
        turns[0] = Turn("user", _first(turns[0].text, len(images)))
    elif sum(marked) == len(images) and in_place:
        pass
    elif sum(marked) == len(images) or len(images) == 1 and max(marked) == sum(marked):
        for i, marks in enumerate(marked):
            if marks == 1 or marks and len(images) == 1:
                text = _first(turns[i].text, 1)
                altered += [MERGED] * (marks > 1) + [MOVED] * (marks == 1 and text != turns[i].text)
                turns[i] = Turn("user", text)
    else:
        raise ValueError(f"{len(images)} images, but its turns mark {sum(marked)} places with {IMAGE_MARK}")
    return images, tuple(turns), altered


def _first(text: str, images: int) -> str:
    rest = text.replace(IMAGE_MARK, "").strip()
    if IMAGE_MARK in rest:
        raise ValueError(f"what stands around a mark of an image forms another one: {text!r:.80}")
    return (f"{IMAGE_MARK}\n" * images + rest).strip()


def _turn(turn: Any) -> Turn:
    if not isinstance(turn, dict) or not isinstance(turn.get("from"), str) or turn["from"] not in ROLES or not isinstance(turn.get("value"), str):
        raise ValueError(f"a turn is {{'from': 'human' or 'gpt', 'value': text}}, not {turn!r:.80}")
    return Turn(ROLES[turn["from"]], published.text(turn["value"]))


def _images(value: Any) -> tuple[str, ...]:
    """`image`: a path, a list of paths, or nothing (absent, null, "")."""
    images = () if value is None or value == "" else (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else None
    if images is None or not all(isinstance(image, str) and image for image in images):
        raise ValueError(f"its image is a path or a list of paths, not {value!r:.80}")
    return tuple(map(published.text, images))
