"""What both sides of the comparison are given. The same bytes and texts everywhere: nothing is drawn, everything is seeded."""
import io

import numpy as np
from PIL import Image

# Seen by the models (the processors see all of them): an upright and a rotated one, palette, grey, and a wide one.
MODEL_IMAGES = ("rgb-37x53", "orientation-6", "palette", "grey", "rgb-64x41")

# For text towers and tokenizers: capitals, digits, punctuation, contractions, white space of all kinds, accents, other scripts, emoji.
TEXTS = (
    "A photo of 3 RED squares!",
    "it's two  blue   circles, isn't it?",
    " a leading space\nand a new line",
    "Café für 12 señoras",
    "一只猫 🙂",
    "The cat's on the mat; they'll see (10.5%).",
)

# For language models; a raw prompt has no template. The first has an answer for the loss.
PROMPTS = (
    "USER: How many red squares are in the picture? ASSISTANT:",
    "The cat sat on",
    "What's  this?\n",
)
# For vision-language models: a raw prompt and the names of its images, in the order of their marks.
IMAGE_PROMPTS = (
    ("USER: <image>\nHow many red squares are in the picture? ASSISTANT:", ("rgb-37x53",)),
    ("<image> and <image>\nWhich is larger, the first or the second?", ("orientation-6", "palette")),
    ("The cat sat on", ()),
)
# The supervised continuation of the first prompt.
ANSWERS = ("There are 3 red squares.",)


def images() -> dict[str, bytes]:
    """{name: encoded file}: modes, sizes and encodings that image processors treat differently.

    Greys of 16 bits are left out: Pillow's conversion, which transformers uses, clips all above 255 to white, and vlmjax keeps the upper 8
    bits (data/images.py).
    """
    rgb = lambda seed, height, width: Image.fromarray(_picture(seed, height, width))
    grey = lambda seed, height, width: Image.fromarray(_picture(seed, height, width)[..., 0])
    alpha = lambda height, width: Image.fromarray(np.linspace(0, 255, height * width).reshape(height, width).astype(np.uint8))

    rgba = rgb(5, 50, 33)
    rgba.putalpha(alpha(50, 33))
    grey_alpha = Image.merge("LA", (grey(4, 33, 47), alpha(33, 47)))
    palette = rgb(6, 45, 38).quantize(24, dither=Image.Dither.NONE)
    return {
        "rgb-37x53": _encoded(rgb(1, 53, 37)),
        "rgb-64x41": _encoded(rgb(2, 41, 64)),
        "grey": _encoded(grey(3, 29, 44)),
        "grey-alpha": _encoded(grey_alpha),
        "rgba": _encoded(rgba),
        "palette": _encoded(palette),
        "palette-transparent": _encoded(palette, transparency=3),
        "one-bit": _encoded(grey(7, 35, 31).convert("1", dither=Image.Dither.NONE)),
        "cmyk": _encoded(rgb(8, 40, 61).convert("CMYK"), "JPEG", quality=90),
        "orientation-6": _encoded(rgb(9, 36, 55), "JPEG", quality=90, exif=_orientation(6)),
        "orientation-3": _encoded(rgb(10, 36, 55), "JPEG", quality=90, exif=_orientation(3)),
        "column": _encoded(rgb(11, 40, 1)),
        "row": _encoded(rgb(12, 1, 40)),
        "square": _encoded(rgb(13, 90, 90), "JPEG", quality=90),
        "model-size": _encoded(rgb(14, 28, 28)),  # of the tiny models of tests/golden
        "smaller": _encoded(rgb(15, 11, 17)),
    }


def _picture(seed: int, height: int, width: int) -> np.ndarray:
    """u8[height, width, 3]: gradients, a rectangle, a disc and noise, so that each step of a resampling shows."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    slopes, phases = rng.uniform(0.05, 0.35, (2, 3)), rng.uniform(0, 6, 3)
    values = 128 + 70 * np.sin(slopes[0] * x[..., None] + slopes[1] * y[..., None] + phases)
    top, left = rng.integers(0, height // 2 + 1), rng.integers(0, width // 2 + 1)
    values[top : top + height // 3 + 1, left : left + width // 3 + 1] = rng.uniform(0, 255, 3)
    center, radius = rng.uniform(0.3, 0.8, 2) * (height, width), min(height, width) / 4
    values[(y - center[0]) ** 2 + (x - center[1]) ** 2 < radius**2] = rng.uniform(0, 255, 3)
    return np.clip(values + rng.normal(0, 12, values.shape), 0, 255).astype(np.uint8)


def _encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif
