"""Which examples of its sources an epoch draws: a pure function of their numbers, the seed and the epoch."""
from collections.abc import Sequence

import numpy as np

# What the number beside a source says: passes over it per epoch, or its share of the examples of an epoch.
MIXTURES = ("passes", "weights")


def passes(numbers: Sequence[float], usable: Sequence[int], mixture: str) -> list[float]:
    """Passes over each source per epoch. With `weights` an epoch has as many examples as all sources together have usable ones."""
    if mixture == "passes":
        return list(numbers)
    return [number / sum(numbers) * sum(usable) / max(count, 1) for number, count in zip(numbers, usable, strict=True)]


def draw(usable: Sequence[np.ndarray], passes: Sequence[float], seed: int, epoch: int) -> np.ndarray:
    """A source's examples as often as its passes say whole, then of a fraction another seeded part in every epoch. usable: indexes of each source, i64[n]."""
    drawn = []
    for s, (own, times) in enumerate(zip(usable, passes, strict=True)):
        drawn += [own] * int(times)
        if part := times % 1:
            # s + 1: to NumPy (seed, epoch, 0) is the same seed as the (seed, epoch) of packing.
            drawn.append(np.random.default_rng((seed, epoch, s + 1)).permutation(own)[: round(part * len(own))])
    return np.concatenate(drawn)
