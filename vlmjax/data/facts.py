"""What is known of the images of a data set without reading them again: sizes, hashes, what is broken."""
import dataclasses
import io
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from etils import epath

from vlmjax import files
from vlmjax.data import images, perceptual
from vlmjax.errors import UserError

_COLUMNS = ("width", "height", "hashes", "thumbs")


@dataclasses.dataclass(frozen=True)
class ImageFacts:
    """One entry per image. keys: as in `Example.images`. width, height: of the upright image in pixels, i32[N], 0 where it cannot be read.
    hashes: u64[N, 3]
    and thumbs: u8[N, 8, 8, 3], see `perceptual`. faults: {key: reason}."""

    keys: tuple[str, ...]
    width: np.ndarray
    height: np.ndarray
    hashes: np.ndarray
    thumbs: np.ndarray
    faults: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def readable(self) -> np.ndarray:
        """bool[N]."""
        return self.width > 0

    def part(self, rows: Sequence[int]) -> "ImageFacts":
        """These rows alone."""
        keys = tuple(self.keys[i] for i in rows)
        return ImageFacts(keys, *(getattr(self, name)[list(rows)] for name in _COLUMNS), {key: self.faults[key] for key in keys if key in self.faults})


def gather(keys: Sequence[str], read: Callable[[str], bytes]) -> ImageFacts:
    """Reads and decodes every image."""
    N, faults = len(keys), {}
    sizes, hashes, thumbs = np.zeros((N, 2), np.int32), np.zeros((N, 3), np.uint64), np.zeros((N, perceptual.THUMB, perceptual.THUMB, 3), np.uint8)
    for i, key in enumerate(keys):
        try:
            image = images.decode(read(key))
        except (UserError, OSError) as error:
            faults[key] = files.reason(error)
        else:
            sizes[i], hashes[i], thumbs[i] = image.size, perceptual.fingerprint(image), perceptual.thumbnail(image)
    return ImageFacts(tuple(keys), sizes[:, 0], sizes[:, 1], hashes, thumbs, faults)


def join(parts: Sequence[ImageFacts]) -> ImageFacts:
    return ImageFacts(tuple(key for part in parts for key in part.keys), *(np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS),
                      {key: reason for part in parts for key, reason in part.faults.items()})


def save(path: epath.PathLike, facts: ImageFacts) -> None:
    buffer = io.BytesIO()
    faults = {"fault_keys": list(facts.faults), "fault_reasons": list(facts.faults.values())}
    np.savez_compressed(buffer, keys=np.array(facts.keys, str), **{name: getattr(facts, name) for name in _COLUMNS},
                        **{name: np.array(values, str) for name, values in faults.items()})
    files.write(path, buffer.getvalue())


def load(path: epath.PathLike) -> ImageFacts:
    held = files.read_npz(path)
    faults = dict(zip(held["fault_keys"].tolist(), held["fault_reasons"].tolist()))
    return ImageFacts(tuple(held["keys"].tolist()), *(held[name] for name in _COLUMNS), faults)
