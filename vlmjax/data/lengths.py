"""What every example costs, as a table: all that planning reads of a data set, whatever its size."""
import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class LengthTable:
    """One number per example in each column, all i32[N].

    head: tokens up to the last image, image tokens included, which the examples of a group share; 0 without images. tail: tokens after
    it. supervised: supervised tokens. images: images. group: examples with the same number show the same images behind the same text.
    """

    head: np.ndarray
    tail: np.ndarray
    supervised: np.ndarray
    images: np.ndarray
    group: np.ndarray

    def __len__(self) -> int:
        return len(self.tail)
