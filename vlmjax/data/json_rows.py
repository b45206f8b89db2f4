"""Rows of a JSON list, or of JSONL, by number: where each one stands in its file is kept, and nothing of what it says."""
import array
import json
import re
import zlib
from collections.abc import Iterator
from typing import Any

from vlmjax.data.files_at import File, shown
from vlmjax.errors import UserError

# Read at a time while looking for rows.
_CHUNK = 16 << 20

_SPACE = re.compile(r"[ \t\n\r]*")
_scan = json.JSONDecoder().raw_decode


class Rows:
    """Some rows of a file in its order: 16 bytes each. A row is read when it is asked for, by any thread or process."""

    def __init__(self, file: File):
        self._file = file
        self._start, self._length, self._crc = array.array("q"), array.array("I"), array.array("I")

    def __len__(self) -> int:
        return len(self._start)

    def append(self, start: int, raw: bytes) -> None:
        self._start.append(start)
        self._length.append(len(raw))
        self._crc.append(zlib.crc32(raw))

    def __getitem__(self, i: int) -> Any:
        raw = self._file.read(self._start[i], self._start[i] + self._length[i])
        if zlib.crc32(raw) != self._crc[i]:
            raise UserError(f"{shown(self._file.path)}: has changed since it was opened; start again")
        return parse(raw)


def parse(raw: bytes) -> Any:
    """One row. ValueError where it is not JSON in UTF-8."""
    return json.loads(raw.decode())


def scan(file: File, lines: bool | None = None) -> Iterator[tuple[int, bytes]]:
    """(where it starts, its bytes) of each row: of each line that is not blank of a `.jsonl`, else of each element of the file's one list; lines: what a file is whose name does not tell.
    UserError for a file that is no such list, or stops inside of one; what a row says is not looked at."""
    return _lines(file) if (file.path.lower().endswith(".jsonl") if lines is None else lines) else _elements(file)


def _lines(file: File) -> Iterator[tuple[int, bytes]]:
    start, rest, size = 0, b"", file.size()
    for at in range(0, size, _CHUNK):
        *lines, rest = (rest + file.read(at, min(at + _CHUNK, size))).split(b"\n")
        for line in lines:
            yield from _line(start, line)
            start += len(line) + 1
    yield from _line(start, rest)


def _line(start: int, line: bytes) -> Iterator[tuple[int, bytes]]:
    if start == 0 and line.startswith(b"\xef\xbb\xbf"):  # a byte order mark
        start, line = 3, line[3:]
    if row := line.strip(b" \t\r"):
        yield start + line.index(row), row


def _elements(file: File) -> Iterator[tuple[int, bytes]]:
    window, place = _Window(file), shown(file.path)
    if window.text.startswith("\xef\xbb\xbf"):
        window.at = 3
    if window.next() != "[":
        raise UserError(f"{place}: is not a list of conversations") if window.whole() else UserError(f"{place}: is not JSON: {window.fault}")
    window.at += 1
    count = 0
    while (mark := window.next()) != "]":
        if count:
            if mark != ",":
                found = repr(mark) if mark else "the file ends"
                raise UserError(f"{place}: is not JSON: {found} after row {count - 1}, where a comma or the end of the list belongs")
            window.at += 1
            window.next()
        if not window.value():
            raise UserError(f"{place}: is not JSON: row {count}: {window.fault}")
        yield window.start, window.raw
        count += 1
    window.at += 1
    if window.next():
        raise UserError(f"{place}: is not JSON: goes on after its list of {count} rows")


class _Window:
    """A stretch of a file as text, one character per byte: JSON's own marks are ASCII, and what stands in a string does not matter here."""

    def __init__(self, file: File):
        self._file, self._size = file, file.size()
        self._base, self.at, self.text = 0, 0, ""
        self.start, self.raw, self.fault = 0, b"", ""
        self._more()

    def _more(self) -> bool:
        """Lets go of what has been passed and reads on, twice as much as is left so that a long row is not scanned too often."""
        end = self._base + len(self.text)
        if end >= self._size:
            return False
        self._base, self.text, self.at = self._base + self.at, self.text[self.at :], 0
        self.text += self._file.read(end, min(end + max(_CHUNK, len(self.text)), self._size)).decode("latin-1")
        return True

    def next(self) -> str:
        """The next character that is not white space, not passed yet; empty at the end of the file."""
        self.at = _SPACE.match(self.text, self.at).end()
        while self.at == len(self.text):
            if not self._more():
                return ""
            self.at = _SPACE.match(self.text, self.at).end()
        return self.text[self.at]

    def value(self) -> bool:
        """Passes one JSON value: `raw`, which begins at `start` in the file. False, with `fault`, where there is none."""
        while True:
            try:
                _, end = _scan(self.text, self.at)
                if end + 3 <= len(self.text) or not self._more():  # a number may go on, as 1 does in 1e+6
                    break
            except (ValueError, RecursionError) as error:
                if not self._more():
                    self.fault = f"{getattr(error, 'msg', 'is nested too deeply')} at byte {self._base + getattr(error, 'pos', self.at)}"
                    return False
        self.start, self.raw = self._base + self.at, self.text[self.at : end].encode("latin-1")
        self.at = end
        return True

    def whole(self) -> bool:
        """Whether the file is one JSON value of another kind."""
        return self.value() and not self.next()
