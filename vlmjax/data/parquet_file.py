"""Parquet files by row group: what a group holds in some of its columns is read when it is asked for, and the last few are kept in each process."""
import bisect
import dataclasses
import functools
import itertools
import os
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import fsspec
import pyarrow
from pyarrow import parquet

from vlmjax import files
from vlmjax.data.files_at import File, shown
from vlmjax.errors import UserError

T = TypeVar("T")

# Row groups that a process keeps. huggingface/datasets writes 100 rows with images into one, some 30 MB; its texts are a hundredth of that.
KEPT = 4

_lock = threading.RLock()
os.register_at_fork(after_in_child=lambda: globals().update(_lock=threading.RLock()))  # the thread that held it is not in the child


@dataclasses.dataclass(frozen=True)
class ParquetFile:
    """One file. size: in bytes, as it was when it was opened; a file that has another one is not read. A pickle of it is these two."""

    path: str
    size: int

    @classmethod
    def open(cls, path: str) -> "ParquetFile":
        return cls(path, File(path).size())

    @functools.cached_property
    def starts(self) -> list[int]:
        """Rows before each row group, and all."""
        footer = _once(_footer, self.path, self.size)
        return [0, *itertools.accumulate(footer.row_group(i).num_rows for i in range(footer.num_row_groups))]

    @property
    def leaves(self) -> list[str]:
        """Its columns that hold values, each with the path to it: `image.path`, `texts.list.element.user`."""
        schema = _once(_footer, self.path, self.size).schema
        return [schema.column(i).path for i in range(len(schema))]

    def group(self, group: int, leaves: tuple[str, ...]) -> pyarrow.Table:
        """These leaves in a row group. UserError where it cannot be read."""
        return _once(_group, self.path, self.size, group, leaves)

    def row(self, row: int, leaves: tuple[str, ...]) -> dict[str, Any]:
        """These leaves in a row: {column: lists and dicts, cut down to them}."""
        group = bisect.bisect_right(self.starts, row) - 1
        return _rows(self.path, self.group(group, leaves).slice(row - self.starts[group], 1))[0]

    def rows(self, group: int, leaves: tuple[str, ...]) -> list[dict[str, Any]]:
        return _rows(self.path, self.group(group, leaves))

    def __reduce__(self):
        return type(self), (self.path, self.size)


def _once(read: Callable[..., T], *of: Any) -> T:
    """Reads in one thread at a time, so that none reads what another one is reading."""
    with _lock:
        return read(*of)


@functools.lru_cache(64)
def _footer(path: str, size: int) -> parquet.FileMetaData:
    return _with(path, size, None, lambda file: file.metadata)


@functools.lru_cache(KEPT)
def _group(path: str, size: int, group: int, leaves: tuple[str, ...]) -> pyarrow.Table:
    def read(file: parquet.ParquetFile) -> pyarrow.Table:
        table = file.read_row_group(group, columns=list(leaves), use_threads=False)  # Arrow's own threads are not in a forked process
        table.validate(full=True)  # offsets of a damaged file may lead anywhere
        if len(table) != file.metadata.row_group(group).num_rows:
            raise ValueError(f"row group {group} has {len(table)} rows, {file.metadata.row_group(group).num_rows} are promised")
        return table

    return _with(path, size, _footer(path, size), read)


def _with(path: str, size: int, footer: parquet.FileMetaData | None, use: Callable[[parquet.ParquetFile], T]) -> T:
    if File(path).size() != size:
        raise UserError(f"{shown(path)}: has changed since it was opened; start again")
    try:
        stream = fsspec.open(path, "rb") if "://" in path else open(path, "rb")
        with stream as opened, parquet.ParquetFile(opened, metadata=footer, page_checksum_verification=True) as file:
            return use(file)
    except Exception as error:  # Arrow and stores raise what they define
        raise UserError(f"{shown(path)}: is not a readable Parquet file: {files.reason(error)[:200]} (is the download complete?)") from None


def _rows(path: str, table: pyarrow.Table) -> list[dict[str, Any]]:
    try:
        return table.to_pylist()
    except (ValueError, OverflowError, pyarrow.ArrowException) as error:
        raise UserError(f"{shown(path)}: is not a readable Parquet file: {files.reason(error)[:200]}") from None
