import io

import numpy as np
import pytest
from PIL import Image

from tests.data.tiny import png
from vlmjax.data.images import decode, fit, prepare
from vlmjax.errors import UserError
from vlmjax.layout import ImageLayout

NOISE = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)


def test_an_image_that_fits_is_left_alone():
    for resize in ("crop", "pad", "squash"):
        np.testing.assert_array_equal(prepare(png(NOISE), ImageLayout(8, 4, resize)), NOISE)


def test_crop_pad_and_squash_of_a_wide_image():
    wide = Image.fromarray(np.concatenate([np.full((8, 4, 3), 10), NOISE, np.full((8, 4, 3), 20)], axis=1).astype(np.uint8))
    np.testing.assert_array_equal(fit(wide, ImageLayout(8, 4, "crop")), NOISE)
    squashed = fit(wide, ImageLayout(8, 4, "squash"))
    assert squashed[:, 0].mean() < 15 and squashed[:, -1].mean() < 25
    padded = fit(wide, ImageLayout(16, 4, "pad", mean=(0.5, 0.25, 1.0)))
    assert padded.shape == (16, 16, 3)
    assert (padded[:4] == (127, 63, 255)).all() and (padded[12:] == (127, 63, 255)).all()
    np.testing.assert_array_equal(padded[4:12], np.asarray(wide))


@pytest.mark.parametrize("mode", ["L", "P", "LA", "RGBA", "CMYK", "I;16"])
def test_every_mode_becomes_rgb(mode):
    image = Image.new("L", (4, 4), 204)
    image = Image.fromarray(np.full((4, 4), 204 << 8, np.uint16)) if mode == "I;16" else image.convert("RGB").convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "tiff")
    decoded = decode(buffer.getvalue())
    assert decoded.mode == "RGB" and decoded.getpixel((1, 1)) == (204,) * 3


def test_the_camera_s_rotation_is_undone():
    exif = Image.Exif()
    exif[0x0112] = 6  # the first row of the file is the right-hand side of the scene
    buffer = io.BytesIO()
    Image.new("RGB", (6, 2)).save(buffer, "jpeg", exif=exif)
    assert decode(buffer.getvalue()).size == (2, 6)


@pytest.mark.parametrize("data", [b"", b"not an image", png(NOISE)[:100], png(NOISE)[:-30], png(NOISE).replace(b"IDAT", b"IDOT")])
def test_broken_files_are_one_line(data):
    with pytest.raises(UserError, match="not a readable image") as error:
        decode(data)
    assert "\n" not in str(error.value)
