"""Read a config file, apply overrides, check it against dataclasses, fingerprint it. Knows nothing about what the keys mean.

A config is `get_config(arg="") -> ml_collections.ConfigDict` in a Python file; `--config=FILE.py:ARG --config.a.b=VALUE`. Beside it may stand
`get_sweep(arg="")`, the rows of an ablation of it as lists of overrides (sweep.py).
"""
import dataclasses
import fnmatch
import hashlib
import json
import os
import runpy
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from vlmjax.errors import UserError, did_you_mean

# Keys that cannot change a result stay outside the fingerprint, so that changing them does not make another run; `*` stands for any name.
NOT_IN_FINGERPRINT = ("logging", "checkpoint", "prefetch", "workers", "evaluate", "preflight", "expected_seconds", "stages.*.max_broken", "stages.*.max_unsharded")


def read(spec: str, overrides: Sequence[str] = (), cls: type | None = None) -> tuple[ml_collections.ConfigDict, dict[str, list]]:
    """`FILE.py:ARG` and `--config.KEY=VALUE` arguments → (config, {key: [value in the file, value after the overrides]}).

    cls: the dataclass that the config becomes; what it knows can be overridden where the file leaves it out, and is then in the config as if the
    file had it. Of two overrides of a key the last one counts.
    """
    config = load(spec)
    before = plain(config)
    known, fields = flat(before), _types(cls, before) if cls else {}
    last = {}
    for override in overrides:
        key = override.split("=", 1)[0].removeprefix("--config.")
        if "=" not in override:
            raise UserError(f"--config.{key}: give a value, as --config.{key}=VALUE")
        if key not in known and key not in fields:
            raise UserError(f"--config.{key}: {spec.split(':')[0]} has no such key{did_you_mean(key, {**known, **fields})}")
        if known.get(key) is None and key in fields:
            _make_room(config, key, fields[key])
        last[key] = override
    _override(config, list(last.values()), spec)
    return config, differences(before, config)


def load(spec: str) -> ml_collections.ConfigDict:
    """What `get_config` of `FILE.py:ARG` returns; also for a config file that is another one with changes."""
    config = _call(spec, "get_config")
    if not isinstance(config, ml_collections.ConfigDict):
        raise UserError(f"--config={spec}: {spec.split(':')[0]} has no get_config that returns a ConfigDict")
    return config


def sweep(spec: str) -> list[tuple[str, dict[str, Any]]]:
    """The rows of `get_sweep` of `FILE.py:ARG`: [(name, {key: value})]. A row without a `name` is called by its values, one without overrides `base`."""
    rows = _call(spec, "get_sweep")
    if not isinstance(rows, (list, tuple)) or not rows or not all(isinstance(row, Mapping) and all(isinstance(key, str) for key in row) for row in rows):
        raise UserError(f"--config={spec}: {spec.split(':')[0]} has no get_sweep that returns a list of overrides, [{{key: value}}, …]")
    keys = {key for row in rows for key in row}
    short = {key: key.rsplit(".", 1)[-1] for key in keys}
    alike = {key for key in keys if list(short.values()).count(short[key]) > 1}
    called = lambda row: ", ".join(f"{key if key in alike else short[key]}={value}" for key, value in row.items()) or "base"
    named = [(str(row.get("name") or called(row)), {key: value for key, value in row.items() if key != "name"}) for row in rows]
    if twice := next((name for i, (name, _) in enumerate(named) if name in [other for other, _ in named[:i]]), None):
        raise UserError(f"--config={spec}: two rows of get_sweep are called {twice!r}")
    return named


def arguments(overrides: Mapping[str, Any]) -> list[str]:
    """{key: value} as they are written on a command line."""
    plain_ = {key: value.item() if hasattr(value, "dtype") and value.ndim == 0 else value for key, value in overrides.items()}  # a number of NumPy's
    return [f"--config.{key}={value if isinstance(value, str) else repr(value)}" for key, value in plain_.items()]


def _call(spec: str, name: str) -> Any:
    """What this function of `FILE.py:ARG` returns; None where the file has none."""
    path, *arg = spec.split(":", 1)
    if not os.path.isfile(path):
        raise UserError(f"--config: no file {path!r}")
    try:
        function = runpy.run_path(path).get(name)
        return function(*arg) if function else None
    except UserError:
        raise
    except Exception as error:  # of code that is the user's
        raise _wrong(spec, error) from None


def _types(hint: Any, node: Any, path: str = "") -> dict[str, type]:
    """{key: type of its value} of all that a dataclass knows; of a `dict[str, X]`, whose names are the file's own, what `node` has."""
    hint, inside = _given(hint), node if isinstance(node, Mapping) else {}
    origin = typing.get_origin(hint) or hint
    hints = typing.get_type_hints(hint) if dataclasses.is_dataclass(hint) else dict.fromkeys(inside, typing.get_args(hint)[1]) if origin is dict else {}
    if not hints:
        return {path: {Any: object, dict: ml_collections.ConfigDict}.get(origin, origin)}
    return {key: kind for name in hints for key, kind in _types(hints[name], inside.get(name), _join(path, name)).items()}


def _make_room(config: ml_collections.ConfigDict, key: str, kind: type) -> None:
    """A place for a value of this type, with which ml_collections knows how to parse the override."""
    *groups, name = key.split(".")
    for group in groups:
        if config.get(group) is None:
            config[group] = ml_collections.ConfigDict()
        config = config[group]
    config[name] = ml_collections.config_dict.placeholder(kind)


def _override(config: ml_collections.ConfigDict, overrides: list[str], spec: str) -> None:
    values, argv = flags.FlagValues(), ["vlmjax", *overrides]
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
        values(argv)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise _wrong(spec, error) from None


def _wrong(spec: str, error: Exception) -> UserError:
    return UserError(f"--config={spec}: {' '.join(str(error).split()) or type(error).__name__}")


def flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """{'stages.align.steps': 10, …}; an empty dict is a value of its own."""
    if isinstance(node, (ml_collections.ConfigDict, Mapping)) and len(node):
        out = {}
        for key in node:
            out.update(flat(node[key], f"{prefix}.{key}" if prefix else str(key)))
        return out
    return {prefix: {} if isinstance(node, (ml_collections.ConfigDict, Mapping)) else node}


def plain(node: Any) -> Any:
    """A ConfigDict as JSON knows it: dicts, lists, numbers, strings, None."""
    return json.loads(json.dumps(node.to_dict() if isinstance(node, ml_collections.ConfigDict) else node, sort_keys=True))


def differences(a: Any, b: Any) -> dict[str, list]:
    """{key: [value in a, value in b]} where they differ; a key that one lacks counts as None."""
    a, b = flat(plain(a)), flat(plain(b))
    return {key: [a.get(key), b.get(key)] for key in sorted({*a, *b}) if a.get(key) != b.get(key)}


def fingerprint(config: Any) -> str:
    """SHA-256 of everything in the config that can change a result."""
    return hashlib.sha256(json.dumps(in_fingerprint(config), sort_keys=True).encode()).hexdigest()


def in_fingerprint(config: Any) -> dict:
    def kept(node, path):
        if not isinstance(node, dict):
            return node
        inside = {key: value for key, value in node.items() if not any(fnmatch.fnmatchcase(path + key, out) for out in NOT_IN_FINGERPRINT)}
        return {key: kept(value, f"{path}{key}.") for key, value in inside.items()}

    return kept(plain(config), "")


def build(cls: type, node: Any, path: str = "") -> Any:
    """A config node as the frozen dataclass `cls`. An unknown, missing or mistyped key is refused with its full path.

    Fields may be bool, int, float, str, tuple, Any, `X | None`, another dataclass, or `dict[str, X]`. A field without a
    default must be present.
    """
    if not isinstance(node, (ml_collections.ConfigDict, Mapping)):
        raise UserError(f"{path or 'config'}: {node!r} is not a group of keys ({', '.join(f.name for f in dataclasses.fields(cls))})")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    for key in node:
        if key not in fields:
            raise UserError(f"{_join(path, key)}: no such key{did_you_mean(key, fields)}")
    values = {}
    for name, field in fields.items():
        if name in node:
            values[name] = _value(hints[name], node[name], _join(path, name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UserError(f"{_join(path, name)}: missing")
    return cls(**values)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _given(hint: Any) -> Any:
    """`X | None` → X."""
    return next(h for h in typing.get_args(hint) if h is not type(None)) if isinstance(hint, types.UnionType) else hint


def _value(hint: Any, value: Any, path: str) -> Any:
    if hint is Any:
        return value
    if isinstance(hint, types.UnionType) and value is None:
        return None
    hint = _given(hint)
    if dataclasses.is_dataclass(hint):
        return build(hint, value, path)
    origin = typing.get_origin(hint) or hint
    if origin is dict:
        if not isinstance(value, (ml_collections.ConfigDict, Mapping)):
            raise UserError(f"{path}: {value!r} is not a group of keys")
        return {key: _value(typing.get_args(hint)[1], value[key], _join(path, key)) for key in value}
    if origin is tuple:
        if not isinstance(value, (tuple, list)):
            raise UserError(f"{path}: {value!r} is a {type(value).__name__}, not a tuple")
        args = typing.get_args(hint)
        return tuple(_value(args[0], v, f"{path}[{i}]") for i, v in enumerate(value)) if args and args[-1] is Ellipsis else tuple(value)
    if origin is float and type(value) is int:
        return float(value)
    if type(value) is not origin:
        raise UserError(f"{path}: {value!r} is a {type(value).__name__}, not a {origin.__name__}")
    return value
