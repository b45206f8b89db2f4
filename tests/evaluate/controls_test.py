import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from vlmjax.errors import UserError
from vlmjax.evaluate import controls
from vlmjax.layout import ImageLayout


@hypothesis.given(st.sets(st.text(max_size=4), min_size=2, max_size=30), st.integers(0, 99), st.randoms())
def test_derangement_moves_every_image_whatever_their_order(keys, seed, random):
    moved = controls.derangement(keys, seed)
    assert set(moved) == set(moved.values()) == keys
    assert all(key != other for key, other in moved.items())
    again = list(keys) * 2
    random.shuffle(again)
    assert controls.derangement(again, seed) == moved


def test_derangement_depends_on_the_seed_and_needs_two_images():
    keys = [str(i) for i in range(50)]
    assert controls.derangement(keys, 0) != controls.derangement(keys, 1)
    with pytest.raises(UserError, match="at least two images"):
        controls.derangement(["a"], 0)
    assert controls.derangement([], 0) == {}


def test_grey_is_uniform():
    image = controls.grey(ImageLayout(size=16, patch=8))
    assert image.shape == (16, 16, 3) and image.dtype == np.uint8 and np.unique(image).tolist() == [128]
