"""easy-VQA: questions and captions answered by a language model, and captions chosen by a dual tower.

Each answer is one of a closed set. Any other text means none of them: it is counted as unparsed, and wrong.
"""
import collections
import functools
from collections.abc import Callable, Collection

from vlmjax.data.datasets import easy_vqa
from vlmjax.data.example import Source
from vlmjax.evaluate.task import Item, Task, exact_match

ANSWERS = frozenset(("yes", "no", *easy_vqa.SHAPES, *easy_vqa.COLORS))


def open_view(data_dir: str, split: str, view: str, kind: Callable[[str, str], str] = lambda question, answer: "") -> tuple[Source, list[Item]]:
    """The examples of a view, each cut before its answer."""
    source = easy_vqa.open_source(data_dir, split, view)
    items = []
    for example in source.examples:
        item = Item(example.id, example.images[0], example.turns[:-1], example.turns[-1].text)
        items.append(Item(item.id, item.image, item.turns, item.answer, kind(item.question, item.answer)))
    return source, items


def caption_prior(data_dir: str) -> dict[str, str]:
    """All captions answer one prompt, so its prior is the most frequent of them (of equals the first in the alphabet)."""
    _, items = open_view(data_dir, "train", "captions")
    counts = collections.Counter(item.answer for item in items)
    return {items[0].question: min(counts, key=lambda caption: (-counts[caption], caption))}


def parse(text: str, options: Collection[str]) -> str | None:
    """The text in lower case, spaces and final stops dropped, if it is one of the options."""
    text = " ".join(text.lower().split()).rstrip(" .")
    return text if text in options else None


QUESTIONS = Task(
    name="easy_vqa",
    about="greedy answers to the questions; exact match, by kind of question",
    open=functools.partial(open_view, view="questions", kind=easy_vqa.kind),
    prior=easy_vqa.prior,
    parse=functools.partial(parse, options=ANSWERS),
    parser="lower case, spaces and final stops dropped; one of 13 answers",
    score=exact_match,
    metric="exact_match",
    max_new_tokens=6,
)

CAPTION = Task(
    name="easy_vqa_caption",
    about="greedy captions; exact match",
    open=functools.partial(open_view, view="captions"),
    prior=caption_prior,
    parse=functools.partial(parse, options=frozenset(easy_vqa.CAPTIONS)),
    parser="lower case, spaces and final stops dropped; one of 24 captions",
    score=exact_match,
    metric="exact_match",
    max_new_tokens=12,
)

ZERO_SHOT = Task(
    name="easy_vqa_zero_shot",
    about="the caption nearest to the image by a dual tower; accuracy over 24 captions",
    open=functools.partial(open_view, view="captions"),
    prior=caption_prior,
    parse=functools.partial(parse, options=frozenset(easy_vqa.CAPTIONS)),
    parser="the caption of highest cosine, of 24",
    score=exact_match,
    metric="accuracy",
    choices=easy_vqa.CAPTIONS,
)
