"""Lists of overrides, and how a config's sweep is read."""
import numpy as np
import pytest

from vlmjax import config, sweep
from vlmjax.errors import UserError


def test_a_product_has_every_combination_the_last_axis_fastest():
    assert sweep.product({"a": (1, 2), "b": "xy"}) == [{"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"}]
    zipped = sweep.zipped({"lr": (1e-3, 1e-4), "steps": (10, 100)})
    assert zipped == [{"lr": 1e-3, "steps": 10}, {"lr": 1e-4, "steps": 100}]
    assert sweep.product(zipped, {"seed": (0, 1)}) == [zipped[0] | {"seed": 0}, zipped[0] | {"seed": 1}, zipped[1] | {"seed": 0}, zipped[1] | {"seed": 1}]
    assert sweep.product([{"name": "a", "x": 1}], [{"name": "b", "y": 1}, {"y": 2}]) == [{"name": "a, b", "x": 1, "y": 1}, {"name": "a", "x": 1, "y": 2}]


def test_axes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError):
        sweep.zipped({"a": (1, 2), "b": (1,)})
    with pytest.raises(ValueError, match="the same key"):
        sweep.product({"a": (1,)}, [{"a": 2}])


def file(tmp_path, body):
    path = tmp_path / "c.py"
    path.write_text(f"def get_sweep(arg=''):\n    return {body}\n")
    return str(path)


def test_rows_without_a_name_are_called_by_what_they_change(tmp_path):
    rows = "[{}, {'stages.align.lr': 1e-3, 'model.projector.variant': 'linear'}, {'stages.instruct.lr': 2, 'name': 'two'}]"
    assert config.sweep(file(tmp_path, rows)) == [("base", {}), ("stages.align.lr=0.001, variant=linear", {"stages.align.lr": 1e-3, "model.projector.variant": "linear"}),
                                                  ("two", {"stages.instruct.lr": 2})]
    assert config.sweep(file(tmp_path, "[{'name': arg}]") + ":tiny") == [("tiny", {})]


@pytest.mark.parametrize("body, says", [("None", "no get_sweep that returns a list of overrides"), ("[]", "no get_sweep that returns"), ("[1]", "no get_sweep that returns"), ("[{1: 2}]", "no get_sweep that returns"),
                                        ("[{}, {}]", "two rows of get_sweep are called 'base'"), ("1 / 0", "division by zero")])
def test_a_sweep_that_is_none_is_refused(tmp_path, body, says):
    with pytest.raises(UserError, match=says):
        config.sweep(file(tmp_path, body))


def test_overrides_are_written_as_a_command_line_reads_them():
    assert config.arguments({"run": ("a", "b"), "name": "linear", "lr": 1e-3, "on": True}) == ["--config.run=('a', 'b')", "--config.name=linear", "--config.lr=0.001", "--config.on=True"]
    assert config.arguments({"lr": np.float64(1e-4), "n": np.int32(3)}) == ["--config.lr=0.0001", "--config.n=3"]
