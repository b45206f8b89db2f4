"""One rule language: ordered (pattern, value) pairs over '/'-joined parameter paths; full match, the first match wins.

Freezing, learning-rate multipliers, weight decay and sharding all speak it. Stacked layers are addressed one by one, as
`decoder/layers/17/attention/q/kernel` (see stacks.py for how they lie in memory).
"""
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax

from vlmjax.errors import UserError, nearest

Rules = Sequence[tuple[str, Any]]


def flatten(tree: Any) -> dict[str, Any]:
    """Nested dicts to {'a/b/c': leaf}. A None in the tree is a hole and has no path."""
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {"/".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path): leaf for path, leaf in flat}


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """{'a/b/c': leaf} to nested dicts."""
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        node = tree
        *parents, last = path.split("/")
        for key in parents:
            node = node.setdefault(key, {})
        node[last] = leaf
    return tree


def match(rules: Rules, paths: Iterable[str], *, what: str, tight: bool) -> dict[str, Any]:
    """The value of the first rule that fully matches each path.

    Total: a path that no rule covers is an error. Tight (for rules that a user or an experiment wrote): so is a rule that
    matches no path at all, whether or not an earlier rule would have won. Both name the rule and the nearest real paths.
    `what` names the rules in messages, for example `stages.align.trainable`.
    """
    paths = list(paths)
    compiled = []
    for i, rule in enumerate(rules):
        if not (isinstance(rule, (tuple, list)) and len(rule) == 2 and isinstance(rule[0], str)):
            raise UserError(f"{what}[{i}]: a rule is a pair (pattern, value), not {rule!r}")
        try:
            compiled.append((re.compile(rule[0]), rule[1]))
        except re.error as error:
            raise UserError(f"{what}[{i}]: {rule[0]!r} is not a regular expression: {error}") from None
    if tight:
        for pattern, _ in compiled:
            if not any(pattern.fullmatch(path) for path in paths):
                near = nearest(pattern.pattern, paths, 3)
                raise UserError(f"{what}: the rule {pattern.pattern!r} matches no parameter; nearest: {', '.join(near)}")
    values = {}
    for path in paths:
        for pattern, value in compiled:
            if pattern.fullmatch(path):
                values[path] = value
                break
        else:
            near = nearest(path, [p.pattern for p, _ in compiled], 3)
            raise UserError(f"{what}: no rule covers the parameter {path!r}; nearest rules: {', '.join(map(repr, near)) or 'none'}"
                            " (end the list with ('.*', value))")
    return values
