"""Bytes → pixels: decode, then crop, pad or squash to the encoder's square."""
import io
import warnings

import numpy as np
from PIL import Image, ImageOps

from vlmjax.errors import UserError
from vlmjax.layout import ImageLayout


def decode(data: bytes) -> Image.Image:
    """An upright RGB image. An alpha channel is dropped, as in the code the public encoders were trained with, and a colour that a file
    declares transparent becomes white, both as transformers 5 loads and prepares a file; greys of 16 bits keep their upper 8
    (Pillow's own conversion clips them to white)."""
    try:
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        if image.mode.startswith("I;16"):
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow would rather see RGBA made of a palette with alphas
            image = image.convert("RGB")
        if image.info.get("transparency") is not None:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")
        return image
    except Exception as error:  # broken files make Pillow's decoders raise nearly anything
        raise UserError(f"not a readable image ({len(data)} bytes): {_one_line(error)}") from None


def fit(image: Image.Image, layout: ImageLayout) -> np.ndarray:
    """RGB image → u8[size, size, 3] by the layout's resize rule, bicubic; an image that has the size already is not resampled."""
    size = layout.size
    width, height = image.size
    if layout.resize == "crop":
        short = min(width, height)
        # The long side is rounded down and the centre too, as in CLIP's processor.
        image = _resize(image, (size * width // short, size * height // short))
        left, top = (image.width - size) // 2, (image.height - size) // 2
        image = image.crop((left, top, left + size, top + size))
    elif layout.resize == "pad" and width != height:
        side = max(width, height)
        square = Image.new("RGB", (side, side), tuple(int(255 * channel) for channel in layout.mean))
        square.paste(image, ((side - width) // 2, (side - height) // 2))
        image = square
    return np.array(_resize(image, (size, size)))


def prepare(data: bytes, layout: ImageLayout) -> np.ndarray:
    """Encoded bytes → u8[size, size, 3]."""
    return fit(decode(data), layout)


def _resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
