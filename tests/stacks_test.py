import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vlmjax import stacks


@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_cut_gives_the_fewest_segments_with_equal_labels(labels):
    (lengths,) = stacks.cut({f"decoder/layers/{i}/{leaf}": label for i, label in enumerate(labels) for leaf in ("a", "b/c")}).values()
    assert sum(lengths) == len(labels)
    assert len(lengths) == 1 + sum(a != b for a, b in zip(labels, labels[1:]))
    assert all(len({*labels[a:b]}) == 1 for a, b in stacks.segment_bounds(lengths))


def test_expand_and_collect_are_inverse_for_any_cut():
    whole = {"decoder/layers/0-4/w": np.arange(8.0).reshape(4, 2), "decoder/norm": np.ones(2)}
    by_layer = stacks.expand(whole)
    assert sorted(by_layer) == [*(f"decoder/layers/{i}/w" for i in range(4)), "decoder/norm"]
    cut = stacks.collect(by_layer, ["decoder/layers/0-3/w", "decoder/layers/3-4/w", "decoder/norm"])
    np.testing.assert_array_equal(cut["decoder/layers/3-4/w"], whole["decoder/layers/0-4/w"][3:])
    again = stacks.collect(stacks.expand(cut), whole)
    for path, leaf in whole.items():
        np.testing.assert_array_equal(again[path], leaf)
