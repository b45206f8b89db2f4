"""Parquet files that hold their images, as the hub's data sets have them: `parquet:FILES:all`.

FILES is a file, a folder of .parquet files, a range `train-{00000..00003}-of-00004.parquet` or a pattern `ai2d*/train-*.parquet`. Two layouts are
recognised by the columns of each file; others are left unread, such as FineVision's ratings:

    The Cauldron, FineVision   images: list of {bytes, path}; texts: list of {user, assistant}. All pairs are one conversation about all images, which
                               come before its first question, each on a line of its own; marks of images in questions are taken out (both as
                               huggingface/nanoVLM, data/datasets.py at 4e0c096, but for its names of several images). Without images it is text alone
    LLaVA-OneVision-Data       id; image: {bytes, path}; conversations: list of {from, value}, which become what `llava` makes of them. A row whose image
                               is null is text alone

Opening reads the texts once, row group after row group, and no image; 12 bytes a row are held, texts and images read by row group when they are asked
for. A whole row group is read for one image: in the order of the rows, as `vlmjax data build` goes, each is read once, but in the shuffled order of a
training nearly every image reads one. Build shards from such files, and train on those.
"""
import array
import dataclasses
import functools
import os
from collections.abc import Sequence
from typing import Any

from vlmjax.data import file_sets
from vlmjax.data.datasets import llava, published
from vlmjax.data.datasets.published import PublishedSource
from vlmjax.data.example import IMAGE_MARK, Example, Lazy, Turn
from vlmjax.data.files_at import join, shown
from vlmjax.data.parquet_file import ParquetFile
from vlmjax.errors import UserError

NAME = "parquet"
SUFFIX = ".parquet"
UNMARKED = "questions whose marks of images were taken out, as the images come before the first one"

# (column of images, of texts, what of a text is read); the fields of an image are IMAGE.
LAYOUTS = (("images", "texts", ("user", "assistant")), ("image", "conversations", ("from", "value")))
IMAGE = ("bytes", "path")


@dataclasses.dataclass(frozen=True)
class Part:
    """One file. leaves: what examples are made of, with the paths of images but not their bytes; image: the leaf of the bytes."""

    file: ParquetFile
    label: str
    column: str
    leaves: tuple[str, ...]
    image: str


@dataclasses.dataclass(frozen=True)
class _Images:
    """Reads images by key, FILE/ROW/K: the K-th image of a row."""

    parts: tuple[tuple[ParquetFile, str], ...]  # (file, the leaf of its images' bytes)

    def __call__(self, key: str) -> bytes:
        number, row, k = map(int, key.split("/"))
        file, leaf = self.parts[number]
        images = _listed(file.row(row, (leaf,))[leaf.split(".")[0]])
        data = images[k].get("bytes") if k < len(images) and isinstance(images[k], dict) else None
        if not isinstance(data, bytes):
            raise UserError(f"{shown(file.path)}: row {row}: its image {k} holds no bytes")
        return data


def build(data_dir: str | os.PathLike) -> None:
    raise UserError(f"{NAME}: its files are read as they are published; to build shards from them: vlmjax data build {NAME}:FILES:all --name=NAME")


@functools.lru_cache(4)
def open_source(data_dir: str | os.PathLike, split: str, view: str) -> PublishedSource:
    """split: the files; view: `all`."""
    if view != "all":
        raise UserError(f"{NAME}: {split}:{view} is not FILES:all")
    paths = file_sets.find(data_dir, split, SUFFIX)
    parts = [_part(path, label) for path, label in zip(paths, file_sets.labels(paths))]
    notes, made = published.Notes(), _Examples(parts)
    for number, part in enumerate(parts):
        for group, start in enumerate(part.file.starts[:-1]):
            for i, row in enumerate(part.file.rows(group, part.leaves), start):
                notes.rows += 1
                try:
                    _, _, altered = made.convert(number, i, row)
                    id_ = published.text(made.id(number, i, row))
                except ValueError as error:
                    notes.fault(f"{part.label}[{i}]", error)
                    continue
                for what in altered:
                    notes.altered[what] += 1
                made.append(number, i, notes.copy(id_))
    notes.need(shown(join(os.fspath(data_dir), split)), made.rows)
    images = _Images(tuple((part.file, part.image) for part in parts))
    return PublishedSource(f"{NAME}/{split}", Lazy(len(made.rows), made), images, notes.faults, dict(notes.altered))


@dataclasses.dataclass(frozen=True)
class _Examples:
    """Makes the examples of the rows that can be used: the numbers of their files, their rows, and which copy of its id each one has."""

    parts: Sequence[Part]
    files: array.array = dataclasses.field(default_factory=lambda: array.array("i"))
    rows: array.array = dataclasses.field(default_factory=lambda: array.array("i"))
    copies: array.array = dataclasses.field(default_factory=lambda: array.array("i"))

    def append(self, number: int, row: int, copy: int) -> None:
        for column, value in ((self.files, number), (self.rows, row), (self.copies, copy)):
            column.append(value)

    def __call__(self, i: int) -> Example:
        number, row = self.files[i], self.rows[i]
        held = self.parts[number].file.row(row, self.parts[number].leaves)
        images, turns, _ = self.convert(number, row, held)
        return Example(published.numbered(self.id(number, row, held), self.copies[i]), images, turns)

    def id(self, number: int, row: int, held: dict[str, Any]) -> str:
        id_ = held.get("id")
        return f"{NAME}/{self.parts[number].label}/{row}" if id_ is None or id_ == "" else f"{NAME}/{id_}"

    def convert(self, number: int, row: int, held: dict[str, Any]) -> tuple[tuple[str, ...], tuple[Turn, ...], list[str]]:
        """As llava.conversation, of a row of either layout."""
        column = self.parts[number].column
        images = _listed(held[column])
        if any(image is None for image in images):
            raise ValueError("an image of it is null")
        keys = [f"{number}/{row}/{k}" for k in range(len(images))]
        return _pairs(keys, _listed(held["texts"])) if column == "images" else llava.conversation({"image": keys, "conversations": held["conversations"]})


def _listed(value: Any) -> list[Any]:
    """A list, of one that is alone too; of null an empty one."""
    return value if isinstance(value, list) else [] if value is None else [value]


def _pairs(images: list[str], pairs: list[Any]) -> tuple[tuple[str, ...], tuple[Turn, ...], list[str]]:
    altered, turns = [], []
    for pair in pairs:
        question, answer = (published.text((pair or {}).get(side)) for side in ("user", "assistant"))
        if IMAGE_MARK in answer:
            raise ValueError(f"an answer holds {IMAGE_MARK}, the mark of an image's place")
        altered += [UNMARKED] * (IMAGE_MARK in question)
        turns += [Turn("user", question.replace(IMAGE_MARK, "")), Turn("assistant", answer)]
    if not turns:
        raise ValueError("holds no answer")
    turns[0] = Turn("user", f"{IMAGE_MARK}\n" * len(images) + turns[0].text)
    return tuple(images), tuple(turns), altered


def _part(path: str, label: str) -> Part:
    file = ParquetFile.open(path)
    for images, texts, fields in LAYOUTS:
        (data, of_image), said = _leaves(file, images, IMAGE), _leaves(file, texts, fields)
        if data and of_image and all(said):
            return Part(file, label, images, (of_image, *said, *(("id",) if images == "image" and "id" in file.leaves else ())), data)
    columns = shown(", ".join(dict.fromkeys(leaf.split(".")[0] for leaf in file.leaves)))
    raise UserError(f"{shown(path)}: has the columns {columns:.200}, not those of The Cauldron (images, texts) or LLaVA-OneVision-Data (image, conversations)")


def _leaves(file: ParquetFile, column: str, fields: tuple[str, ...]) -> list[str]:
    """The leaf of each field of a column's structs, however its writer names the levels between; empty where there is none."""
    return [next((leaf for leaf in file.leaves if "." in leaf and leaf.split(".")[0] == column and leaf.split(".")[-1] == field), "") for field in fields]
