import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.benchmarks.packing import PARTS, SHAREGPT, mixture
from vlmjax.data import packing
from vlmjax.data.lengths import LengthTable
from vlmjax.data.packing import Plan, choose, plan, usage

T, M, S = 20, 3, 6


def table(rows):
    """From (head, tail, supervised, images, group) of each example."""
    return LengthTable(*np.array(rows, np.int32).reshape(-1, 5).T)


def texts(lengths):
    return table([(0, length, 1, 0, group) for group, length in enumerate(lengths)])


@st.composite
def tables(draw):
    """Groups of texts, which share nothing, and of examples with images, which share their heads."""
    rows = []
    for group in range(draw(st.integers(0, 12))):
        head, images = draw(st.sampled_from([(0, 0), (5, 1), (11, 3)]))
        tails = draw(st.lists(st.tuples(st.integers(1, T - head), st.integers(0, S)), min_size=1, max_size=6))
        rows += [(head, tail, supervised, images, group) for tail, supervised in tails]
    return table(rows)


@st.composite
def draws(draw):
    """A table, and indexes into it in any order, some twice."""
    made = draw(tables())
    return made, np.array(draw(st.permutations([*range(len(made)), *draw(st.lists(st.sampled_from(range(len(made))) if len(made) else st.nothing()))])), np.int64)


@settings(deadline=None)
@given(draws(), st.integers(1, 4), st.integers(0, 3), st.integers(0, 3), st.sampled_from([1, 2, 128]))
def test_every_drawn_example_once_and_no_row_over_its_budgets(made_and_drawn, per_group, seed, epoch, waiting):
    made, drawn = made_and_drawn
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "WAITING", waiting)  # few: pieces wait from row to row, and arrive while others wait
        rows = plan(made, drawn, T, M, S, per_group, seed, epoch)
        assert rows == plan(made, drawn, T, M, S, per_group, seed, epoch)
    assert sorted(i for row in rows for piece in row for i in piece) == sorted(drawn.tolist())
    for row in rows:
        for piece in row:
            assert 1 <= len(piece) <= (per_group if made.images[piece[0]] else 1)
            assert len(set(piece)) == len(piece) and len({made.group[i] for i in piece}) == 1
        assert sum(made.head[piece[0]] + sum(made.tail[i] for i in piece) for piece in row) <= T
        assert sum(made.images[piece[0]] for piece in row) <= M
        assert sum(made.supervised[i] for piece in row for i in piece) <= S
    held = [sum(made.head[piece[0]] + sum(made.tail[i] for i in piece) for row in rows for piece in row),
            sum(made.images[piece[0]] for row in rows for piece in row), sum(made.supervised[drawn])]
    assert usage(rows, made, T, M, S) == (len(rows), *(pytest.approx(x / (len(rows) * size) if len(rows) else 1) for x, size in zip(held, (T, M, S))))


@given(draws(), st.slices(12))
def test_a_plan_is_a_sequence_of_rows(made_and_drawn, part):
    rows = plan(*made_and_drawn, T, M, S, 2, 0, 0)
    assert len(list(rows)) == len(rows) and all(rows[r] == rows[r - len(rows)] for r in range(len(rows)))
    assert isinstance(rows[part], Plan) and list(rows[part]) == list(rows)[part]
    with pytest.raises(IndexError):
        rows[len(rows)]
    with pytest.raises(ValueError, match="read-only"):
        rows.examples[:] = 0


def test_an_example_that_is_drawn_twice_is_in_two_pieces():
    made = table([(5, 2, 1, 1, 0)] * 3)
    assert sorted(map(sorted, (piece for row in plan(made, [0, 1, 2, 1], T, M, S, 4, 0, 0) for piece in row))) == [[0, 1, 2], [1]]


def test_epochs_and_seeds_differ():
    plans = [tuple(plan(texts([9] * 40), np.arange(40), T, M, S, 1, seed, epoch)) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(plans)) == 4


def test_groups_are_shuffled_before_they_are_cut():
    made = table([(5, 1, 1, 1, 0)] * 12)
    pieces = {frozenset(piece) for epoch in range(8) for row in plan(made, np.arange(12), T, M, S, 3, 0, epoch) for piece in row}
    assert len(pieces) > 20  # of 4 in each of 8 epochs


@pytest.mark.parametrize(
    "lengths, rows",
    [([5] * 400, 100), ([1] * 200, 10), ([T - 1, 1] * 30, 30), ([7, 13] * 50, 50), ([9, 6, 5] * 40, 40), ([T] * 7, 7), ([], 0)])
def test_rows_are_filled(lengths, rows):
    assert len(plan(texts(lengths), np.arange(len(lengths)), T, M, S * T, 1, 0, 0)) == rows


def test_what_fits_no_row_is_refused():
    for example in ((0, T + 1, 1, 0, 1), (5, T - 4, 1, 1, 1), (5, 1, 1, M + 1, 1), (0, 5, S + 1, 0, 1)):
        with pytest.raises(ValueError, match="example 1"):
            plan(table([(0, 5, 1, 0, 0), example]), np.arange(2), T, M, S, 1, 0, 0)
    with pytest.raises(ValueError, match="example 1"):
        choose(texts([5, T + 1]), np.arange(2), T)


@pytest.mark.parametrize("per_group", [1, 8])
def test_rows_of_a_long_tailed_mixture_are_full(per_group):
    assert sum(part.conversations for part in PARTS.values()) + SHAREGPT == 665_298
    made = mixture(share=0.03)
    drawn = np.arange(len(made))
    budget = choose(made, drawn, 4096, per_group)
    share = usage(plan(made, drawn, 4096, *budget, per_group, 0, 0), made, 4096, *budget)
    assert len(made) > 19_000 and share.tokens >= 0.95 and share.image_slots >= 0.8


def test_budgets_have_room_for_every_example():
    made = table([(5, 1, 1, 1, 0)] * 30 + [(15, 1, 4, 3, 1)])
    assert choose(made, np.arange(30), T) == (3, 3)
    assert choose(made, np.arange(31), T) == (3, 4)
    assert choose(texts([9] * 40), np.arange(40), T) == (0, 2)
    assert choose(texts([9]), np.arange(0), T) == (0, 0)
