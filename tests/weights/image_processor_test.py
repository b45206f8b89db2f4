import json

import pytest

from vlmjax.errors import UserError
from vlmjax.layout import ImageLayout
from vlmjax.models.vit import ViTConfig
from vlmjax.weights import image_processor

ENCODER = ViTConfig(size=28, patch=7, width=16, layers=2, heads=2, mlp=24)


def read(directory, node, name="preprocessor_config.json"):
    (directory / name).write_text(json.dumps(node))
    return image_processor.layout(directory, ENCODER)


@pytest.mark.parametrize("rule", ["crop", "pad", "squash"])
def test_what_is_written_is_read(tmp_path, rule):
    layout = ImageLayout(28, 7, rule, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert read(tmp_path, image_processor.config(layout)) == layout
    assert read(tmp_path, {"processor_class": "LlavaProcessor", "image_processor": image_processor.config(layout)}, "processor_config.json") == layout


@pytest.mark.parametrize("tiles", [1, 6])
def test_tiles_are_written_and_read(tmp_path, tiles):
    layout = ImageLayout(28, 7, "squash", tiles=tiles)
    node = image_processor.config(layout, tiles=True)
    assert (node["image_processor_type"], node["max_patches"], node["min_patches"], node["crop_to_patches"]) == ("GotOcr2ImageProcessor", tiles, 1, tiles > 1)
    assert read(tmp_path, node) == layout
    assert read(tmp_path, image_processor.config(layout)).tiles == 1  # towers alone are given the whole image


def test_without_a_file_it_is_the_encoders_own(tmp_path):
    assert image_processor.layout(tmp_path, ENCODER) == ImageLayout(28, 7, "crop")


def test_numbers_for_sizes_as_old_files_have_them(tmp_path):
    assert read(tmp_path, {"size": 28, "crop_size": 28, "do_center_crop": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}) == ImageLayout(28, 7, "crop", (0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize("node, message", [
    ({"size": 224, "crop_size": 224}, "makes images of 224 pixels, the encoder of config.json reads 28"),
    ({"size": {"shortest_edge": 32}, "crop_size": 28}, "images of 28 and 32 pixels"),
    ({"size": 28, "crop_size": 28, "resample": 2}, "resample is 2, and vlmjax computes only 3"),
    ({"size": {"longest_edge": 28}}, "is not understood"),
    ({"size": {"height": 28, "width": 28}, "do_center_crop": False, "image_processor_type": "GotOcr2ImageProcessor", "min_patches": 2}, "min_patches is 2, and vlmjax computes only 1"),
    ({"size": {"height": 28, "width": 28}, "do_center_crop": False, "image_processor_type": "GotOcr2ImageProcessorFast", "max_patches": 0}, "max_patches is 0, not a number of tiles"),
])
def test_a_treatment_that_we_do_not_compute_is_refused(tmp_path, node, message):
    with pytest.raises(UserError, match=f"preprocessor_config.json.*{message}"):
        read(tmp_path, node)
