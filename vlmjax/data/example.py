"""What every data set becomes: examples made of turns, and sources that hold them."""
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from etils import epath

from vlmjax.data.facts import ImageFacts
from vlmjax.errors import UserError

ROLES = ("user", "assistant")
IMAGE_MARK = "<image>"


@dataclasses.dataclass(frozen=True)
class Turn:
    """One utterance. Each `<image>` in `text` is the place of one image."""

    role: str
    text: str

    def __post_init__(self):
        if self.role not in ROLES:
            raise UserError(f"turn: the role {self.role!r} is not one of {', '.join(ROLES)}")


@dataclasses.dataclass(frozen=True)
class Example:
    """One conversation. `images` are keys of its source, in the order of the marks in the turns."""

    id: str
    images: tuple[str, ...]
    turns: tuple[Turn, ...]

    def __post_init__(self):
        marks = sum(turn.text.count(IMAGE_MARK) for turn in self.turns)
        if marks != len(self.images):
            raise UserError(f"example {self.id}: {len(self.images)} images, but its turns mark {marks} places with {IMAGE_MARK}")

    @property
    def caption(self) -> str:
        """What the assistant says, as the text of a pair."""
        return " ".join(turn.text for turn in self.turns if turn.role == "assistant")


class Lazy(Sequence[Example]):
    """Examples that are made when they are asked for, so that a large source costs no more than what they are made from."""

    def __init__(self, length: int, make: Callable[[int], Example]):
        self._length, self._make = length, make

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, i: int | slice) -> Example | list[Example]:
        if isinstance(i, slice):
            return [self._make(k) for k in range(*i.indices(self._length))]
        if not -self._length <= i < self._length:
            raise IndexError(f"example {i} of {self._length}")
        return self._make(i % self._length)


class Part(NamedTuple):
    """Which of the `total` examples of a set a source has; tables about all of them are kept in `directory`."""

    directory: epath.Path
    rows: range
    total: int


class Source(Protocol):
    """A data set as the pipeline sees it: the texts at once, the images on demand, from any thread.

    faults: {row or example: reason} of what was left out, in the order of the file; whoever opens a source says how many are too many.
    altered: {what was done: how many}, of examples that are not word for word as published.
    facts: of its images, where a manifest has them. part: of a set that `vlmjax data build` wrote.
    """

    name: str
    examples: Sequence[Example]
    faults: Mapping[str, str]
    altered: Mapping[str, int]
    facts: ImageFacts | None = None
    part: Part | None = None

    @property
    def reader(self) -> Callable[[str], bytes]:
        """`read_image` for other processes, which take no examples along."""
        return self.read_image

    def read_image(self, key: str) -> bytes:
        """The encoded image (PNG, JPEG, …) of a key in `Example.images`."""
