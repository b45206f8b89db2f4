"""Mixtures as InternVL publishes them, a meta file {NAME: {"root", "annotation", "data_augment", "repeat_time", "length"}} of LLaVA's rows as JSONL.

`internvl:META.json:all` is all its entries, each with its repetition, as one source; `internvl:META.json:NAME` is one of them, as the meta has it.
Paths in META are relative to the data directory, absolute, or gs://…; `root` may be a zip archive.

What becomes of an entry, after OpenGVLab/InternVL, LazySupervisedDataset in internvl_chat/internvl/train/internvl_chat_finetune.py at 2410d1d:

    annotation         a row is read as `llava` reads it, but as many marks as images stay where they are (preprocess_internvl2_5). A mark that stands in a
                       later question is the place of its image; InternVL would put the image first too and leave the mark as text
    root               in front of the paths of a row's images, which do not lead out of it
    repeat_time        below 1: the first int(rows x repeat_time) rows; a whole number: so many times. Others are refused: internvl_chat stops
                       there, internvl_chat_gpt_oss cuts them to a whole number
    data_augment       true is refused: images are not augmented here
    max_dynamic_patch  the stage's `tiles` counts, for each image; `altered` counts the conversations of entries that have a number of their own. InternVL also
                       divides the number among the images of a row
    length             says nothing to the training; `altered` says where the file has another number of rows
    left out           videos, and what `llava` leaves out

The k-th time around, an example's id begins with `internvl@k`. Image keys are ROOT/PATH, so that entries about one folder share its images.
"""
import bisect
import collections
import dataclasses
import functools
import itertools
import os
from collections.abc import Mapping, Sequence
from typing import Any

from vlmjax.data import json_rows
from vlmjax.data.datasets import llava, published
from vlmjax.data.datasets.published import PublishedSource
from vlmjax.data.example import Example, Lazy, Turn
from vlmjax.data.files_at import File, join, shown
from vlmjax.data.folders import Folder, open_folder
from vlmjax.errors import UserError, did_you_mean

NAME = "internvl"
ALL = "all"

# A repetition above this is taken for a slip.
MOST = 1000

TILES = "conversations whose images are cut as the stage's tiles says, and not as their entry's 'max_dynamic_patch'"


@dataclasses.dataclass(frozen=True)
class Entry:
    """One data set of a meta file."""

    root: str
    annotation: str
    repeat_time: float = 1
    data_augment: bool = False
    length: int | None = None
    max_dynamic_patch: int | None = None


@dataclasses.dataclass(frozen=True)
class Roots:
    """The folders of all entries as one; a key begins with the path of its folder. Of folders inside each other the inner one is asked."""

    path: str
    folders: Mapping[str, Folder]

    def read(self, key: str) -> bytes:
        root = max((root for root in self.folders if key.startswith(f"{root}/")), key=len, default=None)
        if root is None:
            raise UserError(f"{shown(self.path)}: {key!r} is under the root of none of its entries")
        return self.folders[root].read(key[len(root) + 1 :])


def build(data_dir: str | os.PathLike) -> None:
    raise UserError(f"{NAME}: its files are read as they are published; to build shards from them: vlmjax data build {NAME}:META.json:{ALL} --name=NAME")


def open_source(data_dir: str | os.PathLike, split: str, view: str) -> PublishedSource:
    """split: the meta file; view: `all`, or an entry's name."""
    return _open(os.fspath(data_dir), split, view)


@functools.lru_cache(4)
def _open(data_dir: str, split: str, view: str) -> PublishedSource:
    file = File(join(data_dir, split))
    meta = _meta(file)
    if view != ALL and view not in meta:
        raise UserError(f"{shown(file.path)}: has no entry {view!r}{did_you_mean(view, [ALL, *meta])}")
    chosen = meta if view == ALL else {view: meta[view]}
    parts, faults, altered = [], {}, {}
    for name, entry in chosen.items():
        notes, examples = _read(name, entry, data_dir)
        parts += [(1, examples)] if entry.repeat_time < 1 else [(k, examples) for k in range(1, int(entry.repeat_time) + 1)]
        faults |= {f"{name}: {row}": reason for row, reason in notes.faults.items()}
        for what, count in notes.altered.items():
            altered[what] = altered.get(what, 0) + count
    joined = _Joined(tuple(parts), tuple(itertools.accumulate(len(examples) for _, examples in parts)))
    folders = {_root(entry): open_folder(join(data_dir, entry.root)) for entry in chosen.values()}
    return PublishedSource(f"{NAME}/{file.name}" + (f"/{view}" if view != ALL else ""), Lazy(joined.ends[-1], joined), Roots(file.path, folders).read, faults, altered)


@dataclasses.dataclass(frozen=True)
class _Joined:
    """Makes the examples of all parts, one part after the other. parts: (the how-many-eth time around, examples); ends: examples up to each part's end."""

    parts: tuple[tuple[int, Sequence[Example]], ...]
    ends: tuple[int, ...]

    def __call__(self, i: int) -> Example:
        part = bisect.bisect_right(self.ends, i)
        time, examples = self.parts[part]
        example = examples[i - (self.ends[part - 1] if part else 0)]
        return example if time == 1 else dataclasses.replace(example, id=f"{NAME}@{time}{example.id.removeprefix(NAME)}")


def _root(entry: Entry) -> str:
    """What keys of an entry's images begin with; "" is the root of the disk."""
    return entry.root.rstrip("/") if entry.root else "."


def _read(name: str, entry: Entry, data_dir: str) -> tuple[published.Notes, Sequence[Example]]:
    file = File(join(data_dir, entry.annotation)).held()
    convert = functools.partial(_conversation, _root(entry), entry.max_dynamic_patch is not None)
    total = sum(1 for _ in json_rows.scan(file)) if entry.repeat_time < 1 else None
    notes, examples = llava.read(file, f"{NAME}/{name}", convert, None if total is None else int(total * entry.repeat_time))
    notes.need(f"{shown(file.path)} (entry {name!r}, repeat_time {entry.repeat_time:g})", examples)
    if entry.length is not None and (more := (total or notes.rows) - entry.length):
        notes.altered[f"rows that {shown(name)} has {'more' if more > 0 else 'less'} than the 'length' in its entry, {entry.length:,}"] = abs(more)
    return notes, examples


def _conversation(root: str, tiles: bool, row: Any) -> tuple[tuple[str, ...], tuple[Turn, ...], list[str]]:
    """As llava.conversation, with keys of `Roots`."""
    if isinstance(row, dict) and not row.get("image") and row.get("video"):
        raise ValueError("is about a video, which is not read here")
    images, turns, altered = llava.conversation(row, in_place=True)
    return tuple(f"{root}/{image}" for image in images), turns, altered + [TILES] * (tiles and bool(images))


def _meta(file: File) -> dict[str, Entry]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """Of equal names JSON's readers keep the last and say nothing."""
        for name, count in collections.Counter(name for name, _ in pairs).items():
            if count > 1:
                raise UserError(f"{shown(file.path)}: has {name!r} {count} times; give each entry a name of its own")
        return dict(pairs)

    content = published.read_json(file, once)
    if not isinstance(content, dict) or not content or not all(isinstance(value, dict) for value in content.values()):
        raise UserError(f"{shown(file.path)}: is not {{NAME: {{'root': …, 'annotation': …}}, …}}, as InternVL's meta files are")
    return {name: _entry(f"{shown(file.path)}: {name!r}", value) for name, value in content.items()}


def _entry(where: str, value: dict[str, Any]) -> Entry:
    known = [field.name for field in dataclasses.fields(Entry)]
    for key in value:
        if key not in known:
            raise UserError(f"{where}: has an unknown key {key!r}{did_you_mean(key, known)}")
    for key in ("root", "annotation"):
        if not isinstance(value.get(key), str) or not value[key].isprintable() or key == "annotation" and not value[key]:
            raise UserError(f"{where}: its {key!r} is a path, not {value.get(key)!r:.80}")
    entry = Entry(**value)
    times = entry.repeat_time
    if isinstance(times, bool) or not isinstance(times, (int, float)) or not 0 < times <= MOST:
        raise UserError(f"{where}: its 'repeat_time' is a number above 0, at most {MOST:,}, not {times!r:.80}; an entry that is not meant has no place in the file")
    if times > 1 and times % 1:
        raise UserError(f"{where}: its 'repeat_time' of {times:g} is above 1 and not whole, which InternVL refuses or cuts to {int(times)}; say which")
    if entry.data_augment is not False:
        raise UserError(f"{where}: its 'data_augment' is {entry.data_augment!r:.80}; images are not augmented here: set it to false")
    for key, number in (("length", entry.length), ("max_dynamic_patch", entry.max_dynamic_patch)):
        if number is not None and (isinstance(number, bool) or not isinstance(number, int)):
            raise UserError(f"{where}: its {key!r} is a whole number, not {number!r:.80}")
    return entry
