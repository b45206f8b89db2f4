"""WebDataset's shards, tar archives that stay packed: `webdataset:SHARDS:VIEW`.

SHARDS is a tar, a folder, a range `{00000..00331}.tar` or a pattern. Members of a shard whose names agree up to the first dot behind the last slash are
one sample, wherever they lie in it (webdataset joins neighbours alone); the rest of the name, in lower case, says what they are (its base_plus_ext). Of
a sample one member is an image (`IMAGES`), and VIEW names its text:

    txt             the .txt is a caption, an answer to `published.CAPTION_PROMPT`
    json.KEY        the caption is KEY of the .json
    conversations   the .json is a row of LLaVA's, which becomes what `llava` makes of it, about the sample's image whatever the row calls it;
                    a row that names none, in a sample without one, is text alone

Opening reads the headers and texts of all shards once; on a disk it skips the images, from a store it reads all. 44 bytes and its name are held of a
sample (and its text, where the shards lie in a store); an image is one read. Shards that are cut count as a fault and are read as far as they go.
"""
import array
import collections
import dataclasses
import functools
import os
import zlib
from collections.abc import Sequence
from typing import Any

from vlmjax.data import file_sets, json_rows, tar_archive
from vlmjax.data.datasets import llava, published
from vlmjax.data.datasets.published import CAPTION_PROMPT, PublishedSource
from vlmjax.data.example import IMAGE_MARK, Example, Lazy, Turn
from vlmjax.data.files_at import File, join, shown
from vlmjax.errors import UserError, did_you_mean

NAME = "webdataset"
SUFFIX = ".tar"
VIEWS = ("txt", "json.KEY", "conversations")
IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")

QUESTION = Turn("user", f"{IMAGE_MARK}\n{CAPTION_PROMPT}")
NAMELESS = "members of shards that belong to no sample, as their names have no suffix"

Converted = tuple[tuple[str, ...], tuple[Turn, ...], list[str]]


@dataclasses.dataclass(frozen=True)
class _Images:
    """Reads images by key, SHARD/START/SIZE/NAME: where an image lies in which shard."""

    shards: tuple[str, ...]

    def __call__(self, key: str) -> bytes:
        shard, start, size, _ = key.split("/", 3)
        return tar_archive.read(File(self.shards[int(shard)]), int(start), int(size))


def build(data_dir: str | os.PathLike) -> None:
    raise UserError(f"{NAME}: its shards are read as they are published; to build ArrayRecord from them: vlmjax data build {NAME}:SHARDS:VIEW --name=NAME")


@functools.lru_cache(4)
def open_source(data_dir: str | os.PathLike, split: str, view: str) -> PublishedSource:
    """split: the shards; view: which text."""
    if view not in VIEWS and not view.startswith("json.") or view in ("json.", "json.KEY"):
        raise UserError(f"{NAME}: {split}: no view {view!r}{did_you_mean(view, VIEWS)}")
    paths = file_sets.find(data_dir, split, SUFFIX)
    notes, made = published.Notes(), _Examples(view, file_sets.labels(paths))
    for path in paths:
        _read(path, made, notes)
    notes.need(shown(join(os.fspath(data_dir), split)), made.image_size)
    return PublishedSource(f"{NAME}/{split}", Lazy(len(made.image_size), made), _Images(tuple(paths)), notes.faults, dict(notes.altered))


def _read(path: str, made: "_Examples", notes: published.Notes) -> None:
    """Adds the samples of the next shard."""
    file, number = File(path), len(made.texts)
    label, suffix = made.labels[number], made.view.split(".")[0].replace("conversations", "json")
    samples: dict[str, dict[str, list[tar_archive.Member]]] = {}
    try:
        for member in tar_archive.members(file, lambda name: _split(name)[1] == suffix):
            key, kind = _split(member.name)
            if not key:
                notes.altered[NAMELESS] += 1
                continue
            held = samples.setdefault(key, collections.defaultdict(list))
            if kind == suffix or kind in IMAGES:
                held["text" if kind == suffix else "image"].append(member)
    except tar_archive.Damaged as error:
        notes.fault(label, error)
    store = bytearray() if "://" in path else None
    for key, held in samples.items():
        notes.rows += 1
        try:
            text, image = _only(held["text"]), _only(held["image"])
            if text is None:
                raise ValueError(f"has no .{suffix}")
            _, _, altered = made.convert(text.content, f"{number}/{image.start}/{image.size}/{key}" if image else None)
        except (ValueError, RecursionError) as error:
            notes.fault(f"{label}:{shown(key)}", error)
            continue
        for what in altered:
            notes.altered[what] += 1
        made.append(number, key, text.start if store is None else len(store), text.content, image)
        if store is not None:
            store += text.content
    made.texts.append(file if store is None else File(path, bytes(store)))


def _split(name: str) -> tuple[str, str]:
    """(what a sample's members share, what this one is); two empty ones for a name without a suffix."""
    folder, slash, base = name.removeprefix("./").rpartition("/")
    stem, _, kind = base.partition(".")
    return (folder + slash + stem, kind.lower()) if stem and kind else ("", "")


def _only(members: list[tar_archive.Member]) -> tar_archive.Member | None:
    if len(members) > 1:
        raise ValueError(f"has more than one of a kind: {', '.join(member.name for member in members):.200}")
    return members[0] if members else None


@dataclasses.dataclass(frozen=True)
class _Examples:
    """Makes the examples of samples. texts: by shard, what their texts are read from."""

    view: str
    labels: Sequence[str]
    texts: list[File] = dataclasses.field(default_factory=list)
    shard: array.array = dataclasses.field(default_factory=lambda: array.array("i"))
    keys: bytearray = dataclasses.field(default_factory=bytearray)
    key_end: array.array = dataclasses.field(default_factory=lambda: array.array("q", [0]))
    text_start: array.array = dataclasses.field(default_factory=lambda: array.array("q"))
    text_size: array.array = dataclasses.field(default_factory=lambda: array.array("I"))
    text_crc: array.array = dataclasses.field(default_factory=lambda: array.array("I"))
    image_start: array.array = dataclasses.field(default_factory=lambda: array.array("q"))  # 0: no image
    image_size: array.array = dataclasses.field(default_factory=lambda: array.array("q"))

    def append(self, shard: int, key: str, start: int, text: bytes, image: tar_archive.Member | None) -> None:
        self.shard.append(shard)
        self.keys.extend(key.encode())
        self.key_end.append(len(self.keys))
        self.text_start.append(start)
        self.text_size.append(len(text))
        self.text_crc.append(zlib.crc32(text))
        self.image_start.append(image.start if image else 0)
        self.image_size.append(image.size if image else 0)

    def __call__(self, i: int) -> Example:
        shard, key = self.shard[i], self.keys[self.key_end[i] : self.key_end[i + 1]].decode()
        text = self.texts[shard].read(self.text_start[i], self.text_start[i] + self.text_size[i])
        if zlib.crc32(text) != self.text_crc[i]:
            raise UserError(f"{shown(self.texts[shard].path)}: has changed since it was opened; start again")
        images, turns, _ = self.convert(text, f"{shard}/{self.image_start[i]}/{self.image_size[i]}/{key}" if self.image_start[i] else None)
        return Example(f"{NAME}/{self.labels[shard]}:{key}", images, turns)

    def convert(self, text: bytes, image: str | None) -> Converted:
        """As llava.conversation, of a sample's text and the key of its image. ValueError for one that cannot be used."""
        if self.view == "conversations":
            return _conversation(json_rows.parse(text), image)
        said: Any = text.decode()
        if self.view != "txt":
            row, key = json_rows.parse(text), self.view.removeprefix("json.")
            if not isinstance(row, dict) or key not in row:
                raise ValueError(f"its .json has no {key!r}")
            said = row[key]
        answer = published.answer(said)
        if image is None:
            raise ValueError("has no image")
        return (image,), (QUESTION, Turn("assistant", answer)), [published.STRIPPED] * (answer != said)


def _conversation(row: Any, image: str | None) -> Converted:
    named = row.get("image") if isinstance(row, dict) else None
    if isinstance(named, list) and len(named) > 1:
        raise ValueError(f"its .json names {len(named)} images, a sample has one")
    if named and image is None:
        raise ValueError(f"has no image, though its .json names {named!r:.80}")
    return llava.conversation({**row, "image": image} if isinstance(row, dict) else row)
