"""Files in a tar archive that nobody unpacks: its headers are read once, then each file with one read, by any thread or process.

The formats are POSIX's ustar and pax and GNU's, with their long names and large sizes (POSIX.1-2017, pax; GNU tar's manual, "Basic Tar Format").
"""
from collections.abc import Callable, Iterator
from typing import NamedTuple

from vlmjax.data.files_at import File, shown
from vlmjax.errors import UserError

BLOCK = 512

# Read at a time: on a disk a few small files and the header behind them; a store gives much at once or little, and is read through.
_CHUNK, _STORE_CHUNK = 16 << 10, 16 << 20

# A name longer than this is damage.
_LONGEST = 1 << 16

_FILES = (b"0", b"\0", b"7")
_NO_CONTENT = (b"1", b"2", b"3", b"4", b"5", b"6")  # links, devices, folders, pipes
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


class Member(NamedTuple):
    """A file of an archive. start, size: of its content, in bytes; content: where it was wanted."""

    name: str
    start: int
    size: int
    content: bytes | None


class Damaged(UserError):
    """An archive from which no more can be read than what was read before."""


def members(file: File, wanted: Callable[[str], bool]) -> Iterator[Member]:
    """The files of an archive in its order, with their content where their name is wanted. Links and folders are passed over. UserError for what is no
    archive, or a compressed one; Damaged where it is cut or broken further on."""
    place, total = shown(file.path), file.size()
    window = _Window(file, _STORE_CHUNK if "://" in file.path else _CHUNK)
    begin = window.get(0, BLOCK)
    for magic, kind in _COMPRESSED.items():
        if begin.startswith(magic):
            raise UserError(f"{place}: is compressed ({kind}): files in it have no place of their own that could be read; unpack it to a plain .tar")
    if not _sound(begin) and any(begin) or not begin:
        raise UserError(f"{place}: is not a tar archive")
    at, said = 0, {}
    while True:
        head = window.get(at, at + BLOCK)
        if len(head) < BLOCK:
            raise Damaged(f"{place}: {'ends inside a header' if head else 'has no end'} (is the download complete?)")
        if not any(head):
            break
        if not _sound(head):
            raise Damaged(f"{place}: is damaged at byte {at:,}")
        kind, name = head[156:157], said.get("path", _name(head))
        size = 0 if kind in _NO_CONTENT else said["size"] if "size" in said and kind in _FILES else _number(head[124:136])
        at += BLOCK
        if at + size > total:
            raise Damaged(f"{place}: ends inside {name!r} (is the download complete?)")
        if kind in (b"L", b"x"):
            if size > _LONGEST:
                raise Damaged(f"{place}: is damaged at byte {at:,}: a name of {size:,} bytes")
            content = window.get(at, at + size)
            said |= {"path": _text(content.split(b"\0")[0])} if kind == b"L" else _pax(content, f"{place}: is damaged at byte {at:,}")
        elif kind not in (b"K", b"g"):
            if kind in _FILES and not said.get("sparse"):
                yield Member(name, at, size, window.get(at, at + size) if wanted(name) else None)
            said = {}
        at += -(-size // BLOCK) * BLOCK
    if any(window.get(at, min(total, at + _CHUNK))):
        raise Damaged(f"{place}: goes on behind its end at byte {at:,}, where nothing is read (several archives in one?)")


def read(file: File, start: int, size: int) -> bytes:
    """The content of a member. UserError where it is not there any more."""
    data = file.read(start - BLOCK, start + size)
    if len(data) != BLOCK + size or not _sound(data[:BLOCK]) or data[156:157] not in _FILES or _number(data[124:136]) != size:
        raise UserError(f"{shown(file.path)}: has changed since it was opened; start again")
    return data[BLOCK:]


class _Window:
    """A stretch of a file, so that what lies close together is read at once."""

    def __init__(self, file: File, chunk: int):
        self._file, self._chunk, self._start, self._held = file, chunk, 0, b""

    def get(self, start: int, stop: int) -> bytes:
        """The bytes from start to stop, or to the end of the file."""
        if not self._start <= start <= stop <= self._start + len(self._held):
            self._start, self._held = start, self._file.read(start, max(stop, start + self._chunk))
        return self._held[start - self._start : stop - self._start]


def _sound(head: bytes) -> bool:
    """Whether a header's sum is the one that it says, which counts its own eight places as blanks, and its size a number."""
    try:
        _number(head[124:136])
        return len(head) == BLOCK and _number(head[148:156]) == sum(head) - sum(head[148:156]) + 8 * ord(" ")
    except ValueError:
        return False


def _number(field: bytes) -> int:
    """Octal digits or, marked by the highest bit, bytes. ValueError otherwise."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:])
    digits = field.split(b"\0")[0].strip()
    if digits and not digits.isdigit():
        raise ValueError(f"{field!r} is not a number")
    return int(digits or b"0", 8)


def _name(head: bytes) -> str:
    name, prefix = (part.split(b"\0")[0] for part in (head[:100], head[345:500]))
    return _text(prefix + b"/" + name if head[257:263] == b"ustar\0" and prefix else name)


def _text(name: bytes) -> str:
    return name.decode(errors="backslashreplace")


def _pax(content: bytes, where: str) -> dict:
    """What an extended header says of the member behind it: records of `LENGTH KEY=VALUE` and a line's end."""
    found, at = {}, 0
    try:
        while at < len(content):
            length = int(content[at : content.index(b" ", at)])
            key, value = content[content.index(b" ", at) + 1 : at + length - 1].split(b"=", 1)
            if length < 5:
                raise ValueError("a record of no length")
            at += length
            if key == b"path":
                found["path"] = _text(value)
            elif key == b"size":
                found["size"] = int(value)
            elif key.startswith(b"GNU.sparse"):
                found["sparse"] = True
        if found.get("size", 0) < 0:
            raise ValueError("a size below 0")
    except ValueError:
        raise Damaged(where) from None
    return found
