"""What a model is shown instead of the right image, to tell what of its score the image earns.

real      the item's own image
blind     the image tokens stay and hold uniform grey: what the question alone gives away
shuffled  another item's image, by a fixed derangement: what any image of this kind gives away
prior     no model at all: the answer that this very question had most often in the training split
"""
from collections.abc import Iterable

import numpy as np

from vlmjax.errors import UserError
from vlmjax.layout import ImageLayout

SHOWN = ("real", "blind", "shuffled")  # the ones that ask the model
CONTROLS = (*SHOWN, "prior")


def grey(layout: ImageLayout) -> np.ndarray:
    """u8[size, size, 3], mid grey."""
    return np.full((layout.size, layout.size, 3), 128, np.uint8)


def derangement(keys: Iterable[str], seed: int) -> dict[str, str]:
    """{key: another key}, one to one and never itself: a function of the set of keys and the seed, not of any order or batch.

    One step along a seeded random cycle through all keys.
    """
    cycle = sorted(set(keys))
    if len(cycle) == 1:
        raise UserError(f"control shuffled: needs at least two images, there is only {cycle[0]}")
    np.random.default_rng(seed).shuffle(cycle)
    return dict(zip(cycle, cycle[1:] + cycle[:1]))
