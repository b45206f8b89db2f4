"""What counting benchmarks share: the number that an answer states, and how far it is from the right one."""
import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vlmjax.errors import UserError
from vlmjax.evaluate import scoring

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
           "nineteen", "twenty")
PARSER = "the first number: digits, or a word from zero to twenty"
UNIT = "objects"
_MOST = 9  # digits of an answer that is still a count
_NUMBER = re.compile(rf"[0-9]+|\b(?:{'|'.join(NUMBERS)})\b")


def parse(text: str) -> str | None:
    """The first number of a text, without leading zeros: digits wherever they stand, or a whole word from zero to twenty. `twenty-one` is 20, and `no one` is 1; None for more than nine digits."""
    found = _NUMBER.search(text.lower())
    if found is None:
        return None
    number = str(NUMBERS.index(found[0])) if found[0].isalpha() else found[0].lstrip("0") or "0"
    return number if len(number) <= _MOST else None


def answer(where: str, value: Any) -> str:
    """The right number of a row; UserError where it is none."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 10**_MOST:
        raise UserError(f"{where}: the answer {value!r:.80} is no number of objects")
    return str(value)


def more(rows: Sequence[scoring.Row], kinds: Sequence[str] = ()) -> dict[str, scoring.Metric]:
    """Over all answers and over those of each kind, as `metric/KIND`: off_by_one, the share of answers at most one from the right number; mae and rmse, the mean and the root mean square distance from it
    in objects, of the answers that are a number (their n): what is unparsed has no distance, and is counted as such."""
    out: dict[str, scoring.Metric] = {}
    for kind in ("", *kinds):
        of = [row for row in rows if kind in ("", row["kind"])]
        stated = [row for row in of if row["parsed"] is not None]
        name: Callable[[str], str] = lambda metric: f"{metric}/{kind}" if kind else metric
        out |= {name("off_by_one"): scoring.mean(of, kind or "all", lambda row: float(row["parsed"] is not None and _distance(row) <= 1)),
                name("mae"): scoring.mean(stated, "answers that are numbers", _distance, UNIT),
                name("rmse"): _root(scoring.mean(stated, "answers that are numbers", lambda row: _distance(row) ** 2, UNIT))}
    return out


def _distance(row: scoring.Row) -> float:
    return abs(float(row["parsed"]) - float(row["answer"]))


def _root(metric: Mapping[str, Any]) -> scoring.Metric:
    """The square root of a mean. Its error is the mean's times the slope 1/(2 root); None where that is infinite."""
    if metric["value"] is None:
        return dict(metric)
    value = math.sqrt(metric["value"])
    return {**metric, "value": value, "stderr": metric["stderr"] / (2 * value) if value and metric["stderr"] is not None else None}
