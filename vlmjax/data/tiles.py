"""How many tiles each image of a source has, before any is decoded: rows are planned by it."""
import concurrent.futures
import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np

from vlmjax.data import images
from vlmjax.data.example import Source
from vlmjax.data.reading import image_file
from vlmjax.errors import UserError
from vlmjax.layout import ImageLayout

WORKERS = 16  # threads that read headers: they wait for a disk or a store


@dataclasses.dataclass(frozen=True)
class Tiles:
    """Of the images of one source. place: {key: where it stands in `counts`}. counts: i32[N], `layout.count` of each image; one whose size cannot be read has 1."""

    place: Mapping[str, int]
    counts: np.ndarray

    def of(self, keys: Iterable[str]) -> tuple[int, ...]:
        """Of each of these images."""
        return tuple(int(self.counts[self.place[key]]) for key in keys)


def count(source: Source, layout: ImageLayout | None, keys: Iterable[str] | None = None) -> Tiles | None:
    """From the manifest of a built set, else from the header of every file that `keys` names (None: all that its examples show). None where the layout cuts nothing."""
    if layout is None or layout.tiles == 1:
        return None
    if source.facts is not None:
        known = source.facts
        place, sizes = {key: i for i, key in enumerate(known.keys)}, np.stack([known.width, known.height], axis=1)
    else:
        if keys is None:
            keys = (key for example in source.examples for key in example.images)
        place = {key: i for i, key in enumerate(dict.fromkeys(keys))}
        with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
            sizes = np.array(list(pool.map(lambda key: _size(source, key), place)), np.int32).reshape(-1, 2)
    different, which = np.unique(sizes, axis=0, return_inverse=True)
    return Tiles(place, np.array([layout.count(*size) for size in different.tolist()], np.int32)[which.reshape(-1)])


def _size(source: Source, key: str) -> tuple[int, int]:
    try:
        return images.size(image_file(source, key))
    except UserError:  # whoever shows it says why
        return 0, 0
