"""Bytes of files where they lie: on a disk, or in a store that fsspec knows (`gs://`, `s3://`, `memory://`; each needs its package).

A read opens its file anew and moves no position that others share: one object serves all threads, forked and spawned processes.
"""
import contextlib
import dataclasses
import glob
import io
import os
from collections.abc import Iterator

import fsspec

from vlmjax import files
from vlmjax.errors import UserError


def join(directory: str, path: str) -> str:
    """`path` under the directory, unless it stands by itself: absolute, or with a scheme."""
    return path if "://" in path or os.path.isabs(path) else f"{os.fspath(directory).rstrip('/')}/{path}"


def shown(path: str) -> str:
    """A path in a message of one line."""
    return path if path.isprintable() else repr(path)


class Missing(UserError):
    """There is no such file."""


@dataclasses.dataclass(frozen=True)
class File:
    """One file. `content`: held in memory, as every read of a store is a request."""

    path: str
    content: bytes | None = dataclasses.field(default=None, repr=False)

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]

    def read(self, start: int = 0, stop: int | None = None) -> bytes:
        """The bytes from `start` up to `stop` or the end. UserError where there are none to read."""
        if self.content is not None:
            return self.content[start:stop]
        with self._faults():
            if "://" in self.path:
                fs, path = fsspec.core.url_to_fs(self.path)
                return fs.cat_file(path, start, stop)
            with open(self.path, "rb", buffering=0) as file:
                file.seek(start)
                return _read(file, None if stop is None else stop - start)

    def size(self) -> int:
        """Its length in bytes."""
        if self.content is not None:
            return len(self.content)
        with self._faults():
            if "://" in self.path:
                fs, path = fsspec.core.url_to_fs(self.path)
                return fs.size(path)
            return os.path.getsize(self.path)

    def exists(self) -> bool:
        """Whether there is such a file or folder."""
        with self._faults():
            if "://" in self.path:
                fs, path = fsspec.core.url_to_fs(self.path)
                return fs.exists(path)
            return os.path.exists(self.path)

    def is_folder(self) -> bool:
        with self._faults():
            if "://" in self.path:
                fs, path = fsspec.core.url_to_fs(self.path)
                return fs.isdir(path)
            return os.path.isdir(self.path)

    def listing(self, suffix: str) -> list[str]:
        """The files in a folder whose names end with `suffix`, in whatever case, by name."""
        with self._faults():
            if "://" not in self.path:
                return sorted(entry.path for entry in os.scandir(self.path) if entry.name.lower().endswith(suffix) and entry.is_file())
            fs, path = fsspec.core.url_to_fs(self.path)
            names = (entry["name"].rsplit("/", 1)[-1] for entry in fs.ls(path) if entry["type"] == "file")
            return sorted(f"{self.path}/{name}" for name in names if name.lower().endswith(suffix))

    def matches(self) -> list[str]:
        """The files that its path describes, with `*`, `**`, `?` and `[…]`, by name."""
        with self._faults():
            if "://" not in self.path:
                return sorted(path for path in glob.glob(self.path, recursive=True) if os.path.isfile(path))
            fs, path = fsspec.core.url_to_fs(self.path)
            return sorted(fs.unstrip_protocol(name) for name, entry in fs.glob(path, detail=True).items() if entry["type"] == "file")

    def held(self) -> "File":
        """Itself on a disk; from a store, the whole file in memory."""
        return File(self.path, self.read()) if "://" in self.path else self

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        """What keeps a file from being read, as one line."""
        try:
            yield
        except FileNotFoundError:
            raise Missing(f"{shown(self.path)}: there is no such file") from None
        except Exception as error:  # stores raise what their packages define
            raise UserError(f"{shown(self.path)}: cannot be read: {files.reason(error)}") from None


def _read(file: io.RawIOBase, size: int | None) -> bytes:
    """All of `size` bytes, where an unbuffered read may stop earlier (Linux gives at most 2 GiB)."""
    if size is None:
        return file.readall()
    parts = []
    while size > 0 and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
