"""What every example costs, as a table: all that planning reads of a data set, whatever its size."""
import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

COLUMNS = ("head", "tail", "supervised", "images", "group")


class Lengths(NamedTuple):
    """What one example costs: tokens up to its last image (shared by its group), tokens after it, supervised tokens, images (a tile counts as
    one)."""

    head: int
    tail: int
    supervised: int
    images: int


@dataclasses.dataclass(frozen=True)
class LengthTable:
    """One number per example in each column, all i32[N].

    head: tokens up to the last image, image tokens included, which the examples of a group share; 0 without images. tail: tokens after
    it. supervised: supervised tokens. images: images, each tile of one and its thumbnail counted. group: examples with the same number show
    the same images behind the same text.
    faults: {index: reason} of examples that cost nothing, because they cannot be shown at all.
    """

    head: np.ndarray
    tail: np.ndarray
    supervised: np.ndarray
    images: np.ndarray
    group: np.ndarray
    faults: Mapping[int, str] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.tail)

    def digest(self) -> int:
        """A checksum of all that rows are planned by."""
        return zlib.crc32(b"".join(np.ascontiguousarray(getattr(self, name), np.int32).tobytes() for name in COLUMNS))

    def need(self, i: int) -> tuple[int, int, int]:
        """(tokens, images, supervised tokens) of example i in a row of its own."""
        return int(self.head[i] + self.tail[i]), int(self.images[i]), int(self.supervised[i])


def join(tables: Sequence[LengthTable]) -> LengthTable:
    """One table of all examples, one source after the other; groups stay apart."""
    columns = {name: np.concatenate([getattr(table, name) for table in tables]) for name in COLUMNS[:-1]}
    groups, faults, first, last = [], {}, 0, 0
    for table in tables:
        groups.append(table.group + last)
        faults.update({first + i: reason for i, reason in table.faults.items()})
        first += len(table)
        last += int(table.group.max(initial=-1)) + 1
    return LengthTable(**columns, group=np.concatenate(groups).astype(np.int32), faults=faults)
