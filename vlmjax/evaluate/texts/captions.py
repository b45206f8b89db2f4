"""How alike a caption and the captions that people wrote are: ROUGE-L, BLEU-1 to 4 and CIDEr-D over words (ptb.py), from their definitions, equal to what pycocoevalcap says of the same captions.

METEOR and SPICE are not here: they are programs in Java with data of their own.
"""
import collections
import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from vlmjax.evaluate import scoring
from vlmjax.evaluate.texts import ptb

Words = Sequence[str]
Grams = collections.Counter[tuple[str, ...]]

N = 4          # words of the longest n-gram
BETA = 1.2     # of ROUGE-L: how much more recall weighs than precision
SIGMA = 6.0    # of CIDEr-D: words of difference in length at which a caption is worth e^-½
TINY, SMALL = 1e-15, 1e-9  # what pycocoevalcap adds to counts, so that BLEU without a match is a number that is next to nothing


@functools.lru_cache(1 << 15)  # some 5 KB each; references come again under each control
def grams(words: tuple[str, ...]) -> Grams:
    """How often each n-gram of 1 to N words occurs."""
    return collections.Counter(words[i : i + n] for n in range(1, N + 1) for i in range(len(words) - n + 1))


def rouge_l(said: str, captions: Sequence[str]) -> float:
    """ROUGE-L (Lin, 2004) of one caption, in [0, 1]: the F-measure of the longest common subsequence, with the best precision and the best recall over the references, each taken alone."""
    words = ptb.words(said)
    references = [ptb.words(caption) for caption in captions]
    common = [_common(words, reference) for reference in references]
    precision = max(common) / max(len(words), 1)
    recall = max(n / max(len(reference), 1) for n, reference in zip(common, references))
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision) if recall else 0.0


def _common(a: Words, b: Words) -> int:
    """The length of the longest common subsequence."""
    best = [0] * (len(b) + 1)
    for word in a:
        before = 0
        for j, other in enumerate(b, 1):
            before, best[j] = best[j], before + 1 if word == other else max(best[j], best[j - 1])
    return best[-1]


def cider(said: Sequence[str], captions: Sequence[Sequence[str]]) -> np.ndarray:
    """CIDEr-D (Vedantam et al., arXiv:1411.5726) of each caption, f64[N] in [0, 10], beside its references. An n-gram weighs log(images / images whose references have it): of one image all weigh nothing."""
    references = [[grams(ptb.words(caption)) for caption in of] for of in captions]
    seen = collections.Counter(gram for of in references for gram in set().union(*of))
    weigh = functools.partial(_weighed, images=len(references), seen=seen)
    return np.array([10 * np.mean([_alike(weigh(grams(ptb.words(text))), weigh(reference)) for reference in of]) for text, of in zip(said, references)])


def _weighed(counts: Grams, images: int, seen: Mapping[tuple[str, ...], int]) -> tuple[list[dict[tuple[str, ...], float]], int]:
    """(weights of the n-grams of each n, pairs of words)."""
    by_n: list[dict[tuple[str, ...], float]] = [{} for _ in range(N)]
    for gram, count in counts.items():
        by_n[len(gram) - 1][gram] = count * (math.log(images) - math.log(max(1, seen[gram])))
    return by_n, sum(count for gram, count in counts.items() if len(gram) == 2)


def _alike(a: tuple, b: tuple) -> float:
    """The mean over n of the cosines of two captions' n-grams, none of which counts for more than the reference has it, less what a difference in length takes."""
    cosines = []
    for x, y in zip(a[0], b[0]):
        norm = math.sqrt(sum(w * w for w in x.values())) * math.sqrt(sum(w * w for w in y.values()))
        cosines.append(sum(min(w, y[gram]) * y[gram] for gram, w in x.items() if gram in y) / norm if norm else 0.0)
    return sum(cosines) / N * math.exp(-((a[1] - b[1]) ** 2) / (2 * SIGMA**2))


def bleu(counts: np.ndarray, n: int) -> float:
    """BLEU-n (Papineni et al., 2002) of summed counts: the geometric mean of the shares of 1- to n-grams that are in a reference, less what brevity takes."""
    found, given, length, nearest = counts[:N], counts[N : 2 * N], counts[2 * N], counts[2 * N + 1]
    value = float(math.prod((found[k] + TINY) / (given[k] + SMALL) for k in range(n))) ** (1 / n)
    ratio = float((length + TINY) / (nearest + SMALL))
    return value * math.exp(1 - 1 / ratio) if ratio < 1 else value


def counts(said: str, captions: Sequence[str]) -> np.ndarray:
    """f64[2N + 2] of one caption: its n-grams that are in a reference, at most as often as in the one that has it most; all its n-grams; its words, and those of the reference nearest in length (of two
    the shorter)."""
    words = ptb.words(said)
    references = [ptb.words(caption) for caption in captions]
    most: Grams = functools.reduce(lambda a, b: a | b, map(grams, references))
    found = np.zeros(N)
    for gram, count in grams(words).items():
        found[len(gram) - 1] += min(count, most[gram])
    given = [max(0, len(words) - n) for n in range(N)]
    return np.array([*found, *given, len(words), min((abs(len(r) - len(words)), len(r)) for r in references)[1]], float)


def more(rows: Sequence[scoring.Row]) -> dict[str, scoring.Metric]:
    """Of one control: cider (in points, 100 for pycocoevalcap's 1), bleu_1 to bleu_4, and words, how long the captions are. Standard errors are those of sums over images: of BLEU by its slope at these
    sums, of CIDEr as if what its n-grams weigh were fixed."""
    said, captions = [row["parsed"] or "" for row in rows], [scoring.accepted(row) for row in rows]
    value = dict(zip(map(id, rows), 100 * cider(said, captions)))
    table = np.stack([counts(text, of) for text, of in zip(said, captions)])
    clusters = np.array(scoring.clusters(rows))
    out = {"cider": scoring.mean(rows, "CIDEr-D, idf of these images", lambda row: value[id(row)], "points")}
    out |= {f"bleu_{n}": _bleu(table, n, clusters) for n in range(1, N + 1)}
    return out | {"words": scoring.mean(rows, "words of a caption", lambda row: len(ptb.words(row["parsed"] or "")), "words")}


def _bleu(table: np.ndarray, n: int, clusters: np.ndarray) -> scoring.Metric:
    total = table.sum(axis=0)
    value, stderr = bleu(total, n), None
    if total[:n].all():  # else its logarithm has no slope
        found, given, length, nearest = table[:, :n] / total[:n], table[:, N : N + n] / total[N : N + n], table[:, 2 * N], table[:, 2 * N + 1]
        slopes = (found - given).mean(axis=1)
        if total[2 * N] < total[2 * N + 1]:
            slopes = slopes - nearest / total[2 * N] + total[2 * N + 1] * length / total[2 * N] ** 2
        stderr = scoring.error(value * slopes, clusters)
    return {"value": value, "stderr": stderr, "n": len(table), "variant": "of all captions together, nearest reference length"}
