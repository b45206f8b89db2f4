"""Several examples in one row: a pure function of lengths, seed and epoch."""
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# A row is a tuple of (index of a group, indexes of the group's examples that are in this row).
Row = tuple[tuple[int, tuple[int, ...]], ...]

# First fit looks at this many unfinished rows; the oldest is closed when one more is opened, so planning stays linear.
OPEN_ROWS = 64


class Lengths(NamedTuple):
    """What an example costs: tokens up to its last image (shared by its group), tokens after it, supervised tokens, images."""

    head: int
    tail: int
    supervised: int
    images: int


def plan(groups: Sequence[Sequence[Lengths]], length: int, images: int, targets: int, per_group: int, seed: int, epoch: int) -> list[Row]:
    """The rows of an epoch: every example exactly once, each row within `length` tokens, `images` images and `targets` supervised tokens.

    The examples of a group share their images and head, which a row holds once for each piece of at most `per_group` examples:

        groups   A: a b c      B: d        C: e f                    per_group 2
        pieces   A(c a) A(b)   B(d)        C(f e)                    shuffled inside the group, then cut
        rows     [C(f e) A(b)] [A(c a) B(d)]                         pieces shuffled, then first fit
    """
    rng = np.random.default_rng((seed, epoch))
    owners = [g for g, group in enumerate(groups) for _ in group]
    first = np.cumsum([0, *map(len, groups)]).tolist()
    shuffled: list[list[int]] = [[] for _ in groups]
    for i in rng.permutation(len(owners)).tolist():
        shuffled[owners[i]].append(i - first[owners[i]])
    pieces = [piece for g, order in enumerate(shuffled) for piece in _cut(g, order, groups[g], length, images, targets, per_group)]
    if not pieces:
        return []
    least = [min(need) for need in zip(*(need for _, need in pieces))]
    rows: list[list] = []
    unfinished: list[list] = []  # [row, tokens left, images left, supervised tokens left]
    for i in rng.permutation(len(pieces)).tolist():
        piece, (tokens, pictures, answers) = pieces[i]
        for j, room in enumerate(unfinished):
            if tokens <= room[1] and pictures <= room[2] and answers <= room[3]:
                break
        else:
            j, room = len(unfinished), [[], length, images, targets]
            unfinished.append(room)
            rows.append(room[0])
        room[0].append(piece)
        room[1] -= tokens
        room[2] -= pictures
        room[3] -= answers
        if room[1] < least[0] or room[2] < least[1] or room[3] < least[2]:
            del unfinished[j]
        elif len(unfinished) > OPEN_ROWS:
            del unfinished[0]
    # First fit draws small pieces forward into rows opened early; the last shuffle takes that drift out of the epoch.
    return [tuple(rows[i]) for i in rng.permutation(len(rows)).tolist()]


def _cut(g: int, order: list[int], group: Sequence[Lengths], length: int, images: int, targets: int, per_group: int) -> list:
    """[((g, example indexes), (tokens, images, supervised tokens))] of one group's examples in this order."""
    head, _, _, pictures = group[0]
    pieces = []
    members, tokens, answers = [], head, 0
    for e in order:
        _, tail, supervised, _ = group[e]
        if head + tail > length or supervised > targets or pictures > images:
            raise ValueError(f"group {g}, example {e}: {group[e]} does not fit a row by itself")
        if members and (len(members) == per_group or tokens + tail > length or answers + supervised > targets):
            pieces.append(((g, tuple(members)), (tokens, pictures, answers)))
            members, tokens, answers = [], head, 0
        members.append(e)
        tokens += tail
        answers += supervised
    return [*pieces, ((g, tuple(members)), (tokens, pictures, answers))]
