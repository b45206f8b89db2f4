"""Bytes → pixels: decode, then crop, pad or squash to the encoder's square, or cut into several of them."""
import io
import re

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from vlmjax.errors import UserError
from vlmjax.layout import ImageLayout

Picture = Image.Image | bytes | np.ndarray  # as people have them: the bytes are a file's, an array is u8[h, w, 3]

# A phone's photo of 12,000 x 9,000 passes, also padded to a square. Pillow holds 4 bytes per pixel: 576 MB for the largest, and as much again for
# what it is converted to.
MAX_PIXELS = 12_000 * 12_000

# Formats whose header has the size that decoding ends with. A PNG may say where up is behind its pixels, in one of the ways that Pillow reads, so one that does is decoded.
_SIZED = ("BMP", "GIF", "JPEG", "MPO", "PNG", "PPM", "WEBP")
_PNG_TURNS = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")


def decode(data: bytes) -> Image.Image:
    """An upright RGB image; of an animation, the first frame. An alpha channel is dropped, as in the code the public encoders were trained
    with, and a colour that a file declares transparent becomes white, both as transformers 5 loads and prepares a file; greys of 16 bits keep
    their upper 8 (Pillow's own conversion clips them to white).

    UserError for what is not a whole image of at most MAX_PIXELS, which the header says before anything is decompressed. Its text is a reason
    that can be counted: files with the same fault have the same.
    """
    kind = ""
    try:
        image = _open(data)
        kind = image.format
        if kind in ("JPEG", "MPO") and not _has_end(data):
            raise UserError(f"truncated ({kind})")
        image.load()
        if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:  # otherwise it would be copied
            image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I;16") or image.mode == "I" and kind == "PPM":
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        if image.mode in ("I", "F"):
            raise UserError(f"numbers of 32 bits without a scale ({kind})")
        if image.mode == "P" and isinstance(image.info.get("transparency"), bytes):
            image = image.convert("RGBA")
        if image.mode != "RGB":
            image = image.convert("RGB")
        if image.info.get("transparency") is not None:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")
        return image
    except UserError:
        raise
    except Exception as error:  # broken files make Pillow's decoders raise nearly anything
        raise UserError(_reason(data, kind, error)) from None


def fit(image: Image.Image, layout: ImageLayout) -> np.ndarray:
    """RGB image → u8[size, size, 3] by the layout's resize rule, bicubic; an image that has the size already is not resampled. UserError for one so
    narrow that it would have more than MAX_PIXELS on the way."""
    size = layout.size
    width, height = image.size
    if layout.resize == "crop":
        short = min(width, height)
        # The long side is rounded down and the centre too, as in CLIP's processor.
        whole = size * width // short, size * height // short
        _check(*whole, f" when its short side is {size}")
        image = _resize(image, whole)
        left, top = (image.width - size) // 2, (image.height - size) // 2
        image = image.crop((left, top, left + size, top + size))
    elif layout.resize == "pad" and width != height:
        side = max(width, height)
        _check(side, side, " when padded to a square")
        across = side
        if width > height:  # Pillow resamples along rows first, which leaves rows of one colour what they are: they are put there afterwards
            across, image = size, _resize(image, (size, height))
        square = Image.new("RGB", (across, side), tuple(int(255 * channel) for channel in layout.mean))
        square.paste(image, ((across - image.width) // 2, (side - height) // 2))
        image = square
    return np.array(_resize(image, (size, size)))


def cut(image: Image.Image, layout: ImageLayout) -> np.ndarray:
    """RGB image → u8[n, size, size, 3], n = layout.count(*image.size): the image stretched to its grid and cut row by row, then itself as a thumbnail.

        0 1 2        tiles  0 1 2 3 4 5  whole
        3 4 5
    """
    (columns, rows), size = layout.grid(*image.size), layout.size
    whole = fit(image, layout)[None]
    if columns * rows == 1:
        return whole
    canvas = np.asarray(_resize(image, (columns * size, rows * size)))
    tiles = canvas.reshape(rows, size, columns, size, 3).swapaxes(1, 2).reshape(-1, size, size, 3)
    return np.concatenate([tiles, whole])


def rgb(picture: Picture) -> Image.Image:
    """An RGB image; a file's is upright."""
    if isinstance(picture, bytes):
        return decode(picture)
    if isinstance(picture, np.ndarray) and (picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3):
        raise UserError(f"image: an array is u8[height, width, 3], not {picture.dtype}{list(picture.shape)}")
    return Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture.convert("RGB")


def shown(picture: Picture, layout: ImageLayout) -> np.ndarray:
    """u8[n, size, size, 3]: `cut` of a picture, or what it was cut into before."""
    if isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.ndim == 4 and picture.shape[1:] == (layout.size, layout.size, 3):
        return picture
    return cut(rgb(picture), layout)


def prepare(data: bytes, layout: ImageLayout) -> np.ndarray:
    """Encoded bytes → u8[n, size, size, 3]: what the encoder reads of the image, n = 1 where nothing is cut."""
    return cut(decode(data), layout)


def size(data: bytes) -> tuple[int, int]:
    """(width, height) of `decode(data)`, of most files from the header alone: they may be broken behind it. UserError where they are not even that far an image."""
    kind = ""
    try:
        image = _open(data)
        kind = image.format
        if kind not in _SIZED or kind == "PNG" and any(mark in data for mark in _PNG_TURNS):
            return decode(data).size
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5 if kind != "PNG" else False
        return image.size[::-1] if turned else image.size
    except UserError:
        raise
    except Exception as error:
        raise UserError(_reason(data, kind, error)) from None


def _resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)


def _open(data: bytes) -> Image.Image:
    """The image, of which only the header has been read."""
    try:
        image = Image.open(io.BytesIO(data))
        width, height = image.size
    except Image.DecompressionBombError:  # Pillow's own limit, which does not say the size
        width, height = next(factory(io.BytesIO(data), "").size for factory, accept in Image.OPEN.values() if accept and accept(data[:16]) is True)
    _check(width, height)
    return image


def _check(width: int, height: int, when: str = "") -> None:
    if width * height > MAX_PIXELS:
        raise UserError(f"{width} x {height} pixels{when}, more than the {MAX_PIXELS} allowed")


def _has_end(data: bytes) -> bool:
    """Whether an end mark follows the picture of a JPEG. A file whose tail was never written, zero bytes, is grey from there on to Pillow."""
    at = 2
    while (mark := data[at : at + 2]) and mark[0] == 0xFF and len(mark) == 2 and mark[1] != 0xDA:  # up to the scan; a thumbnail lies in a segment
        if mark[1] == 0xFF:  # filling
            at += 1
        else:
            at += 2 if mark[1] == 0x01 or 0xD0 <= mark[1] <= 0xD7 else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return data.find(b"\xff\xd9", at) >= 0


def _reason(data: bytes, kind: str, error: Exception) -> str:
    """Why `data` could not be decoded, without what differs from file to file (lengths, offsets, addresses)."""
    if not data.strip(b"\0"):
        return "nothing but zero bytes" if data else "empty file"
    start = data[:1024].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith(b"<"):
        what = "an HTML page" if b"<html" in start or b"<!doctype html" in start else "an SVG drawing" if b"<svg" in start else "an XML text"
        return f"{what}, not an image"
    if isinstance(error, UnidentifiedImageError):
        return "not a readable image: of no known format"
    text = " ".join(re.sub(r"\([^)]*\)|<[^>]*>|\d+", "", str(error)).split()) or type(error).__name__
    kind = kind or ("JPEG" if data[:2] == b"\xff\xd8" else "")
    of = f" ({kind})" if kind else ""
    return f"truncated{of}" if "truncated" in text.lower() else f"not a readable image{of}: {text}"
