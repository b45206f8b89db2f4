import dataclasses

import ml_collections
import pytest

from vlmjax import config
from vlmjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Inner:
    lr: float
    name: str = "adamw"


@dataclasses.dataclass(frozen=True)
class Outer:
    steps: int
    inner: Inner
    stages: dict[str, Inner] = dataclasses.field(default_factory=dict)
    run: tuple[str, ...] = ()
    epochs: float | None = None


def test_build_nests_and_converts_integers_to_floats():
    got = config.build(Outer, {"steps": 3, "inner": {"lr": 1}, "stages": {"a": {"lr": 0.5}}, "run": ["a"], "epochs": 2})
    assert got == Outer(3, Inner(1.0), {"a": Inner(0.5)}, ("a",), 2.0)


@pytest.mark.parametrize("node, message", [
    ({"steps": 3, "inner": {"lrr": 1.0}}, "inner.lrr: no such key; did you mean 'lr'"),
    ({"steps": 3, "inner": {}}, "inner.lr: missing"),
    ({"steps": 3.5, "inner": {"lr": 1.0}}, "steps: 3.5 is a float, not a int"),
    ({"steps": True, "inner": {"lr": 1.0}}, "steps: True is a bool"),
    ({"steps": 3, "inner": 4}, "inner: 4 is not a group of keys"),
    ({"steps": 3, "inner": {"lr": 1.0}, "run": "a"}, "run: 'a' is a str, not a tuple"),
    ({"steps": 3, "inner": {"lr": 1.0}, "run": ("a", 1)}, r"run\[1\]: 1 is a int, not a str"),
])
def test_a_wrong_key_is_named_with_its_path(node, message):
    with pytest.raises(UserError, match=message):
        config.build(Outer, node)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "c.py"
    path.write_text("from ml_collections import ConfigDict\ndef get_config(arg=''):\n"
                    "  return ConfigDict(dict(seed=1, arg=arg, run=('a', 'b'), stages=dict(align=dict(steps=10, lr=1e-3)), logging=dict(every=1)))\n")
    return str(path)


def test_overrides_and_their_differences(file):
    got, changed = config.read(f"{file}:x", ["--config.stages.align.lr=0.1", '--config.run=("a",)'])
    assert (got.arg, got.stages.align.lr, got.run) == ("x", 0.1, ("a",))
    assert changed == {"run": [["a", "b"], ["a"]], "stages.align.lr": [0.001, 0.1]}


@dataclasses.dataclass(frozen=True)
class Stage:
    steps: int
    lr: float
    attention: str = "auto"
    epochs: float | None = None
    adapters: Inner | None = None


@dataclasses.dataclass(frozen=True)
class Logging:
    every: int = 20
    seconds: float = 15.0


@dataclasses.dataclass(frozen=True)
class Run:
    seed: int
    arg: str
    run: tuple[str, ...]
    stages: dict[str, Stage]
    logging: Logging = Logging()
    checkpoint: Logging = Logging()
    tokens: tuple[str, ...] = ()


@pytest.mark.parametrize("override, value", [
    ("stages.align.attention=flash", "flash"), ("stages.align.epochs=2", 2.0), ("stages.align.adapters.lr=1", 1.0), ("logging.seconds=3", 3.0), ("checkpoint.every=3", 3),
    ('tokens=("a","b")', ("a", "b"))])
def test_a_key_that_the_file_leaves_out_can_be_overridden(file, override, value):
    key = override.split("=")[0]
    got, changed = config.read(file, [f"--config.{override}"], Run)
    assert config.flat(got)[key] == value and set(changed) == {key} and changed[key][0] is None
    config.build(Run, got)


def test_without_an_override_nothing_is_added_to_what_the_file_says(file):
    assert config.plain(config.read(file, [], Run)[0]) == config.plain(config.read(file)[0])


@pytest.mark.parametrize("override, near", [("stages.align.atention=x", "stages.align.attention"), ("stages.aling.attention=x", "stages.align.attention"),
                                            ("logging.secods=1", "logging.seconds"), ("stages.other.attention=x", "stages.align.attention")])
def test_a_misspelt_key_is_refused_with_the_nearest_also_of_those_left_out(file, override, near):
    with pytest.raises(UserError, match=f"no such key; did you mean '{near}'"):
        config.read(file, [f"--config.{override}"], Run)


@pytest.mark.parametrize("overrides, run", [(['run=("a",)', "run=b"], ("b",)), (["run=b", "run=()"], ())])
def test_the_last_override_of_a_key_counts(file, overrides, run):
    assert config.read(file, [f"--config.{override}" for override in overrides])[0].run == run


@pytest.mark.parametrize("override, message", [
    ("--config.stages.aling.lr=1", "no such key; did you mean 'stages.align.lr'"),
    ("--config.stages.align.steps=many", "many"),
    ("--config.seed", "give a value"),
])
def test_a_bad_override_is_one_line(file, override, message):
    with pytest.raises(UserError, match=message) as error:
        config.read(file, [override])
    assert "\n" not in str(error.value)


def test_bad_files(tmp_path, file):
    with pytest.raises(UserError, match="no file"):
        config.read(str(tmp_path / "none.py"))
    (tmp_path / "broken.py").write_text("def get_config(:\n")
    with pytest.raises(UserError, match="broken.py"):
        config.read(str(tmp_path / "broken.py"))
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(UserError, match="empty.py has no get_config"):
        config.read(str(tmp_path / "empty.py"))


def test_a_wrong_argument_is_said_in_the_words_of_the_file(tmp_path):
    path = tmp_path / "sizes.py"
    path.write_text("def get_config(arg=''):\n  raise ValueError(f'sizes.py takes small or large, not {arg!r}')\n")
    with pytest.raises(UserError) as error:
        config.read(f"{path}:medium")
    assert str(error.value) == f"--config={path}:medium: sizes.py takes small or large, not 'medium'"


def test_fingerprint_ignores_what_cannot_change_a_result():
    a = ml_collections.ConfigDict({"seed": 1, "logging": {"every": 1}})
    b = ml_collections.ConfigDict({"logging": {"every": 7}, "seed": 1})
    assert config.fingerprint(a) == config.fingerprint(b)
    b.seed = 2
    assert config.fingerprint(a) != config.fingerprint(b)


@pytest.mark.parametrize("key", ["max_broken", "max_unsharded"])
def test_how_much_of_a_fault_is_tolerated_is_outside_the_fingerprint(key):
    a = ml_collections.ConfigDict({"seed": 1, "stages": {"align": {"steps": 3, "optimizer": {"lr": 1.0}}}})
    b = a.copy_and_resolve_references()
    b.stages.align[key] = 0.1
    assert config.fingerprint(a) == config.fingerprint(b)
    assert config.in_fingerprint(b) == a.to_dict()
    b.stages.align.optimizer.lr = 2.0
    assert config.fingerprint(a) != config.fingerprint(b)
