import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmjax.data.packing import Lengths, plan

T, M, S = 20, 3, 6


@st.composite
def groups(draw):
    made = []
    for _ in range(draw(st.integers(0, 12))):
        head, images = draw(st.sampled_from([(0, 0), (5, 1), (11, 3)]))
        tails = draw(st.lists(st.tuples(st.integers(1, T - head), st.integers(0, S)), min_size=1, max_size=6))
        made.append([Lengths(head, tail, supervised, images) for tail, supervised in tails])
    return made


@given(groups(), st.integers(1, 4), st.integers(0, 3), st.integers(0, 3))
def test_every_example_once_and_no_row_over_its_budgets(made, per_group, seed, epoch):
    rows = plan(made, T, M, S, per_group, seed, epoch)
    packed = sorted((g, e) for row in rows for g, members in row for e in members)
    assert packed == [(g, e) for g, group in enumerate(made) for e in range(len(group))]
    for row in rows:
        assert all(1 <= len(members) <= per_group for _, members in row)
        assert sum(made[g][0].head + sum(made[g][e].tail for e in members) for g, members in row) <= T
        assert sum(made[g][0].images for g, _ in row) <= M
        assert sum(made[g][e].supervised for g, members in row for e in members) <= S
    assert rows == plan(made, T, M, S, per_group, seed, epoch)


def test_epochs_and_seeds_differ():
    made = [[Lengths(0, 9, 1, 0)] for _ in range(40)]
    plans = [plan(made, T, M, S, 1, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(map(tuple, plans))) == 4


def test_rows_are_filled():
    made = [[Lengths(0, 5, 1, 0)] for _ in range(400)]
    assert len(plan(made, T, M, S, 1, 0, 0)) == 100


def test_what_fits_no_row_is_refused():
    with pytest.raises(ValueError, match="group 1, example 0"):
        plan([[Lengths(0, 5, 1, 0)], [Lengths(0, T + 1, 1, 0)]], T, M, S, 1, 0, 0)
