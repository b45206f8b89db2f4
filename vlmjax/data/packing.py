"""Several examples in one row: a pure function of lengths, seed and epoch."""
import numpy as np

from vlmjax.data.lengths import LengthTable

# A row is a tuple of pieces, a piece a tuple of examples (indexes into the table) that share one head.
Row = tuple[tuple[int, ...], ...]

# First fit looks at this many unfinished rows; the oldest is closed when one more is opened, so planning stays linear.
OPEN_ROWS = 64


def plan(table: LengthTable, drawn: np.ndarray, length: int, images: int, targets: int, per_group: int, seed: int, epoch: int) -> list[Row]:
    """The rows of an epoch: every drawn example (i64[n], indexes into the table) once, each row within `length` tokens, `images` images
    and `targets` supervised tokens.

    The examples of a group share their images and head, which a row holds once for each piece of at most `per_group` examples:

        groups   A: a b c      B: d        C: e f                    per_group 2
        pieces   A(c a) A(b)   B(d)        C(f e)                    shuffled inside the group, then cut
        rows     [C(f e) A(b)] [A(c a) B(d)]                         pieces shuffled, then first fit
    """
    rng = np.random.default_rng((seed, epoch))
    pieces = _pieces(table, rng.permutation(drawn), length, images, targets, per_group)
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


def _pieces(table: LengthTable, order: np.ndarray, length: int, images: int, targets: int, per_group: int) -> list:
    """[(example indexes, (tokens, images, supervised tokens))] of the drawn examples, those of a group in the order given."""
    groups: dict[int, list[int]] = {}
    for i, g in zip(order.tolist(), table.group[order].tolist()):
        groups.setdefault(g, []).append(i)
    columns = [column.tolist() for column in (table.head, table.tail, table.supervised, table.images)]
    pieces = []
    for members in groups.values():
        kept: list[int] = []
        tokens = answers = 0
        for i in members:
            head, tail, supervised, pictures = (column[i] for column in columns)
            if head + tail > length or supervised > targets or pictures > images:
                raise ValueError(f"example {i}: {head + tail} tokens, {pictures} images, {supervised} supervised do not fit a row by themselves")
            if kept and (len(kept) == per_group or not head or i in kept or tokens + tail > length or answers + supervised > targets):
                pieces.append((tuple(kept), (tokens, columns[3][kept[0]], answers)))
                kept = []
            if not kept:
                tokens, answers = head, 0
            kept.append(i)
            tokens += tail
            answers += supervised
        pieces.append((tuple(kept), (tokens, columns[3][kept[0]], answers)))
    return pieces
