"""Features of images, by the SHA-256 of the encoded image, in ArrayRecord files: a folder that grows by whole parts.

    DIR/about.json           what made the features; DIR is named by the hash of it
    DIR/PART.array_record    one record per image: the bytes of its features, tile after tile
    DIR/PART.json            the file's length, the hash of each image and a checksum of its features; written last

A part counts when its JSON is there and its file has the length that stands in it, so that a kill leaves nothing that would be believed; the
checksum of a record is looked at whenever it is read.
"""
import os
import uuid
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader
from etils import epath

from vlmjax import files
from vlmjax.data import shards
from vlmjax.data.batch import Features
from vlmjax.errors import UserError

ABOUT = "about.json"


class Damaged(UserError):
    """Features that are not those that were written: a reason to stop, not a broken image."""


class Cache:
    """The features in a folder, by the SHA-256 of the image; read from any thread. incomplete: parts that do not count."""

    def __init__(self, directory: epath.PathLike, features: Features, about: Any):
        self.directory, self._features, self._about = epath.Path(directory), features, about
        self._where: dict[str, tuple[str, int, int]] = {}  # SHA-256 → (file, record, CRC-32)
        self._readers: dict[str, ArrayRecordReader] = {}
        self.incomplete: list[str] = []
        for path in sorted(self.directory.glob("*.json")) if self.directory.exists() else ():
            if path.name != ABOUT and not self._know(path):
                self.incomplete.append(path.name)

    def _know(self, path: epath.Path) -> bool:
        try:
            part = files.read_json(path)
            whole = (self.directory / part["file"]).stat().length == part["bytes"]
        except (UserError, OSError):
            return False
        if whole:
            self._where.update((sha, (part["file"], record, check)) for record, (sha, check) in enumerate(part["images"]))
        return whole

    def __contains__(self, sha: str) -> bool:
        return sha in self._where

    def read(self, sha: str) -> np.ndarray:
        """f[n, P, E] of the n tiles of an image that is there (n = 1 where nothing is cut)."""
        file, record, check = self._where[sha]
        path = self.directory / file
        try:
            reader = self._readers.get(file)
            if reader is None:
                reader = self._readers[file] = ArrayRecordReader(os.fspath(path))
            data = reader.read([record])[0]
        except (RuntimeError, ValueError, IndexError) as error:
            raise Damaged(f"{path}: cannot be read: {files.reason(error)[:200]}; remove {self.directory} and run again") from None
        if zlib.crc32(data) != check:
            raise Damaged(f"{path}: its record {record} is not what was written; remove {self.directory} and run again")
        return np.frombuffer(data, self._features.dtype).reshape(-1, self._features.patches, self._features.width)

    def write(self, encoded: Iterable[tuple[str, np.ndarray]]) -> None:
        """Adds a part: (SHA-256, f[n, P, E]) of images. Nothing to add is no part."""
        part, images = uuid.uuid4().hex[:12], []

        def records():
            for sha, values in encoded:
                data = np.ascontiguousarray(values, self._features.dtype).tobytes()
                images.append((sha, zlib.crc32(data)))
                yield data

        if not (self.directory / ABOUT).exists():
            files.write_json(self.directory / ABOUT, self._about)
        path = self.directory / f"{part}.array_record"
        try:
            written = shards.write_records(os.fspath(path), records(), "group_size:1,uncompressed")
        except (OSError, RuntimeError) as error:
            raise UserError(f"{path}: cannot be written: {files.reason(error)[:200]}") from None
        if not images:
            path.unlink()
            return
        files.write_json(self.directory / f"{part}.json", {"file": path.name, "bytes": written["bytes"], "images": images})
        self._know(self.directory / f"{part}.json")
