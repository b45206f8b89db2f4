"""Multiple choice: how options are asked, and which one an answer means, by its letter. One parser for each official program that reads answers in its own way.

A parser takes an answer and the options, and gives the letter of one of them, or None where it finds none; answers are stripped, as LLaVA strips what its models say. None guesses.
"""
import re
import string
from collections.abc import Callable, Sequence
from typing import Any

from vlmjax.data.example import Turn
from vlmjax.errors import UserError
from vlmjax.evaluate import benchmark

LETTERS = string.ascii_uppercase
REFUSALS = ("Sorry, I can't help with images of people yet.", "I can't process this file.", "I'm sorry, but without the image provided", "Cannot determine the answer")  # VLMEvalKit's

Parser = Callable[[str, Sequence[str]], str | None]


def ask(question: str, options: Sequence[str], how: str = benchmark.LETTER) -> tuple[Turn, ...]:
    """The image, the question, a line `A. option` for each option, and to answer with the letter."""
    return benchmark.ask("\n".join([question, *map("{}. {}".format, LETTERS, options)]), how)


def texts(where: str, value: Any) -> tuple[str, ...]:
    """Options; UserError where they are no list of two texts or more, or have no letters left."""
    if not isinstance(value, list) or not 2 <= len(value) <= len(LETTERS) or not all(isinstance(option, str) for option in value):
        raise UserError(f"{where}: {value!r:.80} is not a list of 2 to {len(LETTERS)} options")
    return tuple(benchmark.text(where, option) for option in value)


def index(where: str, value: Any, options: Sequence[str]) -> str:
    """The letter of option number `value`; UserError where there is none."""
    if not isinstance(value, int) or not 0 <= value < len(options):
        raise UserError(f"{where}: {value!r:.80} is not the index of one of its {len(options)} options")
    return LETTERS[value]


def alone(text: str, options: Sequence[str]) -> str | None:
    """Nothing but the letter (SEED-Bench in LLaVA 1.5: scripts/convert_seed_for_submission.py)."""
    return _among(text.strip(), options)


def declared(text: str, options: Sequence[str]) -> str | None:
    """The letter alone, or in front of ". ", or in the only "The answer is X" and any character (ScienceQA in LLaVA 1.5: llava/eval/eval_science_qa.py). There A to E count in the first two forms, however few the options are;
    one that is no option is wrong there and none here."""
    text = text.strip()
    if text[:1] in LETTERS[:5] and text[1:3] in ("", ". "):
        return _among(text[:1], options)
    found = re.findall(r"The answer is ([A-Z]).", text)
    return _among(found[0], options) if len(found) == 1 else None


def inferred(text: str, options: Sequence[str]) -> str | None:
    """The only letter among the words, if it is one of the last four; else what follows "answer is", A to D; else the only option whose text is in the answer, unless that is more than twice as long as
    all options together (VLMEvalKit's can_infer, vlmeval/utils/matching_util.py, which asks a language model where this finds nothing, and with `exact_matching` counts it as wrong)."""
    text = text.strip()
    if any(refusal in text for refusal in REFUSALS):
        return None
    words, letters = re.sub(r"[.()\[\],:;!*#{}]", " ", text).split(), LETTERS[: len(options)]
    named = [letter for letter in letters if letter in words]
    if len(named) == 1 and words.index(named[0]) >= len(words) - 4:
        return named[0]
    if not named and "Z" in words:
        return None
    if (found := re.search(r"answer\s+is\s+\**([ABCD])", text, re.IGNORECASE)) and found[1].upper() in letters:
        return found[1].upper()
    text = text.lower()
    held = [letter for letter, option in zip(letters, options) if option.lower() in text]
    return held[0] if len(held) == 1 and len(text) <= 2 * sum(map(len, options)) else None


def stated(text: str, options: Sequence[str]) -> str | None:
    """What is left behind the last "answer is" or "answer:", in whatever case and without a bracket or stop around it: the letter, or the text of an option (MMVP in Cambrian-1: eval/eval/mmvp/mmvp_test.py)."""
    rest, lower = _rest(text), [option.lower() for option in options]
    return _among(rest.upper(), options) or (LETTERS[lower.index(rest)] if rest in lower else None)


def leading(text: str, options: Sequence[str]) -> str | None:
    """The first letter of what `stated` reads, also of a word (CV-Bench in Cambrian-1: eval/eval/{ade,coco,omni}/*_test.py)."""
    return _among(_rest(text)[:1].upper(), options)


def _rest(text: str) -> str:
    text = text.lower().strip()
    for keyword in ("answer is", "answer is:", "answer:"):
        text = text.split(keyword)[-1]
    return text.strip().rstrip(".:,").lstrip("(").rstrip(")")


def _among(letter: str, options: Sequence[str]) -> str | None:
    return letter if letter and letter in tuple(LETTERS[: len(options)]) else None
