"""Average normalised Levenshtein similarity (Biten et al., arXiv:1907.00490, eq. 1): right but for errors of reading still counts."""
from collections.abc import Sequence

TAU = 0.5


def levenshtein(a: str, b: str) -> int:
    """The fewest insertions, deletions and replacements of one character that turn `a` into `b`."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        left, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(left[j - 1] + (x != y), left[j] + 1, row[-1] + 1))
    return row[-1]


def by_formula(said: str, answers: Sequence[str]) -> float:
    """The paper's: max over answers of 1 − NL where NL < τ, else 0; NL: the distance over the longer length, of texts in lower case without white space around them."""
    return max(_similar(said.strip().lower(), answer.strip().lower()) for answer in answers)


def _similar(a: str, b: str) -> float:
    longer = max(len(a), len(b))
    if abs(len(a) - len(b)) >= TAU * longer > 0:  # the distance is at least this
        return 0.0
    far = levenshtein(a, b) / longer if longer else 0.0
    return 1 - far if far < TAU else 0.0


def by_harness(said: str, answers: Sequence[str]) -> float:
    """lmms-eval's (lmms_eval/api/metrics.py): white space is one space, but lengths are those before; a similarity of just τ counts."""
    best = 1 - min(_far(said, answer) for answer in answers)
    return best if best >= TAU else 0.0


def _far(a: str, b: str) -> float:
    longer = max(len(a.upper()), len(b.upper()))
    return levenshtein(*(" ".join(text.lower().split()) for text in (a, b))) / longer if longer else 0.0
