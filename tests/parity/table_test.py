"""The parity table: what passes, what fails, and where it says so."""
import numpy as np
import pytest

from vlmjax.parity import table


def side(**changes):
    rng = np.random.default_rng(0)
    arrays = {
        "logits/0": rng.normal(size=(5, 7)).astype(np.float32), "logits/1": rng.normal(size=(3, 7)).astype(np.float32),
        "tokens/0": np.arange(9, dtype=np.int32), "pixels/a": rng.integers(0, 256, (4, 4, 3)).astype(np.uint8),
        "normalised/a": rng.normal(size=(4, 4, 3)).astype(np.float32), "text/0": np.frombuffer(b"a red square", np.uint8), "loss": np.float32(2.5),
        "gradient/w": rng.normal(size=(6, 6)).astype(np.float32), "gradient/zero": np.full(6, 1e-9, np.float32),
    }  # fmt: skip
    return arrays | {key.replace("__", "/"): value for key, value in changes.items()}


def failing(ours, reference=None):
    return [row.stage for row in table.compare(ours, reference or side()) if not row.ok]


def test_equal_sides_pass_in_the_order_of_computing():
    rows = table.compare(side(), dict(reversed(side().items())))
    assert [(row.stage, row.entries) for row in rows] == [("pixels", 1), ("normalised", 1), ("tokens", 1), ("logits", 2), ("text", 1), ("loss", 1), ("gradient", 2)]
    assert all(row.ok and row.error == row.worst == 0 for row in rows)


@pytest.mark.parametrize("key, small, large", [("logits__1", 1e-6, 1e-4), ("normalised__a", 1e-7, 1e-5), ("loss", 1e-5, 1e-3), ("gradient__w", 1e-5, 1e-3)])
def test_floats_pass_up_to_their_bar(key, small, large):
    value = side()[key.replace("__", "/")]
    assert not failing(side(**{key: value * (1 + small)}))
    assert failing(side(**{key: value * (1 + large)})) == [key.split("__")[0]]


def test_one_wrong_element_fails():
    for key in ("logits/0", "normalised/a", "gradient/w", "pixels/a", "tokens/0", "text/0"):
        value = side()[key].copy()
        value.flat[-1] += 1
        assert failing(side() | {key: value}) == [key.split("/")[0]]


def test_numbers_are_the_worst_entry():
    reference = {"logits/0": np.array([3.0, 4.0]), "logits/1": np.array([1.0, 0.0])}
    (row,) = table.compare({"logits/0": np.array([3.0, 4.5]), "logits/1": np.array([1.0, 0.2])}, reference)
    assert row.error == pytest.approx(0.2) and row.worst == pytest.approx(0.2)
    (row,) = table.compare({"logits/0": np.array([3.0, 5.0]), "logits/1": np.array([1.0, 0.0])}, reference)
    assert row.error == pytest.approx(0.2) and row.worst == pytest.approx(0.25)


def test_nan_fails():
    for key in ("logits/0", "logits/1", "loss"):
        assert failing(side() | {key: np.full_like(side()[key], np.nan)}) == [key.split("/")[0]]


def test_ids_of_another_length_differ_by_what_is_missing():
    (row,) = [row for row in table.compare(side(tokens__0=np.arange(6, dtype=np.int32)), side()) if row.stage == "tokens"]
    assert not row.ok and row.error == pytest.approx(3 / 9)
    assert failing(side(text__0=np.zeros(0, np.uint8))) == ["text"]


def test_what_is_on_one_side_only_is_named():
    ours = side(hidden__0=np.zeros(3, np.float32))
    del ours["gradient/w"]
    assert failing(ours) == ["hidden/0 (only in vlmjax)", "gradient/w (only in the reference)"]


def test_another_shape_is_named():
    assert failing(side(logits__0=np.zeros((5, 8), np.float32))) == ["logits/0 ([5, 8] and not [5, 7])"]


def test_a_gradient_that_is_zero_is_measured_by_the_largest():
    assert not failing(side(gradient__zero=np.full(6, -1e-9, np.float32)))
    assert failing(side(gradient__zero=np.full(6, 1e-2, np.float32))) == ["gradient"]
    # Small, but not by rounding: by its own size.
    reference = side(gradient__small=np.full(6, 1e-3, np.float32))
    assert failing(side(gradient__small=np.full(6, 1.01e-3, np.float32)), reference) == ["gradient"]


def test_errors_are_written_as_bounds():
    row = lambda error: table.Row("logits", 3, error, error, 1e-5, True)
    cells = [line.split(" | ")[3] for line in table.markdown("clip", [row(error) for error in (0.0, 1e-6, 1.1e-6, 2.01e-7, 5.2e-7, 9.9e-1, 3.0, float("inf"))])]
    assert cells == ["identical", "≤ 1e-6", "≤ 2e-6", "≤ 5e-7", "≤ 1e-6", "≤ 1e0", "≤ 5e0", "not comparable"]


def test_the_text_names_what_differs():
    lines = table.text(table.compare(side(loss=np.float32(3)), side())).splitlines()
    assert [line.split()[0] for line in lines if "DIFFERS" in line] == ["loss"]
    assert len({len(line) for line in lines if "DIFFERS" in line or " ok" in line}) <= 2
