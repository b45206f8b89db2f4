"""A data set that `vlmjax data build` wrote as shards, by its name under the data directory: `built:NAME:all`, or a part `built:NAME[:1000]:all`."""
import functools
import os
import re
from collections.abc import Mapping, Sequence

from vlmjax.data import facts, shards
from vlmjax.data.example import Example, Part, Source
from vlmjax.data.files_at import join
from vlmjax.errors import UserError

NAME = "built"
_SPLIT = re.compile(r"(?P<name>.+?)(\[(?P<start>\d*):(?P<stop>\d*)\])?")


class BuiltSource(Source):
    """A built set, or a part of its examples."""

    def __init__(self, directory: str, part: slice = slice(None)):
        self._directory, store = shards.mirror(directory)
        self.manifest = shards.read_manifest(self._directory)
        entries = {kind: [entry for entry in self.manifest["files"] if entry["file"].startswith(kind)] for kind in ("examples", "images")}
        rows = range(self.manifest["examples"])[part]
        self.part = Part(self._directory, rows, self.manifest["examples"])
        self.name = f"{NAME}/{directory.rsplit('/', 1)[-1]}" + (f"[{rows.start}:{rows.stop}]" if part != slice(None) else "")
        self.faults: Mapping[str, str] = self.manifest["left_out"]
        self.altered: Mapping[str, int] = self.manifest["altered"]
        self.examples = Examples(shards.Records(self._directory, entries["examples"], store), rows)
        self._images = shards.Records(self._directory, entries["images"], store)

    def read_image(self, key: str) -> bytes:
        shard, index, original = key.split("/", 2)
        data = self._images.read(int(shard), int(index))
        if not data:
            raise UserError(f"{original}: was missing when {self.name} was built")
        return data

    @functools.cached_property
    def facts(self) -> facts.ImageFacts:
        return facts.load(self._directory / shards.IMAGES)


class Examples(Sequence):
    """Examples read from their shard when they are asked for."""

    def __init__(self, records: shards.Records, part: range):
        self._records, self._part = records, part

    def __len__(self) -> int:
        return len(self._part)

    def __getitem__(self, i: int) -> Example:
        return shards.parse(self._records[self._part[i]])


def build(data_dir: str | os.PathLike) -> None:
    raise UserError(f"{NAME}: name what to build from: vlmjax data build llava:FILE:FOLDER --name=NAME")


def open_source(data_dir: str | os.PathLike, split: str, view: str) -> BuiltSource:
    """split: the name of the set under `data_dir`, or its path (on a disk, gs://…), and optionally a part by examples; view: `all`."""
    match = _SPLIT.fullmatch(split)
    if view != "all" or not match:
        raise UserError(f"{NAME}: {split}:{view} is not NAME:all or NAME[START:STOP]:all")
    part = slice(*(int(match[end]) if match[end] else None for end in ("start", "stop")))
    return _open(join(os.fspath(data_dir), match["name"]), part.start, part.stop)


@functools.lru_cache(8)
def _open(directory: str, start: int | None, stop: int | None) -> BuiltSource:
    source = BuiltSource(directory, slice(start, stop))
    if not len(source.examples):
        raise UserError(f"{directory}: has {source.manifest['examples']} examples, none between {start or 0} and {stop}")
    return source
