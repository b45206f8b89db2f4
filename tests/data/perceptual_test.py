import io

import numpy as np
import pytest
from PIL import Image

from vlmjax.data import perceptual


def picture(seed: int, size: int = 256) -> Image.Image:
    """Smooth coloured clouds, as different as photographs are."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (7, 7, 3), np.uint8)).resize((size, size * 3 // 4), Image.Resampling.BICUBIC)


def compressed(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "jpeg", quality=quality)
    return Image.open(buffer).convert("RGB")


def both(images: list[Image.Image]) -> tuple[np.ndarray, np.ndarray]:
    return np.stack([perceptual.fingerprint(image) for image in images]), np.stack([perceptual.thumbnail(image) for image in images])


@pytest.mark.parametrize("seed", range(5))
def test_the_same_picture_scaled_and_compressed_is_found_and_no_other(seed):
    original = picture(seed)
    copies = [compressed(original.resize((side, side * 3 // 4)), quality) for side, quality in ((256, 50), (128, 60), (64, 90))]
    others = [picture(seed + k) for k in range(10, 30)]
    assert perceptual.same(both([original]), both([*copies, *others])).tolist() == [[0, 0], [0, 1], [0, 2]]


def test_drawings_of_one_shape_are_different_pictures():
    drawings = []
    for n in range(6):
        drawing = Image.new("RGB", (64, 64), "white")
        drawing.paste("red", (6 + 4 * n, 20, 26 + 4 * n, 40))
        drawings.append(drawing)
    assert perceptual.same(both(drawings), both(drawings)).tolist() == [[n, n] for n in range(6)]


def test_pairs_of_large_sets_are_those_of_small_ones():
    rng = np.random.default_rng(0)
    hashes, thumbs = rng.integers(0, 1 << 63, (4000, 3), np.uint64), rng.integers(0, 256, (4000, 8, 8, 3), np.uint8)
    other = np.concatenate([hashes[::40], rng.integers(0, 1 << 63, (200, 3), np.uint64)]), np.concatenate([thumbs[::40], thumbs[:200]])
    other[0][0, 0] ^= np.uint64(0b1011)
    other[1][1] = 0
    expected = [[40 * n, n] for n in range(100) if n != 1]
    assert perceptual.same((hashes, thumbs), other, distance=3).tolist() == expected
    assert perceptual.same((hashes, thumbs), other, distance=2).tolist() == expected[1:]
