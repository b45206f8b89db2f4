"""Several examples in one row: a pure function of lengths, seed and epoch."""
import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vlmjax.data.lengths import LengthTable

# A row is a tuple of pieces, a piece a tuple of examples (indexes into the table) that share one head.
Row = tuple[tuple[int, ...], ...]

# So many pieces wait, at least, for a row in which they fit; 256 or 512 fill no better, 64 do less well.
WAITING = 128
# A row is finished with a pair when it has room for less than this many pieces of the mean size: with 2.2 or 3 rows are less full.
NEARLY_FULL = 2.5

# Budgets are tried on so many examples, against these bars.
TRIED = 10_000
REAL_TOKENS, REAL_IMAGES = 0.95, 0.80


@dataclasses.dataclass(frozen=True, eq=False)
class Plan(Sequence):
    """The rows of an epoch, in three arrays of at most 12 bytes an example.

        [(4 2) (7)] [(1)]     examples  4 2 7 1      i32[n]
                              pieces    0   2 3 4    i32[p + 1]: where each piece begins in examples
                              rows      0     2 3    i32[r + 1]: where each row begins in pieces

    An index gives a Row, a slice another Plan.
    """

    examples: np.ndarray
    pieces: np.ndarray
    rows: np.ndarray

    def __post_init__(self):
        for field in dataclasses.fields(self):
            array = np.ascontiguousarray(getattr(self, field.name), np.int32)
            array.flags.writeable = False
            object.__setattr__(self, field.name, array)

    def __len__(self) -> int:
        return len(self.rows) - 1

    def __getitem__(self, index: int | slice) -> "Row | Plan":
        if isinstance(index, slice):
            pieces, rows = _runs(self.rows, np.arange(len(self))[index])
            examples, starts = _runs(self.pieces, pieces)
            return Plan(self.examples[examples], starts, rows)
        row = range(len(self))[index]
        starts = self.pieces[self.rows[row] : self.rows[row + 1] + 1].tolist()
        return tuple(tuple(self.examples[start:end].tolist()) for start, end in zip(starts, starts[1:]))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Plan):
            return NotImplemented
        return all(np.array_equal(getattr(self, field.name), getattr(other, field.name)) for field in dataclasses.fields(self))


class Budget(NamedTuple):
    """What a row has room for, beside its tokens."""

    images: int
    targets: int


class Usage(NamedTuple):
    """How many rows, and the share of their places that hold something real (1 where there are no places)."""

    rows: int
    tokens: float
    image_slots: float
    supervised: float


def plan(table: LengthTable, drawn: np.ndarray, length: int, images: int, targets: int, per_group: int, seed: int, epoch: int) -> Plan:
    """The rows of an epoch: every drawn example (i64[n], indexes into the table) once, each row within `length` tokens, `images` images
    and `targets` supervised tokens. An example that is drawn twice is in two pieces. ValueError: an example that fits no row.

    The examples of a group share their images and head, which a row holds once for each piece of at most `per_group` examples; an
    example without images has no head, and is a piece:

        groups   A: a b c      B: d        C: e f                    per_group 2
        pieces   A(c a) A(b)   B(d)        C(f e)                    shuffled inside the group, then cut
        rows     [C(f e) A(b)] [A(c a) B(d)]                         pieces shuffled, then packed; rows shuffled
    """
    drawn = np.asarray(drawn, np.int64)
    _check(table, drawn, (length, images, targets))
    rng = np.random.default_rng((seed, epoch))
    examples, cuts = _cut(table, rng.permutation(drawn), length, targets, per_group)
    pieces = rng.permutation(len(cuts) - 1)
    order, rows = _pack(np.ascontiguousarray(_need(table, examples, cuts)[pieces].T, np.int32), (length, images, targets))
    # Rows are finished with what fits, so long and short ones drift; the last shuffle takes that out of the epoch.
    order_of_rows, rows = _runs(rows, rng.permutation(len(rows) - 1))
    members, starts = _runs(cuts, pieces[order[order_of_rows]])
    return Plan(examples[members], starts, rows)


def usage(plan: Plan, table: LengthTable, length: int, images: int, targets: int) -> Usage:
    """What of the plan's places is real."""
    used = _held(plan, table).sum(axis=0).tolist()
    shares = [real / (len(plan) * size) if len(plan) * size else 1.0 for real, size in zip(used, (length, images, targets))]
    return Usage(len(plan), *shares)


def choose(table: LengthTable, drawn: np.ndarray, length: int, per_group: int = 1) -> Budget:
    """Small budgets of images and supervised tokens that every drawn example fits and that leave rows full; tried on a sample.

    95 % of the tokens and 80 % of the image slots are real where the data allow both, and otherwise both bars are missed by as little as
    can be. The budget of supervised tokens costs at most 1 % more rows. ValueError: an example that fits no row.
    """
    drawn = np.asarray(drawn, np.int64)
    _check(table, drawn, (length, np.inf, np.inf))
    most_images, most_targets = (int(column[drawn].max(initial=0)) for column in (table.images, table.supervised))
    group = table.group[drawn]
    # Groups are tried whole, since their examples share a head.
    mixed = np.random.default_rng(0).permutation(int(group.max(initial=-1)) + 1)[group]
    sample = drawn[mixed.argsort(kind="stable")[:TRIED]]

    def tried(images: int, targets: int) -> Plan:
        return plan(table, sample, length, images, targets, per_group, 0, 0)

    def merit(images: int) -> tuple[float, float, int]:
        _, tokens, image_slots, _ = usage(tried(images, length), table, length, images, length)
        return min(tokens / REAL_TOKENS, image_slots / REAL_IMAGES, 1.0), round(tokens, 2), -images

    shown = _held(tried(length * most_images, length), table)[:, 1]  # images of rows that have room for any number
    low, high = (max(most_images, int(count)) for count in (shown.mean(), shown.max())) if len(shown) else (0, 0)
    images = max(sorted({round(count) for count in np.linspace(low, min(high, 2 * low), 6)}), key=merit)
    free = tried(images, length)
    answers = _held(free, table)[:, 2]
    for share in (0.5, 0.75, 0.9, 0.97, 1.0):
        targets = max(most_targets, int(np.quantile(answers, share)) if len(answers) else 0)
        if len(tried(images, targets)) <= 1.01 * len(free):
            break
    return Budget(images, targets)


def _check(table: LengthTable, drawn: np.ndarray, room: tuple) -> None:
    need = np.stack([table.head[drawn] + table.tail[drawn], table.images[drawn], table.supervised[drawn]], axis=1)
    if (over := (need > room).any(axis=1)).any():
        i = int(over.argmax())
        raise ValueError("example {}: {} tokens, {} images and {} supervised tokens do not fit a row".format(drawn[i], *need[i]))


def _held(plan: Plan, table: LengthTable) -> np.ndarray:
    """(tokens, images, supervised tokens) of each row, i64[r, 3]."""
    return np.add.reduceat(_need(table, plan.examples, plan.pieces), plan.rows[:-1]) if len(plan) else np.zeros((0, 3), np.int64)


def _runs(starts: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Run k lies at starts[k] … starts[k + 1]. Indexes of all in the runs `which`, end to end, and where each of these now begins."""
    sizes = starts[which + 1] - starts[which]
    begins = np.concatenate([[0], np.cumsum(sizes)])
    return np.arange(begins[-1]) + np.repeat(starts[which] - begins[:-1], sizes), begins


def _need(table: LengthTable, examples: np.ndarray, pieces: np.ndarray) -> np.ndarray:
    """(tokens, images, supervised tokens) of each piece, i64[p, 3]."""
    first = examples[pieces[:-1]]
    tail, supervised = (np.diff(_sums(column[examples])[pieces]) for column in (table.tail, table.supervised))
    return np.stack([table.head[first] + tail, table.images[first], supervised], axis=1)


def _sums(values: np.ndarray) -> np.ndarray:
    """Sums of the first 0 … n values, i64[n + 1]."""
    return np.concatenate([[0], np.cumsum(values, dtype=np.int64)])


def _cut(table: LengthTable, order: np.ndarray, length: int, targets: int, per_group: int) -> tuple[np.ndarray, np.ndarray]:
    """The drawn examples, those of a group side by side and in the order given, and where each piece begins [p + 1]."""
    n = len(order)
    # Another copy of an example goes to another group, so that it is not beside the first.
    by_example = np.argsort(order, kind="stable")
    fresh = np.diff(order[by_example], prepend=-1) != 0
    copy = np.empty(n, np.int64)
    copy[by_example] = np.arange(n) - np.maximum.accumulate(np.where(fresh, np.arange(n), 0))
    group = table.group[order]
    by_group = np.lexsort((copy, group))
    order, group, copy = order[by_group], group[by_group], copy[by_group]
    ends = np.append(np.flatnonzero((np.diff(group) != 0) | (np.diff(copy) != 0)) + 1, n)
    here = np.arange(n)
    # The end of the piece that would begin here: as many as may, of one group, whose tails and answers fit.
    end = np.minimum(np.where(table.images[order] > 0, here + per_group, here + 1), ends[np.searchsorted(ends, here, "right")])
    for column, room in ((table.tail, length - table.head[order]), (table.supervised, targets)):
        sums = _sums(column[order])
        end = np.minimum(end, np.searchsorted(sums, sums[:-1] + room, "right") - 1)
    following, cuts = end.tolist(), [0]
    while cuts[-1] < n:
        cuts.append(following[cuts[-1]])
    return order, np.array(cuts)


def _pack(need: np.ndarray, room: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Pieces of (tokens, images, supervised tokens) i32[3, p] in random order → pieces row after row, and where each row begins.

    A row begins with the pieces that have waited longest, so none waits for ever, and is finished with the pair that fills it best:

        waiting  5 9 7 4 8 6 3 …  room for 25     row  5 9        room for 11, fewer than 2.5 of the mean piece
        waiting      7 4 8 6 3 …                  row  5 9 7 4    the best pair
    """
    n = need.shape[1]
    if not n:
        return np.zeros(0, int), np.zeros(1, int)
    mean, least = need.mean(axis=1).tolist(), need.min(axis=1).tolist()
    nearly = [NEARLY_FULL * each for each in mean]
    in_a_row = int(min((size / each for size, each in zip(room, mean) if each), default=n))
    front, most = in_a_row + 8, max(WAITING, 4 * in_a_row)
    # Measured by what runs out first, tokens or supervised tokens. Images come in ones: that they fit is enough.
    by = 0 if mean[0] * room[2] >= mean[2] * room[0] else 2
    order: list[int] = []
    rows = [0]
    placed = np.zeros(n, bool)
    waiting, arrived = np.zeros(0, int), 0  # by size
    while len(order) < n:
        if len(waiting) <= 0.75 * most and arrived < n:
            new = np.arange(arrived, min(arrived + most - len(waiting), n))
            waiting, arrived = np.concatenate([waiting, new]), arrived + len(new)
            waiting = waiting[need[by, waiting].argsort(kind="stable")]
        left, row = list(room), []
        oldest = np.partition(waiting, front)[:front] if front < len(waiting) else waiting
        for piece, *used in sorted(zip(oldest.tolist(), *need.take(oldest, axis=1).tolist())):
            if used[0] <= left[0] and used[1] <= left[1] and used[2] <= left[2]:
                row.append(piece)
                left = [left[0] - used[0], left[1] - used[1], left[2] - used[2]]
                if left[0] < nearly[0] or left[1] < nearly[1] or left[2] < nearly[2]:
                    break
        taken = row
        while taken:
            placed[taken] = True
            waiting = waiting[~placed[waiting]]
            if left[0] < least[0] or left[1] < least[1] or left[2] < least[2]:
                break
            taken = _best_pair(need, by, waiting, left)
            row = row + taken
            for piece in taken:
                left = [have - used for have, used in zip(left, need[:, piece].tolist())]
        order += row
        rows.append(len(order))
    return np.array(order), np.array(rows)


def _best_pair(need: np.ndarray, by: int, waiting: np.ndarray, left: list[int]) -> list[int]:
    """Which two of the waiting pieces, or which one, leave least of column `by`; they stand in its order."""
    tokens, images, supervised = held = need.take(waiting, axis=1)
    fit = ((tokens <= left[0]) & (images <= left[1]) & (supervised <= left[2])).nonzero()[0]
    if not len(fit):
        return []
    held, waiting = held.take(fit, axis=1), waiting[fit]
    # One of two has at most half of the images. The other is the largest that there is room for beside it, itself excepted.
    light = (held[1] <= left[1] // 2).nonzero()[0]
    if not len(light):
        return [int(waiting[-1])]
    partner = held[by, light].searchsorted(left[by] - held[by], "right") - 1
    partner -= light[partner] == np.arange(len(fit))
    other = light[np.maximum(partner, 0)]
    tokens, images, supervised = both = held + held.take(other, axis=1)
    fit = (partner >= 0) & (tokens <= left[0]) & (images <= left[1]) & (supervised <= left[2])
    best = int(np.where(fit, both[by], held[by]).argmax())
    return [int(waiting[best]), int(waiting[other[best]])] if fit[best] else [int(waiting[best])]
