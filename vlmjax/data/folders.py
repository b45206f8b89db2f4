"""Folders of images as they were published: files by key, in a folder, or in zip archives as they are."""
import dataclasses
import functools
import os
import posixpath
import re
import threading
from collections.abc import Callable
from typing import Protocol, TypeVar

from vlmjax.data.files_at import File, Missing, shown
from vlmjax.data.zip_archive import Directory
from vlmjax.errors import UserError

T = TypeVar("T")

_lock = threading.Lock()
os.register_at_fork(after_in_child=lambda: globals().update(_lock=threading.Lock()))  # the thread that held it is not in the child


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
            return Archive(path, _opened(_directory, archive), prefix)
    return PlainFolder(path.rstrip("/"))


@dataclasses.dataclass(frozen=True)
class PlainFolder:
    """A folder. An archive in it, or in a folder on the way to a key, counts as unpacked where it lies: `gqa/images/1.jpg` is found in `gqa/images.zip`
    as `images/1.jpg`, unless it is a file."""

    path: str

    def read(self, key: str) -> bytes:
        names = _inside(self.path, key).split("/")
        try:
            return File("/".join([self.path, *names])).read()
        except Missing:
            for i in reversed(range(len(names))):
                for directory in _opened(_in_folder, "/".join([self.path, *names[:i]])):
                    if directory.fault or directory.holds("/".join(names[i:])):
                        return directory.read("/".join(names[i:]))
            raise


@dataclasses.dataclass(frozen=True)
class Archive:
    """A folder inside a zip archive. A pickle of it holds the path alone."""

    path: str
    directory: Directory = dataclasses.field(repr=False)
    prefix: str = ""

    def read(self, key: str) -> bytes:
        name = _inside(self.path, key)
        return self.directory.read(f"{self.prefix}/{name}" if self.prefix else name)

    def __reduce__(self):
        return open_folder, (self.path,)


@functools.lru_cache(32)
def _directory(path: str) -> Directory:
    return Directory(File(path))


@functools.lru_cache(1024)
def _in_folder(path: str) -> list[Directory]:
    try:
        return [_directory(archive) for archive in File(path).listing(".zip")]
    except UserError:
        return []


def _opened(open_: Callable[[str], T], path: str) -> T:
    """Opens in one thread at a time, so that none reads a directory that another one is reading."""
    with _lock:
        return open_(path)


def _inside(folder: str, key: str) -> str:
    """The key without `.` and `..`; UserError where it leads out of the folder."""
    path = posixpath.normpath(key)
    if not key or "\0" in key or "://" in key or posixpath.isabs(key) or path in (".", "..") or path.startswith("../"):
        raise UserError(f"{shown(folder)}: {key!r} is not a path inside the folder")
    return path
