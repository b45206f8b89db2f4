"""What sources of published files share: a file of rows, and a folder of images beside it."""
import collections
import dataclasses
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vlmjax.data.example import IMAGE_MARK, Example, Source
from vlmjax.data.files_at import File, join, shown
from vlmjax.data.folders import open_folder
from vlmjax.errors import UserError

# What LLaVA 1.5 asks for the captions of TextCaps (arXiv:2310.03744, table 7). Captions are published without a question; theirs is this one.
CAPTION_PROMPT = "Provide a one-sentence caption for the provided image."

STRIPPED = "answers without the white space around them"


@dataclasses.dataclass(frozen=True)
class PublishedSource(Source):
    """Examples of published files. images: reads the encoded image of a key, also in other processes."""

    name: str
    examples: Sequence[Example]
    images: Callable[[str], bytes]
    faults: Mapping[str, str]
    altered: Mapping[str, int]

    def read_image(self, key: str) -> bytes:
        return self.images(key)

    @property
    def reader(self) -> Callable[[str], bytes]:
        return self.images


class Notes:
    """What becomes of a file's rows while they are read: which are left out and why, what was done to others, and ids that no two examples share."""

    def __init__(self):
        self.rows = 0
        self.faults: dict[str, str] = {}
        self.altered: dict[str, int] = collections.defaultdict(int)
        self._copies: dict[str, int] = {}

    def fault(self, row: str, reason: object) -> None:
        self.faults[row] = " ".join(str(reason).split())

    def copy(self, id_: str) -> int:
        """1 for an id that is new, k for one that becomes `id#k` because the file has had it."""
        k = self._copies.get(id_, 0) + 1
        while k > 1 and f"{id_}#{k}" in self._copies:
            k += 1
        self._copies[id_] = k
        if k > 1:
            self._copies[f"{id_}#{k}"] = 1
            self.altered["ids made unique by a number, as the file repeats them"] += 1
        return k

    def need(self, where: str, examples: Sequence[Any]) -> None:
        """UserError where no row can be used."""
        if not len(examples):
            first = next((f": {row}: {reason}" for row, reason in self.faults.items()), "")
            raise UserError(f"{where}: none of its {self.rows} rows can be used{first}")


def source(name: str, file: File, notes: Notes, examples: Sequence[Example], folder: str) -> PublishedSource:
    """Of a file of rows, whose image keys are paths under the folder."""
    notes.need(shown(file.path), examples)
    return PublishedSource(f"{name}/{file.name}", examples, open_folder(folder).read, notes.faults, dict(notes.altered))


def numbered(id_: str, copy: int) -> str:
    return id_ if copy == 1 else f"{id_}#{copy}"


def paths(data_dir: str | os.PathLike, split: str, view: str) -> tuple[str, str]:
    """FILE and FOLDER of `NAME:FILE:FOLDER`, each relative to the data directory, absolute, or with a scheme, whose colon separates nothing."""
    parts = re.split(r":(?!//)", f"{split}:{view}")
    if len(parts) != 2 or not all(parts):
        raise UserError(f"{split}:{view}: is not FILE:FOLDER")
    file, folder = (join(os.fspath(data_dir), part) for part in parts)
    return file, folder


def read_json(file: File, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """pairs: makes what stands for each object, as json's object_pairs_hook."""
    try:
        return json.loads(file.read(), object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{shown(file.path)}: is not JSON: {' '.join(str(error).split())}") from None


def text(value: Any) -> str:
    """A text that can be written as UTF-8. ValueError otherwise: JSON can spell half of a character."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.80} is not a text")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{value!r:.80} holds half of a surrogate pair") from None
    return value


def answer(value: Any) -> str:
    """A caption or answer without the white space around it. ValueError where it is none, or marks the place of an image."""
    said = text(value).strip()
    if not said:
        raise ValueError("its answer is empty")
    if IMAGE_MARK in said:
        raise ValueError(f"its answer holds {IMAGE_MARK}, the mark of an image's place")
    return said
