"""(turns, images) → a row of the batch contract, for one model. Training and inference use the same one."""
import dataclasses
import functools
import itertools
from collections.abc import Sequence

import numpy as np

from vlmjax.data import conversation
from vlmjax.data.batch import WEIGHTINGS
from vlmjax.data.conversation import Piece, Template
from vlmjax.data.example import IMAGE_MARK, Example, Turn
from vlmjax.data.lengths import Lengths, LengthTable
from vlmjax.data.tokenizer import Tokenizer
from vlmjax.errors import UserError
from vlmjax.layout import ImageLayout

# Distinct conversations whose tokens are kept. Epochs of a small data set tokenise nothing twice; a large one pays as it goes.
_CACHED = 1 << 15


@dataclasses.dataclass(frozen=True)
class Head:
    """Everything up to the last image: tokens i32[h], and slots i32[h] into the image tokens of this example (−1: text)."""

    pieces: tuple[Piece, ...]
    tokens: np.ndarray = dataclasses.field(compare=False)
    slots: np.ndarray = dataclasses.field(compare=False)


@dataclasses.dataclass(frozen=True, eq=False)
class Encoded:
    """A conversation in tokens: `tail` i32[t] follows the head; `targets` i32[s] are read at `places` i32[s] of head + tail. A prompt has
    one place, its last token, and there the target 0 stands for the answer to come."""

    head: Head
    tail: np.ndarray
    targets: np.ndarray
    places: np.ndarray


class Processor:
    """Lays out rows for one tokenizer, template and image layout (None: a model without images).

        segments       1        2          3                  head = the parent, one child per example of the group
        tokens     <bos> img…  q1 a1 </s>  q2 a2 </s>
        parents        0        1          1                  a group without images: no head, no parents
    """

    def __init__(self, tokenizer: Tokenizer, template: Template, layout: ImageLayout | None = None):
        self.tokenizer, self.template, self.layout = tokenizer, template, layout
        self.encode = functools.lru_cache(_CACHED)(self.encode)
        self._head = functools.lru_cache(_CACHED)(self._head)

    def encode(self, turns: tuple[Turn, ...], prompt: bool = False, tiles: tuple[int, ...] = ()) -> Encoded:
        """The tokens of a conversation; with `prompt`, up to where the answer begins. tiles: of each of its images, `()`: one each."""
        pieces = _with_tiles(conversation.render(self.template, self.tokenizer, turns, prompt), tiles)
        split = max((i + 1 for i, piece in enumerate(pieces) if piece.image), default=0)
        head = self._head(tuple(pieces[:split]))
        tail = np.array([id_ for piece in pieces[split:] for id_ in piece.ids], np.int32)
        if prompt:
            last = len(head.tokens) + len(tail) - 1
            if last < 0:
                raise UserError("conversation: the prompt has no token")
            return Encoded(head, tail, np.zeros(1, np.int32), np.array([last], np.int32))
        self._refuse_specials(turns)
        lengths = [self.tokens_per_image * piece.image if piece.image else len(piece.ids) for piece in pieces]
        supervised = np.repeat(np.array([piece.supervised for piece in pieces], bool), lengths)
        supervised[:1] = False  # nothing precedes the first token, so nothing can predict it
        places = np.flatnonzero(supervised).astype(np.int32)
        if not len(places):
            raise UserError("conversation: no token is supervised (it has no answer)")
        return Encoded(head, tail, np.concatenate([head.tokens, tail])[places], places - 1)

    def lengths(self, example: Example, tiles: tuple[int, ...] = ()) -> Lengths:
        encoded = self._encode_example(example, tiles)
        return Lengths(len(encoded.head.tokens), len(encoded.tail), len(encoded.targets), sum(tiles) or len(example.images))

    def measure(self, examples: Sequence[Example]) -> LengthTable:
        """The table of these examples, each image as one tile (see `cut`). One that cannot be laid out (no answer, a special token spelled out) is a fault
        of the table. Examples that can share a head have one group, numbered by first appearance; an example without images shares nothing."""
        columns = np.zeros((4, len(examples)), np.int32)
        numbers, groups, faults = np.zeros(len(examples), np.int32), {}, {}
        for i, example in enumerate(examples):
            try:
                encoded = self.encode(example.turns)
            except UserError as error:
                faults[i] = str(error)
                numbers[i] = groups.setdefault(i, len(groups))
                continue
            columns[:, i] = len(encoded.head.tokens), len(encoded.tail), len(encoded.targets), len(example.images)
            numbers[i] = groups.setdefault((example.images, encoded.head) if example.images else i, len(groups))
        return LengthTable(*columns, group=numbers, faults=faults)

    def cut(self, table: LengthTable, tiles: np.ndarray) -> LengthTable:
        """The table of the same examples when the images of each have so many tiles together, i32[N]."""
        images = np.where(table.images > 0, tiles, 0).astype(np.int32)
        return dataclasses.replace(table, head=table.head + (images - table.images) * self.tokens_per_image, images=images)

    def measure_captions(self, examples: Sequence[Example], length: int) -> LengthTable:
        """The table of pairs of one image and a caption, each a row of its own with a place for `length` tokens."""
        faults = {}
        for i, example in enumerate(examples):
            try:
                if len(example.images) != 1:
                    raise UserError(f"has {len(example.images)} images, a contrastive stage takes pairs of one image and a caption")
                self.caption_row(example.caption, length)
            except UserError as error:
                faults[i] = str(error)
        nothing, n = np.zeros(len(examples), np.int32), np.arange(len(examples), dtype=np.int32)
        return LengthTable(nothing, nothing, nothing, nothing + 1, n, faults)

    def rows(
        self, rows: Sequence[Sequence[Sequence[Example]]], length: int, images: int, targets: int, weighting: str = "token",
        tiles: Sequence[Sequence[tuple[int, ...]]] | None = None,
    ) -> tuple[dict, list[list[str]]]:
        """Rows of groups of examples → [B, …] of the contract without pixels, and each row's image keys in the order of their slots, a key once for each tile.
        weighting: one of batch.WEIGHTINGS. tiles: of each row's groups, of each image that the group shows; None: one each."""
        laid = [[self._group(group, of) for group, of in zip(groups, of_row)] for groups, of_row in zip(rows, tiles or itertools.repeat(itertools.repeat(())))]
        return self._lay_out(laid, length, images, targets, weighting=weighting)

    def row(
        self, groups: Sequence[Sequence[Example]], length: int, images: int, targets: int, weighting: str = "token",
        tiles: Sequence[tuple[int, ...]] | None = None,
    ) -> tuple[dict[str, np.ndarray], list[str]]:
        """One row of `rows`, without the axis B."""
        return _only(self.rows([groups], length, images, targets, weighting, tiles and [tiles]))

    def prompt_row(
        self, groups: Sequence[tuple[tuple[str, ...], Sequence[tuple[Turn, ...]]]], length: int, images: int, questions: int,
        tiles: Sequence[tuple[int, ...]] | None = None,
    ) -> tuple[dict[str, np.ndarray], list[str]]:
        """A row without answers, for groups of (image keys, prompts). `target_positions` are the places of the prompts' last tokens, where
        the first tokens of the answers are predicted; `weights` is 1 for a prompt and 0 for padding, `targets` is 0. tiles: as in `row`."""
        laid = [(keys, of, [(turns, keys, self.encode(tuple(turns), True, of)) for turns in prompts]) for (keys, prompts), of in zip(groups, tiles or itertools.repeat(()))]
        for keys, _, members in laid:
            for turns, _, encoded in members:
                if (marks := sum(piece.image > 0 for piece in encoded.head.pieces)) != len(keys):
                    raise UserError(f"{_name(turns)}: {len(keys)} images, but it marks {marks} places with {IMAGE_MARK}")
        return _only(self._lay_out([laid], length, images, questions, "questions"))

    def caption_row(self, text: str, length: int) -> dict[str, np.ndarray]:
        """<bos> caption <eos> for a text tower: tokens and segments, i32[length]."""
        for role in ("bos", "eos"):
            if getattr(self.tokenizer, role) is None:
                raise UserError(f"caption {text!r}: a text tower needs a token for {role}, and the tokenizer has none")
        ids = [self.tokenizer.bos, *self.tokenizer.encode(text), self.tokenizer.eos]
        if len(ids) > length:
            raise UserError(f"caption {text!r}: needs {len(ids)} tokens (length), the row has {length}")
        tokens, segments = np.zeros((2, length), np.int32)
        tokens[: len(ids)], segments[: len(ids)] = ids, 1
        return {"tokens": tokens, "segments": segments}

    def _group(self, group: Sequence[Example], tiles: tuple[int, ...]) -> tuple:
        """A group of `_lay_out`."""
        return group[0].images, tiles, [(example, example.images, self._encode_example(example, tiles)) for example in group]

    def _lay_out(
        self, rows: list, length: int, images: int, targets: int, targets_are: str = "supervised tokens", weighting: str = "token"
    ) -> tuple[dict, list]:
        """Rows of groups of (image keys, their tiles, [(example or prompt, image keys, encoded)]) → arrays [B, …] and the image keys of each row.

        Python walks over segments; their tokens are moved in a dozen calls for the whole batch.
        """
        body, heads, answers = _Runs(4), _Runs(2), _Runs(5)
        sources, all_keys = [], []
        for r, groups in enumerate(rows):
            cursor = segment = used = 0
            keys: list[str] = []
            for group_keys, tiles, members in groups:
                head, parent, head_start = members[0][2].head, 0, cursor
                head_length = len(head.tokens)
                alone = head_length > 0 and len(members) == 1  # shares its images with nobody: one segment
                if head_length:
                    segment += 1
                    parent = 0 if alone else segment
                    body.add(head.tokens, r * length + cursor, segment, 0, 0)
                    heads.add(head.slots, r * length + cursor, len(keys) * self.tokens_per_image)
                    cursor += head_length
                keys.extend(itertools.chain.from_iterable(map(itertools.repeat, group_keys, tiles)) if tiles else group_keys)
                for item, item_keys, encoded in members:
                    if item_keys != group_keys or not (encoded.head is head or encoded.head == head):
                        raise ValueError(f"{_name(item)}: does not share the images and the head of its group")
                    segment += not alone
                    body.add(encoded.tail, r * length + cursor, segment, parent, head_length)
                    answers.add(encoded.targets, r * targets + used, head_start, head_length, cursor, len(encoded.targets))
                    sources.append(encoded.places)
                    cursor += len(encoded.tail)
                    used += len(encoded.targets)
                    if cursor > length or len(keys) > images or used > targets:
                        _check_room(_name(item), (cursor, len(keys), used), (length, images, targets), targets_are)
            all_keys.append(keys)

        B = len(rows)
        tokens, offset, (start, segment, parent, first) = body.columns()
        at = start + offset
        slots, offset_in_head, (start, first_slot) = heads.columns()
        ids, nth, (first_target, head_start, head_length, tail_start, count) = answers.columns()
        places = np.concatenate(sources) if sources else ids
        places = np.where(places < head_length, head_start + places, tail_start + places - head_length)
        return {
            "tokens": _scatter((B, length), at, tokens),
            "positions": _scatter((B, length), at, first + offset),
            "segments": _scatter((B, length), at, segment),
            "parents": _scatter((B, length), at, parent),
            "prefix": np.zeros((B, length), bool),
            "image_slots": _scatter((B, length), start + offset_in_head, np.where(slots >= 0, slots + first_slot, -1), fill=-1),
            "targets": _scatter((B, targets), first_target + nth, ids),
            "target_positions": _scatter((B, targets), first_target + nth, places),
            "weights": _scatter((B, targets), first_target + nth, WEIGHTINGS[weighting](count.astype(float)), np.float32),
        }, all_keys

    @property
    def tokens_per_image(self) -> int:
        """P, of an image or of each of its tiles; 0 for a model without images."""
        return self.layout.tokens_per_image if self.layout else 0

    def _encode_example(self, example: Example, tiles: tuple[int, ...] = ()) -> Encoded:
        try:
            return self.encode(example.turns, tiles=tiles) if tiles else self.encode(example.turns)
        except UserError as error:
            raise UserError(f"example {example.id}: {error}") from None

    def _head(self, pieces: tuple[Piece, ...]) -> Head:
        if self.layout is None and pieces:
            raise UserError("conversation: it has images, the model has no image encoder")
        tokens, slots, P = [], [], self.tokens_per_image
        mark = 0 if self.tokenizer.image is None else self.tokenizer.image  # any id inside the table
        used = 0
        for piece in pieces:
            own = P * piece.image
            tokens.extend([mark] * own if piece.image else piece.ids)
            slots.extend(range(used, used + own) if piece.image else [-1] * len(piece.ids))
            used += own
        return Head(pieces, np.array(tokens, np.int32), np.array(slots, np.int32))

    def _refuse_specials(self, turns: tuple[Turn, ...]) -> None:
        """A data set in which `</s>` is written out would end an answer where its author did not."""
        for turn in turns:
            for token in self.tokenizer.control:
                if token in turn.text:
                    raise UserError(f"conversation: the text {turn.text!r} holds the special token {token}")


def _with_tiles(pieces: list[Piece], tiles: tuple[int, ...]) -> list[Piece]:
    """Each image's place with the number of its tiles; `()`: one each."""
    if not tiles:
        return pieces
    if (marks := sum(piece.image for piece in pieces)) != len(tiles):
        raise UserError(f"conversation: {len(tiles)} images, but it marks {marks} places with {IMAGE_MARK}")
    left = iter(tiles)
    return [piece._replace(image=next(left)) if piece.image else piece for piece in pieces]


def _name(item: Example | Sequence[Turn]) -> str:
    return f"example {item.id}" if isinstance(item, Example) else f"prompt {item[-1].text!r}"


def misfit(need: tuple[int, int, int], have: tuple[int, int, int], targets_are: str = "supervised tokens") -> str:
    """Why (tokens, images, supervised tokens) do not fit a row that has so many places of each; empty when they do."""
    for needed, available, what in zip(need, have, ("tokens (length)", "images (images)", f"{targets_are} (targets)")):
        if needed > available:
            return f"needs {needed} {what}, the row has {available}"
    return ""


def _check_room(name: str, need: tuple[int, int, int], have: tuple[int, int, int], targets_are: str) -> None:
    if reason := misfit(need, have, targets_are):
        raise UserError(f"{name}: {reason}")


def _only(rows: tuple[dict, list]) -> tuple[dict[str, np.ndarray], list[str]]:
    arrays, (keys,) = rows
    return {key: values[0] for key, values in arrays.items()}, keys


class _Runs:
    """Runs of values to be laid end to end, each with the same number of integers that say where it goes and what it is."""

    def __init__(self, width: int):
        self._width = width
        self._values: list[np.ndarray] = []
        self._facts: list[tuple[int, ...]] = []

    def add(self, values: np.ndarray, *facts: int) -> None:
        self._values.append(values)
        self._facts.append(facts)

    def columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All values [n], the index of each in its run [n], and the facts of its run [width, n]."""
        if not self._values:
            return np.zeros(0, np.int32), np.zeros(0, int), np.zeros((self._width, 0), int)
        lengths = np.fromiter(map(len, self._values), int, len(self._values))
        index = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return np.concatenate(self._values), index, np.repeat(np.array(self._facts).T, lengths, axis=1)


def _scatter(shape: tuple[int, int], at: np.ndarray, values: np.ndarray, dtype: type = np.int32, fill: int = 0) -> np.ndarray:
    out = np.full(shape[0] * shape[1], fill, dtype)
    out[at] = values
    return out.reshape(shape)
