import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from tests.data.tiny import png
from vlmjax.data.images import MAX_PIXELS, cut, decode, fit, prepare, size
from vlmjax.errors import UserError
from vlmjax.layout import ImageLayout

NOISE = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)


def test_an_image_that_fits_is_left_alone():
    for resize in ("crop", "pad", "squash"):
        np.testing.assert_array_equal(prepare(png(NOISE), ImageLayout(8, 4, resize)), NOISE[None])


def test_crop_pad_and_squash_of_a_wide_image():
    wide = Image.fromarray(np.concatenate([np.full((8, 4, 3), 10), NOISE, np.full((8, 4, 3), 20)], axis=1).astype(np.uint8))
    np.testing.assert_array_equal(fit(wide, ImageLayout(8, 4, "crop")), NOISE)
    squashed = fit(wide, ImageLayout(8, 4, "squash"))
    assert squashed[:, 0].mean() < 15 and squashed[:, -1].mean() < 25
    padded = fit(wide, ImageLayout(16, 4, "pad", mean=(0.5, 0.25, 1.0)))
    assert padded.shape == (16, 16, 3)
    assert (padded[:4] == (127, 63, 255)).all() and (padded[12:] == (127, 63, 255)).all()
    np.testing.assert_array_equal(padded[4:12], np.asarray(wide))


@pytest.mark.parametrize("width, height", [(64, 48), (48, 64), (200, 3), (3, 200), (20, 11), (33, 32), (64, 63), (24, 7)])
def test_padding_is_resampling_the_padded_square(width, height):
    """Where it goes another way, no pixel shows it."""
    draw = np.random.default_rng(width)
    image, side = Image.fromarray(draw.integers(0, 256, (height, width, 3), np.uint8)), max(width, height)
    for size in (24, 16, 64):
        mean = tuple(draw.random(3))
        square = Image.new("RGB", (side, side), tuple(int(255 * channel) for channel in mean))
        square.paste(image, ((side - width) // 2, (side - height) // 2))
        np.testing.assert_array_equal(fit(image, ImageLayout(size, 4, "pad", mean=mean)), square.resize((size, size), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("width, height, tiles", [(24, 8, 3), (24, 16, 6), (9, 30, 3), (50, 47, 4), (8, 8, 1)])
def test_tiles_are_the_stretched_image_row_by_row_and_the_whole_comes_last(width, height, tiles):
    image, layout = Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)), ImageLayout(8, 4, "squash", tiles=6)
    (columns, rows), made = layout.grid(width, height), cut(image, layout)
    assert len(made) == layout.count(width, height) == tiles + (tiles > 1)
    joined = np.concatenate([np.concatenate(made[row * columns : (row + 1) * columns], axis=1) for row in range(rows)], axis=0)
    np.testing.assert_array_equal(joined, image.resize((8 * columns, 8 * rows), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(made[-1], image.resize((8, 8), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(prepare(encoded(image), layout), made)


def encoded(image, kind="png", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def raw_png(width, height, depth, colour, content):
    """A PNG of these samples (content: chunks of its zlib stream), as its standard lays it out; Pillow writes few of them."""
    chunk = lambda kind, body: struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    packed = zlib.compressobj(1)
    stream = b"".join(packed.compress(part) for part in content) + packed.flush()
    header = struct.pack(">2I5B", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", stream) + chunk(b"IEND", b"")


@pytest.mark.parametrize("mode", ["L", "P", "LA", "RGBA", "CMYK", "I;16"])
def test_every_mode_becomes_rgb(mode):
    image = Image.new("L", (4, 4), 204)
    image = Image.fromarray(np.full((4, 4), 204 << 8, np.uint16)) if mode == "I;16" else image.convert("RGB").convert(mode)
    decoded = decode(encoded(image, "tiff"))
    assert decoded.mode == "RGB" and decoded.getpixel((1, 1)) == (204,) * 3


@pytest.mark.parametrize("channels, colour", [(1, 0), (3, 2), (2, 4), (4, 6)], ids=["grey", "RGB", "grey and alpha", "RGB and alpha"])
def test_sixteen_bits_keep_their_upper_eight(channels, colour):
    values = np.random.default_rng(0).integers(0, 1 << 16, (5, 7, channels)).astype(">u2")
    want = np.broadcast_to((values >> 8)[..., : 3 if channels > 2 else 1], (5, 7, 3))
    np.testing.assert_array_equal(decode(raw_png(7, 5, 16, colour, (b"\0" + row.tobytes() for row in values))), want)
    if channels == 1:
        np.testing.assert_array_equal(decode(b"P5 7 5 65535\n" + values.tobytes()), want)


def test_a_palette_and_the_colour_it_declares_transparent():
    palette = Image.fromarray((np.arange(64) % 4).astype(np.uint8).reshape(8, 8))
    palette.putpalette([10, 20, 30, 200, 0, 0, 0, 200, 0, 0, 0, 200])
    want = np.array([(10, 20, 30), (200, 0, 0), (0, 200, 0), (0, 0, 200)], np.uint8)[np.asarray(palette)]
    np.testing.assert_array_equal(decode(encoded(palette)), want)
    np.testing.assert_array_equal(decode(encoded(palette, transparency=bytes([255, 0, 100, 255]))), want)  # an alpha is dropped
    np.testing.assert_array_equal(decode(encoded(palette, transparency=2)), np.where((want == (0, 200, 0)).all(-1, keepdims=True), 255, want))


def test_cmyk_as_a_camera_shop_writes_it():
    """A JPEG of four inks holds them inverted, which Adobe's mark says: (0, 255, 255, 0) is red."""
    inks = np.zeros((16, 16, 4), np.uint8)
    inks[:, :8, 1:3], inks[:, 8:, 3] = 255, 55
    file = encoded(Image.fromarray(inks, "CMYK"), "jpeg", quality=100)
    assert b"Adobe" in file
    decoded = np.asarray(decode(file), int)
    assert np.abs(decoded[:, :8] - (255, 0, 0)).max() <= 2 and np.abs(decoded[:, 8:] - 200).max() <= 2


@pytest.mark.parametrize("kind, options", [("gif", {}), ("webp", {"lossless": True}), ("png", {})])
def test_of_an_animation_the_first_frame(kind, options):
    first, second = (Image.fromarray(np.kron(np.array([[0, 255], [255, grey]], np.uint8), np.ones((4, 4), np.uint8))).convert("RGB") for grey in (0, 90))
    file = encoded(first, kind, save_all=True, append_images=[second], duration=50, **options)
    assert Image.open(io.BytesIO(file)).n_frames == 2
    np.testing.assert_array_equal(decode(file), np.asarray(first))


@pytest.mark.parametrize("kind", ["png", "tiff", "jpeg"])
def test_the_camera_s_rotation_is_undone(kind):
    """EXIF's eight values of Orientation say which sides of the scene the first row and the first column of the file are."""
    scene = np.asarray(Image.fromarray(NOISE[:3, :2]).resize((16, 24), Image.Resampling.NEAREST))
    stored = {1: scene, 2: scene[:, ::-1], 3: scene[::-1, ::-1], 4: scene[::-1], 5: scene.swapaxes(0, 1), 6: scene.swapaxes(0, 1)[::-1],
              7: scene[::-1, ::-1].swapaxes(0, 1), 8: scene.swapaxes(0, 1)[:, ::-1]}
    for value, pixels in stored.items():
        exif = Image.Exif()
        exif[0x0112] = value
        decoded = decode(encoded(Image.fromarray(pixels), kind, exif=exif, **({"quality": 100, "subsampling": 0} if kind == "jpeg" else {})))
        assert np.abs(np.asarray(decoded, int) - scene).max() <= (6 if kind == "jpeg" else 0), value


@pytest.mark.parametrize("kind", ["png", "tiff", "jpeg", "webp", "bmp", "gif", "ppm", "ico"])
def test_the_size_is_that_of_the_decoded_image(kind):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8))
    for value in range(1, 9) if kind in ("png", "tiff", "jpeg", "webp") else (1,):
        exif = Image.Exif()
        exif[0x0112] = value
        file = encoded(image, kind, exif=exif) if kind not in ("bmp", "gif", "ppm", "ico") else encoded(image, kind)
        assert size(file) == decode(file).size
        assert kind == "ico" or size(file) == ((16, 24) if value >= 5 else (24, 16))


def test_the_size_is_read_from_the_header():
    assert size(HALF["jpeg"]) == size(HALF["png"]) == (40, 40)  # whoever shows it finds that it is broken
    for data, reason in ((b"", "empty file"), (b"<html>", "an HTML page"), (raw_png(30000, 30000, 8, 2, ()), "30000 x 30000 pixels, more than")):
        with pytest.raises(UserError, match=reason):
            size(data)


WHOLE = {kind: encoded(Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 40, 3), np.uint8)), kind) for kind in ("jpeg", "png", "gif", "webp", "tiff", "bmp")}
HALF = {kind: file[: len(file) // 2] for kind, file in WHOLE.items()}


@pytest.mark.parametrize("data, reason", [
    (b"", "empty file"),
    (bytes(5000), "nothing but zero bytes"),
    (b"\n<!DOCTYPE html><title>404</title>", "an HTML page, not an image"),
    (b"\xef\xbb\xbf<HTML><body>moved</body></HTML>", "an HTML page, not an image"),
    (b'<?xml version="1.0"?><Error>AccessDenied</Error>', "an XML text, not an image"),
    (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing, not an image"),
    (b"not an image", "not a readable image: of no known format"),
    (HALF["jpeg"], "truncated (JPEG)"),
    (WHOLE["jpeg"][:10], "truncated (JPEG)"),
    (WHOLE["jpeg"][:-2], "truncated (JPEG)"),
    (HALF["jpeg"] + bytes(len(HALF["jpeg"])), "truncated (JPEG)"),
    (HALF["png"], "truncated (PNG)"),
    (WHOLE["png"][:100], "truncated (PNG)"),
    (HALF["gif"], "truncated (GIF)"),
    (HALF["bmp"], "truncated (BMP)"),
    (HALF["tiff"], "truncated (TIFF)"),
    (WHOLE["png"].replace(b"IDAT", b"IDOT"), "not a readable image: of no known format"),
    (encoded(Image.new("F", (4, 4), 0.5), "tiff"), "numbers of 32 bits without a scale (TIFF)"),
])
def test_what_is_broken_is_refused_with_a_reason_to_count(data, reason):
    with pytest.raises(UserError) as error:
        decode(data)
    assert str(error.value) == reason


@pytest.mark.parametrize("kind", WHOLE)
def test_every_beginning_of_a_file_is_the_whole_picture_or_refused_and_reasons_are_few(kind):
    whole, reasons = np.asarray(decode(WHOLE[kind])), set()
    for length in [*range(0, len(WHOLE[kind]), 97), *range(len(WHOLE[kind]) - 40, len(WHOLE[kind]))]:
        try:
            np.testing.assert_array_equal(decode(WHOLE[kind][:length]), whole)
        except UserError as error:
            reasons.add(str(error))
    assert 1 < len(reasons) < 5 and not any("\n" in reason or "0x" in reason for reason in reasons)


def test_a_thumbnail_s_end_is_not_the_end_of_the_picture():
    exif = b"Exif\0\0" + WHOLE["jpeg"]  # what lies in a segment is not looked at
    whole = encoded(Image.fromarray(NOISE), "jpeg", exif=exif)
    assert decode(whole).size == (8, 8)
    with pytest.raises(UserError, match="truncated"):
        decode(whole[:-60] + bytes(60))


def test_a_size_that_memory_could_not_hold_is_read_from_the_header(monkeypatch):
    bomb = raw_png(30000, 30000, 1, 0, (bytes(3751) for _ in range(30000)))
    assert len(bomb) < 1 << 20
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("decompressed"))
    with pytest.raises(UserError, match=f"^30000 x 30000 pixels, more than the {MAX_PIXELS} allowed$"):
        decode(bomb)
    with pytest.raises(UserError, match="^13000 x 13000 pixels"):  # within Pillow's own limit
        decode(raw_png(13000, 13000, 8, 2, ()))


@pytest.mark.parametrize("resize, reason", [("pad", "13000 x 13000 pixels when padded to a square"), ("crop", "104000000 x 8000 pixels when its short side is 8000")])
def test_a_line_that_a_square_would_blow_up_is_refused(resize, reason):
    with pytest.raises(UserError, match=f"^{reason}, more than the {MAX_PIXELS} allowed$"):
        fit(Image.new("RGB", (13000, 1)), ImageLayout(8000, 4, resize))
    assert fit(Image.new("RGB", (13000, 1)), ImageLayout(8, 4, "squash")).shape == (8, 8, 3)
