import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmjax.errors import UserError
from vlmjax.layout import ImageLayout

# {(tiles, size): {(width, height): (columns, rows)}} of transformers 5.24 (get_optimal_tiled_canvas of got_ocr2), the ties among them. 48,000 other sizes were equal, too.
THEIRS = {
    (12, 448): {(640, 480): (4, 3), (480, 640): (3, 4), (1024, 1024): (3, 3), (448, 448): (1, 1), (500, 500): (1, 1), (634, 634): (2, 2), (5000, 300): (12, 1), (300, 5000): (1, 12),
                (1920, 1080): (4, 2), (896, 448): (2, 1), (1000, 999): (3, 3), (1, 1): (1, 1)},
    (6, 448): {(640, 480): (3, 2), (1024, 1024): (2, 2), (800, 600): (3, 2), (1200, 400): (3, 1)},
    (4, 28): {(37, 53): (1, 2), (64, 41): (2, 1), (90, 90): (2, 2), (39, 39): (1, 1), (40, 40): (2, 2)},
}


def layout(tiles, size=28):
    return ImageLayout(size, 7 if size == 28 else 14, "squash", tiles=tiles)


@pytest.mark.parametrize("tiles, size", THEIRS)
def test_grids_are_those_of_the_published_processor(tiles, size):
    made = layout(tiles, size)
    assert {sides: made.grid(*sides) for sides in THEIRS[tiles, size]} == THEIRS[tiles, size]


@given(st.integers(1, 2000), st.integers(1, 2000), st.integers(1, 12))
def test_no_grid_is_nearer_and_a_tie_goes_to_the_largest_that_the_image_half_fills(width, height, tiles):
    made = layout(tiles)
    columns, rows = made.grid(width, height)
    distance = {(i, j): abs(width / height - i / j) for i in range(1, tiles + 1) for j in range(1, tiles + 1) if i * j <= tiles}
    nearest = [grid for grid, far in distance.items() if far == min(distance.values())]
    assert (columns, rows) in nearest
    filled = [i * j for i, j in nearest if width * height > 0.5 * 28 * 28 * i * j]
    assert columns * rows == max(filled, default=min(i * j for i, j in nearest))
    assert made.count(width, height) == (columns * rows + 1 if columns * rows > 1 else 1) <= made.most


def test_one_tile_is_the_whole_image_and_an_image_without_a_size_is_one():
    assert layout(1).count(5000, 10) == layout(1).most == 1 and layout(12).count(0, 0) == 1 and layout(12).most == 13


def test_what_cannot_be_cut_is_refused():
    with pytest.raises(UserError, match="layout.tiles: 0 is less than 1"):
        layout(0)
    with pytest.raises(UserError, match="layout.tiles: .* set resize='squash', not 'pad'"):
        ImageLayout(28, 7, "pad", tiles=2)
