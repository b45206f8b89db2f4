"""Questions and their images in one table of tab-separated values, as MMBench and VLMEvalKit publish them: a line of names, cells that hold tabs, line breaks or quotes in quotes, and an image as base64 in the column `image`, where
a number of at most 64 digits is the `index` of the row that has it. An image is read when it is asked for."""
import base64
import binascii
import csv
import dataclasses
import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence

from vlmjax.data.files_at import File, shown
from vlmjax.errors import UserError

_CHUNK = 16 << 20  # bytes read at a time
_REFERENCE = 64  # characters: an image is longer
_LONGEST = 2**31 - 1  # characters of a cell, where csv refuses more than 131,072


@dataclasses.dataclass(frozen=True)
class Images:
    """Encoded images by key, the index of the first row that has this image. spans: where that row stands in the file."""

    file: File
    columns: tuple[str, ...]
    spans: Mapping[str, tuple[int, int]]

    def __call__(self, key: str) -> bytes:
        place = shown(self.file.path)
        if key not in self.spans:
            raise UserError(f"{place}: has no image {key!r}")
        try:
            (cells,) = _parsed(iter(io.StringIO(self.file.read(*self.spans[key]).decode(), newline="")))
        except (ValueError, csv.Error):
            cells = []
        row = dict(zip(self.columns, cells))
        if row.get("index") != key:
            raise UserError(f"{place}: has changed since it was opened; start again")
        try:
            return base64.b64decode(row["image"], validate=True)
        except binascii.Error as error:
            raise UserError(f"{place}: index {key}: its image is not base64: {error}") from None


def read(file: File, need: Sequence[str]) -> tuple[list[dict[str, str]], Images]:
    """→ (rows, their images). In a row `image` is the key of its image; rows with the same image have one key. need: columns beside `index` and `image` that there must be."""
    place = shown(file.path)
    file = file.held()
    cells = _rows(file)
    try:
        _, _, columns = next(cells)
    except StopIteration:
        raise UserError(f"{place}: is empty") from None
    if missing := [name for name in ("index", "image", *need) if name not in columns]:
        raise UserError(f"{place}: has no column {missing[0]!r}; it has {', '.join(columns):.200}")
    rows: dict[str, dict[str, str]] = {}
    spans: dict[str, tuple[int, int]] = {}
    first: dict[bytes, str] = {}
    for number, (start, stop, values) in enumerate(cells):
        if len(values) != len(columns):
            raise UserError(f"{place}: row {number}: has {len(values)} cells, not {len(columns)}")
        row = dict(zip(columns, values))
        key = row["index"]
        if key in rows:
            raise UserError(f"{place}: row {number}: its index {key!r} is another row's too")
        if len(row["image"]) > _REFERENCE:
            same = first.setdefault(hashlib.sha256(row["image"].encode()).digest(), key)
            if same == key:
                spans[key] = start, stop
            row["image"] = same
        rows[key] = row
    for key, row in rows.items():
        if row["image"] not in spans:
            held = rows.get(row["image"])
            if held is None or held["image"] not in spans:
                raise UserError(f"{place}: index {key}: its image {row['image']!r} is neither base64 nor the index of a row with an image")
            row["image"] = held["image"]
    return list(rows.values()), Images(file, tuple(columns), spans)


def _rows(file: File) -> Iterator[tuple[int, int, list[str]]]:
    """(where it starts, where it ends, cells) of each row that is not blank."""
    end = 0

    def lines() -> Iterator[str]:
        nonlocal end
        for line in _lines(file):
            end += len(line)
            yield line.decode().removeprefix("\ufeff" if end == len(line) else "")

    start, parsed = 0, _parsed(lines())
    while True:
        try:
            cells = next(parsed)
        except StopIteration:
            return
        except (ValueError, csv.Error) as error:
            raise UserError(f"{shown(file.path)}: after byte {start}: is not a table of UTF-8: {error}") from None
        if cells:
            yield start, end, cells
        start = end


def _parsed(lines: Iterator[str]) -> Iterator[list[str]]:
    csv.field_size_limit(_LONGEST)
    return csv.reader(lines, delimiter="\t")


def _lines(file: File) -> Iterator[bytes]:
    """With their ends."""
    rest, size = b"", file.size()
    for at in range(0, size, _CHUNK):
        *lines, rest = (rest + file.read(at, min(at + _CHUNK, size))).split(b"\n")
        for line in lines:
            yield line + b"\n"
    if rest:
        yield rest
