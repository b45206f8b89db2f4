"""What an evaluation is: items, how an answer is read, and when it is right."""
import dataclasses
from collections.abc import Callable, Sequence

from vlmjax.data.example import IMAGE_MARK, Source, Turn


@dataclasses.dataclass(frozen=True)
class Item:
    """One question. `image`: key of its source (None: text only); `turns`: the conversation up to the answer; `kind`: a group of
    questions that gets a score of its own ("": none). `group`: the set of items that are one thing asked in several ways, which is right when all of them are ("": none)."""

    id: str
    image: str | None
    turns: tuple[Turn, ...]
    answer: str
    kind: str = ""
    group: str = ""

    @property
    def question(self) -> str:
        return self.turns[-1].text.replace(IMAGE_MARK, "").strip()


@dataclasses.dataclass(frozen=True)
class Task:
    """Either a language model answers in at most `max_new_tokens`, or (`choices`) two towers pick the nearest of these texts.

    open: (data_dir, split) → (source of the images, items in natural order). prior: data_dir → {question: most frequent answer in
    the training split}. parse: a model's text → the answer it means, None where it means none. score: (parsed, answer) → [0, 1].
    """

    name: str
    about: str
    open: Callable[[str, str], tuple[Source, Sequence[Item]]]
    prior: Callable[[str], dict[str, str]]
    parse: Callable[[str], str | None]
    parser: str
    score: Callable[[str, str], float]
    metric: str
    max_new_tokens: int = 0
    choices: tuple[str, ...] = ()
