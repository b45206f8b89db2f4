"""What an evaluation is: items, how an answer is read, and when it is right."""
import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vlmjax.data.example import IMAGE_MARK, Source, Turn
from vlmjax.data.files_at import Missing
from vlmjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Item:
    """One question. `image`: key of its source (None: text only); `turns`: the conversation up to the answer; `kind`: a group of
    questions that gets a score of its own ("": none). `group`: the set of items that are one thing asked in several ways, which is right when all of them are ("": none).
    `answers`: what each annotator said, or all that is accepted, where that is more than `answer`. `options`: the texts it lets choose from, of which the answer is a letter."""

    id: str
    image: str | None
    turns: tuple[Turn, ...]
    answer: str
    kind: str = ""
    group: str = ""
    answers: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    @property
    def accepted(self) -> tuple[str, ...]:
        return self.answers or (self.answer,)

    @property
    def question(self) -> str:
        return self.turns[-1].text.replace(IMAGE_MARK, "").strip()


@dataclasses.dataclass(frozen=True)
class Task:
    """Either a language model answers in at most `max_new_tokens`, or (`choices`) two towers pick the nearest of these texts.

    open: (data_dir, split) → (source of the images, items in natural order). prior: data_dir → {question: most frequent answer in
    the training split}; None: a benchmark without one (prior.py). parse: a model's text, and the item's options where it has some → the answer it means, None where it means none. score: (parsed, what is accepted) → [0, 1].
    more: further metrics from all predictions under one control, each with `parsed` and `score` beside what is stored (scoring.py). split: the one that is meant where none is named.
    files: where `vlmjax data sources` tells what it needs.

    upload: of a benchmark whose answers only a server has, (data_dir, split, predictions under one control) → the text of the file that it takes (uploads.py). Its items have no answer, so that it has
    no `score`, no `metric` and no prior.
    """

    name: str
    about: str
    open: Callable[[str, str], tuple[Source, Sequence[Item]]]
    prior: Callable[[str], dict[str, str]] | None
    parse: Callable[..., str | None]
    parser: str
    score: Callable[[str, Sequence[str]], float] | None
    metric: str
    max_new_tokens: int = 0
    choices: tuple[str, ...] = ()
    more: Callable[[Sequence[Mapping[str, Any]]], dict[str, dict[str, Any]]] = lambda rows: {}
    split: str = "test"
    files: str = ""
    upload: Callable[[str, str, Sequence[Mapping[str, Any]]], str] | None = None

    def read(self, data_dir: str, split: str = "") -> tuple[Source, Sequence[Item]]:
        """Of a split, the task's own unless one is named."""
        try:
            source, items = self.open(data_dir, split or self.split)
        except Missing as error:
            raise UserError(f"{self.name}: {error}" + (f"; what it needs is told by: vlmjax data sources {self.files}" if self.files else "")) from None
        if len(items) != len({item.id for item in items}):
            again, times = collections.Counter(item.id for item in items).most_common(1)[0]
            raise UserError(f"{self.name}: {times} items have the id {again!r}")
        return source, items

    def means(self, text: str, options: Sequence[str] = ()) -> str | None:
        """The answer that a text means, to a question with these options."""
        return self.parse(text, options) if options else self.parse(text)


def exact_match(parsed: str, accepted: Sequence[str]) -> float:
    return float(parsed in accepted)
