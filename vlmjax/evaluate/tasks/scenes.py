"""The drawn scenes of data/datasets/scenes.py: what is there, how many, where, and small things.

Answers of models that talk are read, too: an answer is what is meant when the text names exactly one of the options. All else is unparsed, and wrong.
"""
import collections
import functools
import re
from collections.abc import Mapping

from vlmjax.data.datasets import scenes
from vlmjax.data.example import Source
from vlmjax.evaluate.task import Item, Task, exact_match

NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
WORDS: dict[str, Mapping[str, str]] = {  # a word of an answer → the option it means
    "exists": {"yes": "yes", **dict.fromkeys(("no", "not", "isn", "aren", "none"), "no")},  # isn't, aren't
    "count": {**{word: str(n) for n, word in enumerate(NUMBERS, 1)}, **{str(n): str(n) for n in range(100)}, "zero": "0", "none": "0", "no": "0"},
    "where": {"left": "left", "right": "right", "above": "above", "over": "above", "upper": "above", "top": "above", "below": "below", "lower": "below", "bottom": "below", "under": "below", "beneath": "below", "underneath": "below"},
    "detail": {color: color for color in scenes.COLORS} | {"violet": "purple"}}


def open_suite(data_dir: str, split: str, suite: str) -> tuple[Source, list[Item]]:
    source = scenes.open_source(data_dir, split, suite)
    items = []
    for example in source.examples:
        _, _, _, number, n = example.id.split("/")
        items.append(Item(example.id, example.images[0], example.turns[:-1], example.turns[-1].text, scenes.group(split, suite, int(number))[int(n)].level, f"{split}/{suite}/{number}"))
    return source, items


def prior(data_dir: str, suite: str) -> dict[str, str]:
    """question → its most frequent answer in the training split (of equals the first in the alphabet); all are equally frequent, so it is right by chance."""
    counts = collections.defaultdict(collections.Counter)
    for example in scenes.open_source(data_dir, "train", suite).examples:
        counts[example.turns[0].text.replace("<image>", "")][example.turns[1].text] += 1
    return {question: min(answers, key=lambda answer: (-answers[answer], answer)) for question, answers in counts.items()}


def parse(text: str, suite: str) -> str | None:
    """The one option that the text names. Yes or no at its beginning is the answer whatever follows."""
    words = re.findall(r"[a-z]+|\d+", text.lower())
    if suite == "exists" and words and words[0] in WORDS[suite]:
        return WORDS[suite][words[0]]
    named = {WORDS[suite][word] for word in words if word in WORDS[suite]}
    return named.pop() if len(named) == 1 else None


def _task(suite: str, about: str, options: str) -> Task:
    return Task(name=f"scenes_{suite}", about=about, open=functools.partial(open_suite, suite=suite), prior=functools.partial(prior, suite=suite), parse=functools.partial(parse, suite=suite),
                parser=f"the only {options} that the answer names{', or the one it begins with' if suite == 'exists' else ''}", score=exact_match,
                metric="exact_match", max_new_tokens=12)


EXISTS = _task("exists", "hallucination: is there a red star, also where red things and stars are; by adversarial and random", "yes or no")
COUNT = _task("count", "how many red stars are there, 1 to 8 of nine objects; by number", "number")
WHERE = _task("where", "where is one object relative to another, of four sides; by distance", "side")
DETAIL = _task("detail", "what color a dot of 2 to 12 pixels of 224 has, of six; by its side", "color")
ALL = (EXISTS, COUNT, WHERE, DETAIL)
