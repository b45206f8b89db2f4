"""Conversations as LLaVA publishes them: a JSON list, or JSONL, of {"id", "image", "conversations": [{"from": "human", "value": …}, …]}.

`llava:FILE:FOLDER` reads FILE, whose `image` entries lie under FOLDER; both relative to the data directory, or absolute. Nothing is built.
"""
import dataclasses
import functools
import json
import os
from collections.abc import Mapping
from typing import Any

from etils import epath

from vlmjax.data.example import IMAGE_MARK, Example, Turn
from vlmjax.errors import UserError

NAME = "llava"
ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}


@dataclasses.dataclass(frozen=True)
class LlavaSource:
    """A file of conversations (a `Source`). Image keys are paths under `folder`."""

    name: str
    folder: epath.Path
    examples: list[Example]

    def read_image(self, key: str) -> bytes:
        try:
            return (self.folder / key).read_bytes()
        except FileNotFoundError:
            raise UserError(f"{self.folder / key}: there is no such file") from None


def build(data_dir: str | os.PathLike) -> None:
    raise UserError(f"{NAME}: its JSON files are read as they are published; there is nothing to build")


def open_source(data_dir: str | os.PathLike, split: str, view: str) -> LlavaSource:
    """split: the file; view: the folder of its images."""
    return _open(os.fspath(data_dir), split, view)


@functools.lru_cache(8)
def _open(data_dir: str, file: str, folder: str) -> LlavaSource:
    path = epath.Path(data_dir) / file
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        rows = [json.loads(line) for line in text.splitlines() if line.strip()] if path.suffix == ".jsonl" else json.loads(text)
    except ValueError as error:
        raise UserError(f"{path}: is not JSON: {error}") from None
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{path}: is not a list of conversations")
    return LlavaSource(f"{NAME}/{path.name}", epath.Path(data_dir) / folder, [_example(row, f"{path}[{i}]", i) for i, row in enumerate(rows)])


def _example(row: Any, where: str, index: int) -> Example:
    """One entry. As in LLaVA's own code, an answer that leads is dropped, and the marks of a turn come first in it, each on a line of its own
    (llava/train/train.py: preprocess_multimodal, preprocess_v1)."""
    if not isinstance(row, Mapping) or not isinstance(row.get("conversations"), list):
        raise UserError(f"{where}: has no list 'conversations'")
    images = row.get("image") or ()
    images = (images,) if isinstance(images, str) else tuple(images)
    turns = []
    for turn in row["conversations"]:
        if not isinstance(turn, Mapping) or turn.get("from") not in ROLES or not isinstance(turn.get("value"), str):
            raise UserError(f"{where}: a turn is {{'from': 'human' or 'gpt', 'value': text}}, not {turn!r:.80}")
        role, text = ROLES[turn["from"]], turn["value"]
        if not turns and role == "assistant":
            continue
        if marks := text.count(IMAGE_MARK):
            text = (f"{IMAGE_MARK}\n" * marks + text.replace(IMAGE_MARK, "").strip()).strip()
        turns.append(Turn(role, text))
    if not any(turn.role == "assistant" for turn in turns):
        raise UserError(f"{where}: holds no answer")
    try:
        return Example(f"{NAME}/{row.get('id', index)}", images, tuple(turns))
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
