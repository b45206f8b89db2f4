import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmjax.data.lengths import LengthTable
from vlmjax.data.packing import plan

T, M, S = 20, 3, 6


def table(rows):
    """From (head, tail, supervised, images, group) of each example."""
    return LengthTable(*np.array(rows, np.int32).reshape(-1, 5).T)


@st.composite
def tables(draw):
    rows = []
    for group in range(draw(st.integers(0, 12))):
        head, images = draw(st.sampled_from([(0, 0), (5, 1), (11, 3)]))
        tails = draw(st.lists(st.tuples(st.integers(1, T - head), st.integers(0, S)), min_size=1, max_size=6 if head else 1))
        rows += [(head, tail, supervised, images, group) for tail, supervised in tails]
    return table(rows)


@given(tables(), st.integers(1, 4), st.integers(1, 2), st.integers(0, 3), st.integers(0, 3))
def test_every_drawn_example_once_and_no_row_over_its_budgets(made, per_group, passes, seed, epoch):
    drawn = np.tile(np.arange(len(made)), passes)
    rows = plan(made, drawn, T, M, S, per_group, seed, epoch)
    assert sorted(i for row in rows for piece in row for i in piece) == sorted(drawn.tolist())
    for row in rows:
        assert all(1 <= len(piece) <= per_group and len(set(piece)) == len(piece) and len({made.group[i] for i in piece}) == 1 for piece in row)
        assert sum(made.head[piece[0]] + sum(made.tail[i] for i in piece) for piece in row) <= T
        assert sum(made.images[piece[0]] for piece in row) <= M
        assert sum(made.supervised[i] for piece in row for i in piece) <= S
    assert list(rows) == list(plan(made, drawn, T, M, S, per_group, seed, epoch))


def test_epochs_and_seeds_differ():
    made = table([(0, 9, 1, 0, g) for g in range(40)])
    plans = [tuple(plan(made, np.arange(40), T, M, S, 1, seed, epoch)) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(plans)) == 4


def test_rows_are_filled():
    made = table([(0, 5, 1, 0, g) for g in range(400)])
    assert len(plan(made, np.arange(400), T, M, S, 1, 0, 0)) == 100


def test_what_fits_no_row_is_refused():
    with pytest.raises(ValueError, match="example 1"):
        plan(table([(0, 5, 1, 0, 0), (0, T + 1, 1, 0, 1)]), np.arange(2), T, M, S, 1, 0, 0)
