import pytest

from vlmjax import param_rules
from vlmjax.errors import UserError

PATHS = ["projector/linear_0/kernel", "decoder/layers/0/mlp/up/kernel", "decoder/norm/scale"]


def test_first_full_match_wins():
    rules = (("decoder/norm/.*", 1), ("decoder/.*", 2), (".*", 3))
    assert param_rules.match(rules, PATHS, what="r", tight=True) == dict(zip(PATHS, (3, 2, 1)))


def test_a_pattern_must_match_the_whole_path():
    with pytest.raises(UserError, match="'projector' matches no parameter.*projector/linear_0/kernel"):
        param_rules.match((("projector", True), (".*", False)), PATHS, what="r", tight=True)


@pytest.mark.parametrize("rules, message", [
    ((("projector/.*", True),), "no rule covers the parameter 'decoder/layers/0/mlp/up/kernel'.*projector"),
    ((("projectr/.*", True), (".*", False)), "stages.a.trainable: the rule 'projectr/.*' matches no parameter; nearest: projector/linear_0/kernel"),
    ((("(", True),), "not a regular expression"),
    (("projector/.*",), "a rule is a pair"),
])
def test_bad_rules_are_named(rules, message):
    with pytest.raises(UserError, match=message):
        param_rules.match(rules, PATHS, what="stages.a.trainable", tight=True)


def test_flatten_and_unflatten_are_inverse():
    tree = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert param_rules.flatten(tree) == {"a/b": 1, "a/c/d": 2, "e": 3}
    assert param_rules.unflatten(param_rules.flatten(tree)) == tree
