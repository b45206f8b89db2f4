"""Bytes of files as they were published: of a file, of a folder by key, of a zip archive that nobody unpacks, on a disk or in a store that fsspec knows
(`gs://`, `s3://`, `memory://`; each needs its package).

A read opens its file anew and moves no position that others share: one object serves all threads, forked and spawned processes.
"""
import array
import contextlib
import dataclasses
import functools
import io
import os
import posixpath
import re
import struct
import zlib
from collections.abc import Iterator
from typing import Protocol

import fsspec

from vlmjax.errors import UserError

STORED, DEFLATED = 0, 8

# An archive's end: 22 bytes, a comment of at most 65,535, and before it 76 of the large form.
_TAIL = 76 + 22 + 65_535

# The extra field of a local header may be longer than the directory's; what is read beyond it saves a second request.
_SLACK = 256


def join(directory: str, path: str) -> str:
    """`path` under the directory, unless it stands by itself: absolute, or with a scheme."""
    return path if "://" in path or os.path.isabs(path) else f"{os.fspath(directory).rstrip('/')}/{path}"


def shown(path: str) -> str:
    """A path in a message of one line."""
    return path if path.isprintable() else repr(path)


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

    def held(self) -> "File":
        """Itself on a disk; from a store, the whole file in memory."""
        return File(self.path, self.read()) if "://" in self.path else self

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        """What keeps a file from being read, as one line."""
        try:
            yield
        except FileNotFoundError:
            raise UserError(f"{shown(self.path)}: there is no such file") from None
        except Exception as error:  # stores raise what their packages define
            reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"{shown(self.path)}: cannot be read: {reason}") from None


class Folder(Protocol):
    """Files by key, a path of `/`-joined names inside the folder. Nothing is looked for before it is read."""

    path: str

    def read(self, key: str) -> bytes:
        """UserError, naming folder and key: no such file, not readable, or a key that leads out of the folder."""


def open_folder(path: str) -> Folder:
    """A folder, or an archive: `images.zip`, `images.zip/some/prefix`."""
    for end in re.finditer(r"\.zip(?=/|$)", path, re.IGNORECASE):
        archive, prefix = path[: end.end()], path[end.end() + 1 :].strip("/")
        if "://" in archive or not os.path.isdir(archive):
            return Archive(path, _directory(archive), prefix)
    return PlainFolder(path.rstrip("/"))


@dataclasses.dataclass(frozen=True)
class PlainFolder:
    path: str

    def read(self, key: str) -> bytes:
        return File(f"{self.path}/{_inside(self.path, key)}").read()


@dataclasses.dataclass(frozen=True)
class Archive:
    """A folder inside a zip archive. A pickle of it holds the path alone."""

    path: str
    directory: "_Directory" = dataclasses.field(repr=False)
    prefix: str = ""

    def read(self, key: str) -> bytes:
        name = _inside(self.path, key)
        return self.directory.read(f"{self.prefix}/{name}" if self.prefix else name)

    def __reduce__(self):
        return open_folder, (self.path,)


class _Directory:
    """Where each file of an archive lies: 558,128 files in about 100 MB. An archive that cannot be read says so when a file is asked for."""

    def __init__(self, path: str):
        self._file, self._fault = File(path), ""
        self._index: dict[bytes, int] = {}  # name → row of `_rows`; of equal names the last, as zipfile does
        self._rows = array.array("q")  # start of the local header, packed size, size, CRC, method (−1: encrypted)
        try:
            for i, (name, row) in enumerate(_entries(self._file)):
                self._index[name] = i
                self._rows.extend(row)
        except UserError as error:
            self._fault = str(error)
        except (struct.error, IndexError):
            self._fault = f"{shown(path)}: is not a readable zip archive: its directory is cut short"

    def read(self, name: str) -> bytes:
        if self._fault:
            raise UserError(self._fault)
        where = f"{shown(self._file.path)}: {name!r}"
        i = self._index.get(name.encode(errors="surrogatepass"))
        if i is None:
            raise UserError(f"{where}: there is no such file in the archive")
        start, packed, size, crc, method = self._rows[5 * i : 5 * i + 5]
        if method not in (STORED, DEFLATED):
            raise UserError(f"{where}: {'is encrypted' if method < 0 else f'is packed by method {method}, not stored or deflated'}; unpack the archive")
        # Local header: 30 bytes, of which the last four are the lengths of a name and of an extra field, both before the data.
        data = self._file.read(start, start + 30 + len(name.encode()) + _SLACK + packed)
        begin = 30 + int.from_bytes(data[26:28], "little") + int.from_bytes(data[28:30], "little")
        if begin + packed > len(data):
            data = self._file.read(start, start + begin + packed)
        try:
            content = data[begin : begin + packed]
            if method == DEFLATED:
                content = zlib.decompress(content, -15)
        except zlib.error:
            content = b""
        if data[:4] != b"PK\3\4" or len(content) != size or zlib.crc32(content) != crc:
            raise UserError(f"{where}: is damaged, or the archive has changed since it was opened")
        return content


def _entries(file: File) -> Iterator[tuple[bytes, tuple[int, int, int, int, int]]]:
    """(name in UTF-8, row of `_Directory`) of each file of an archive (PKWARE's APPNOTE.TXT 6.3, sections 4.3.12 to 4.3.16 and 4.5.3)."""
    total = file.size()
    tail = file.read(max(0, total - _TAIL), total)
    end = tail.rfind(b"PK\5\6")
    if end < 0:
        raise UserError(f"{shown(file.path)}: is not a readable zip archive: it has no directory at its end (is the download complete?)")
    size, start = struct.unpack_from("<2I", tail, end + 12)
    last = total - len(tail) + end  # where the directory ends
    if end >= 76 and tail[end - 20 : end - 16] == b"PK\6\7":  # its large form (zip64) stands before it
        size, start = struct.unpack_from("<2Q", tail, end - 76 + 40)
        last -= 76
    shift = last - size - start  # of an archive that something was put in front of
    directory = file.read(last - size, last) if shift >= 0 else b""
    if shift < 0 or len(directory) != size:
        raise UserError(f"{shown(file.path)}: is not a readable zip archive: its directory is cut short")
    at = 0
    while at < size:
        mark, flags, method, crc, packed, unpacked, name, extra, comment, start = struct.unpack_from("<4s4x2H4x3I3H8xI", directory, at)
        if mark != b"PK\1\2":
            raise UserError(f"{shown(file.path)}: is not a readable zip archive: its directory is damaged at byte {last - size + at}")
        at += 46
        text = directory[at : at + name]
        if 0xFFFFFFFF in (packed, unpacked, start):
            unpacked, packed, start = _large(directory[at + name : at + name + extra], unpacked, packed, start)
        at += name + extra + comment
        if not flags & 0x800 and not text.isascii():
            text = text.decode("cp437").encode()
        yield text, (start + shift, packed, unpacked, crc, -1 if flags & 1 else method)


def _large(extra: bytes, *fields: int) -> list[int]:
    """Sizes and offset of an entry; those that need more than 32 bits stand in field 1 of its extra data, in this order."""
    at = 0
    while at < len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            at += 4
            out = []
            for field in fields:
                out.append(field if field != 0xFFFFFFFF else struct.unpack_from("<Q", extra, at)[0])
                at += 8 * (field == 0xFFFFFFFF)
            return out
        at += 4 + length
    return list(fields)


@functools.lru_cache(32)
def _directory(path: str) -> _Directory:
    return _Directory(path)


def _read(file: io.RawIOBase, size: int | None) -> bytes:
    """All of `size` bytes, where an unbuffered read may stop earlier (Linux gives at most 2 GiB)."""
    if size is None:
        return file.readall()
    parts = []
    while size > 0 and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _inside(folder: str, key: str) -> str:
    """The key without `.` and `..`; UserError where it leads out of the folder."""
    path = posixpath.normpath(key)
    if not key or "\0" in key or "://" in key or posixpath.isabs(key) or path in (".", "..") or path.startswith("../"):
        raise UserError(f"{shown(folder)}: {key!r} is not a path inside the folder")
    return path
