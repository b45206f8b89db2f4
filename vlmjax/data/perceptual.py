"""Perceptual hashes and thumbnails: near for the same picture in another size or compression."""
import numpy as np
from PIL import Image

# The same photograph scaled to a quarter or compressed as JPEG of quality 30 differs in up to 24 bits of 192, two photographs in 35 and more.
NEAR = 24
# Thumbnails of the same photograph, scaled to a half or compressed to quality 50, differ by up to 8 % of their contrast. Drawings of one shape
# on a plain ground have near hashes by the thousand; their thumbnails differ by 10 % and more.
ALIKE = 0.1
THUMB = 8

# Steps of brightness below this are noise of compression and count as none.
_MARGIN = 3


def fingerprint(image: Image.Image) -> np.ndarray:
    """RGB image → u64[3]: where brightness falls to the right and downwards on a grid of 8x8 (64 bits each), and the colours of 4x4 fields
    (two steps of Cb and Cr each, in a code whose neighbours differ in one bit)."""
    small = image.resize((9, 9), Image.Resampling.BOX, reducing_gap=2.0).convert("YCbCr")
    y, cb, cr = (np.asarray(channel, np.int16) for channel in small.split())
    right = y[:8, :8] - y[:8, 1:] > _MARGIN
    down = y[:8, :8] - y[1:, :8] > _MARGIN
    fields = np.asarray(image.resize((4, 4), Image.Resampling.BOX, reducing_gap=2.0).convert("YCbCr"), np.int16)[..., 1:]
    colours = np.stack([fields > 128 - 12, fields > 128 + 12], axis=-1)
    return np.packbits(np.concatenate([right.ravel(), down.ravel(), colours.ravel()])).view(">u8").astype(np.uint64)


def thumbnail(image: Image.Image) -> np.ndarray:
    """RGB image → u8[8, 8, 3]."""
    return np.asarray(image.resize((THUMB, THUMB), Image.Resampling.BOX, reducing_gap=2.0))


def same(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray], distance: int = NEAR, alike: float = ALIKE) -> np.ndarray:
    """Two sets of (hashes u64[n, 3], thumbnails u8[n, 8, 8, 3]) → i64[k, 2]: rows of a and of b that show the same picture."""
    (hashes, thumbs), (others, their_thumbs) = a, b
    ours, theirs = (x.reshape(len(x), THUMB**2, 3).astype(np.float32) for x in (thumbs, their_thumbs))
    tones, their_tones = ours.mean(1), theirs.mean(1)
    contrast = np.maximum(np.abs(theirs - their_tones[:, None]).mean((1, 2)), 1.0)
    found = [np.zeros((0, 2), np.int64)]
    rows = max(1, (1 << 18) // max(len(others), 1))
    for start in range(0, len(hashes), rows):
        block = hashes[start : start + rows]
        apart = np.zeros((len(block), len(others)), np.uint8)
        for word in range(hashes.shape[1]):
            apart += np.bitwise_count(block[:, word, None] ^ others[None, :, word])
        i, j = np.nonzero(apart <= distance)
        # Thumbnails differ by at least as much as their mean colours, which are compared in a fraction of the time; the slack is for rounding.
        maybe = np.abs(tones[start + i] - their_tones[j]).mean(1) <= alike * contrast[j] + 0.01
        i, j = i[maybe], j[maybe]
        differ = np.abs(ours[start + i] - theirs[j]).mean((1, 2))
        kept = differ <= alike * contrast[j]
        found.append(np.stack([start + i[kept], j[kept]], axis=1))
    return np.concatenate(found)
