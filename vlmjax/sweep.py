"""Lists of overrides for `get_sweep()` of a config file: each dict is a row of an ablation, {key: value}, and `name`, which a table calls it."""
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

Overrides = dict[str, Any]


def product(*axes: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]]) -> list[Overrides]:
    """Every combination, the last axis fastest. An axis is {key: values}, whose keys are combined with each other, too, or a list of overrides, as `zipped` makes one."""
    lists = []
    for axis in axes:
        lists += [[{key: value} for value in values] for key, values in axis.items()] if isinstance(axis, Mapping) else [axis]
    return [_join(parts) for parts in itertools.product(*lists)]


def zipped(axes: Mapping[str, Sequence[Any]]) -> list[Overrides]:
    """The first values of all keys, the second ones, …; ValueError where they are not equally many."""
    return [dict(zip(axes, values)) for values in zip(*axes.values(), strict=True)]


def _join(parts: Sequence[Mapping[str, Any]]) -> Overrides:
    """One row of several; their names stand side by side."""
    names = [part["name"] for part in parts if "name" in part]
    joined = {key: value for part in parts for key, value in part.items()}
    if sum(len(part) for part in parts) - max(len(names) - 1, 0) != len(joined):
        raise ValueError(f"two axes of a sweep have the same key: {', '.join(map(repr, parts))}")
    return joined | ({"name": ", ".join(names)} if names else {})
