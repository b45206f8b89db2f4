"""How answers about drawn scenes are read."""
import pytest

from vlmjax.data.datasets import scenes as data
from vlmjax.evaluate.tasks import scenes


@pytest.mark.parametrize("suite, text, meant", [
    ("exists", "yes", "yes"), ("exists", " Yes.", "yes"), ("exists", "No, there is no red star.", "no"), ("exists", "Yes, and no blue one", "yes"), ("exists", "There is no star", "no"), ("exists", "There isn't a red star.", "no"), ("exists", "none of them is red", "no"), ("exists", "I cannot see", None),
    ("exists", "It is either yes or no", None), ("exists", "", None),
    ("count", "3", "3"), ("count", "There are three red stars.", "3"), ("count", "eight", "8"), ("count", "12", "12"), ("count", "zero", "0"), ("count", "3 or 4", None), ("count", "many", None), ("count", "There are no red stars.", "0"), ("count", "three (3)", "3"),
    ("where", "left", "left"), ("where", "The star is left of the circle.", "left"), ("where", "It is to the right.", "right"), ("where", "underneath", "below"), ("where", "above and left", None), ("where", "beside it", None), ("where", "upper left", None), ("where", "at the top", "above"),
    ("detail", "Red", "red"), ("detail", "the dot is violet", "purple"), ("detail", "pink", None), ("detail", "red or orange", None)])
def test_an_answer_means_the_only_option_it_names(suite, text, meant):
    assert scenes.parse(text, suite) == meant


@pytest.mark.parametrize("task", scenes.ALL, ids=lambda task: task.name)
def test_items_have_levels_and_sets_and_the_prior_is_chance(task):
    source, items = task.open("", "test")
    suite = task.name.removeprefix("scenes_")
    assert len({item.group for item in items}) == data.SETS["test"][suite] and all(item.kind and item.image in item.id for item in items)
    prior = task.prior("")
    right = sum(prior.get(item.question) == item.answer for item in items)
    assert right == len(items) * data.CHANCE[suite]  # every question of the test is one of the training
    assert all(task.parse(item.answer) == item.answer for item in items)
