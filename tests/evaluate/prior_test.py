import collections

import numpy as np

from vlmjax.data.example import Turn
from vlmjax.evaluate import prior
from vlmjax.evaluate.task import Item


def item(image, k, question, answer, kind=""):
    return Item(f"{image}/{k}", f"{image}.jpg", (Turn("user", f"<image>{question}"),), answer, kind)


def test_an_answer_comes_from_other_images_and_their_wordings():
    items = [item(i, 0, "is there a person?", "yes" if i % 4 else "no", "a") for i in range(200)] + [item(i, 1, f"what is the number of {i}?", str(i % 3 and 7), "b") for i in range(200)]
    found = prior.from_other_images(items)
    assert {found[f"{i}/0"] for i in range(200)} == {"yes"} and {found[f"{i}/1"] for i in range(200)} == {"7"}  # a wording of its own has its kind's


def test_nothing_of_an_image_is_in_its_own_answers():
    items = [item("lonely", 0, "who is it?", "nobody else")] + [item(i, 0, "what is it?", "a cat") for i in range(50)]
    assert prior.from_other_images(items)["lonely/0"] == "a cat"


def test_where_wordings_have_as_many_yes_as_no_it_is_right_by_chance():
    rng = np.random.default_rng(0)
    items = [item(int(i), k, f"is there a {thing}?", ("yes", "no")[k % 2]) for i in range(1500) for k, thing in enumerate(rng.choice(list("abcdef"), 4, replace=False))]
    found = prior.from_other_images(items)
    right = collections.Counter(found[one.id] == one.answer for one in items)
    assert 0.4 < right[True] / len(items) < 0.6


def test_of_equals_the_first_and_of_nothing_nothing():
    assert prior.from_other_images([item(0, 0, "a?", "yes")]) == {"0/0": ""}
