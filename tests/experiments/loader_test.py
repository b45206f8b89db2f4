"""The benchmark beside Pillow alone: both sides make the same pixels, and what is below the floor is said."""
import numpy as np
import pytest

from experiments.benchmarks import loader
from vlmjax.data import images
from vlmjax.layout import RESIZE_RULES, ImageLayout


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    root = tmp_path_factory.mktemp("loader")
    loader.write(root, 2)
    return [path.read_bytes() for path in sorted((root / "images").iterdir())]


@pytest.mark.parametrize("rule", RESIZE_RULES)
def test_pillow_alone_makes_the_pixels_of_the_pipeline(photographs, rule):
    layout = ImageLayout(loader.SIZE, loader.PATCH, rule)
    for data in photographs:
        assert 50_000 < len(data) < 100_000
        np.testing.assert_array_equal(loader.plain(data, rule, layout.mean), images.prepare(data, layout)[0])


def test_a_ratio_is_of_medians_and_has_a_floor():
    rates = {"pillow": [100.0, 200.0, 100.0], "pipeline": [90.0, 70.0, 79.0]}
    result = {"rates": {"pad": rates}, "workers": {"1": [50.0], "2": [90.0]}, "profile": {"decode": 1.0}, "images": 2, "bytes": 60_000, "per_image": {"tokens": 800.0, "supervised": 100.0},
              "repetitions": 3, "loads": [1.0, 2.0], "pillow": "13", "commit": "0123456789ab+", "date": "2026-11-28"}
    lines = "\n".join(loader.markdown(result))
    assert "| 100 | 79 | **0.79** | 0.35 to 0.90 | 0.8 MISSED |" in lines and "load 1.0 to 2.0" in lines and "0123456789+" in lines
