"""Drawn scenes: nothing can be known of an answer without looking, and everything by looking."""
import collections
import functools

import numpy as np
import pytest
from scipy import ndimage

from vlmjax.data import images
from vlmjax.data.datasets import scenes
from vlmjax.errors import UserError


@functools.cache
def sets(split, suite):
    return [scenes.group(split, suite, number) for number in range(scenes.SETS[split][suite])]


@pytest.mark.parametrize("split", scenes.SETS)
@pytest.mark.parametrize("suite", scenes.SUITES)
def test_every_answer_to_every_question_is_equally_frequent(split, suite):
    counts = collections.defaultdict(collections.Counter)
    for group in sets(split, suite):
        assert len({asked.question for asked in group}) == 1 and len({asked.answer for asked in group}) == len(group) == round(1 / scenes.CHANCE[suite])
        for asked in group:
            counts[asked.question][asked.answer] += 1
    assert all(len(set(answers.values())) == 1 and len(answers) == round(1 / scenes.CHANCE[suite]) for answers in counts.values())


def test_scenes_of_a_set_have_as_many_things_at_the_same_places():
    places = lambda asked: [(thing.x, thing.y) for thing in asked.scene.things]
    for suite in ("exists", "count", "detail"):
        for group in sets("test", suite):
            assert all(places(asked) == places(group[0]) for asked in group)
    for group in sets("test", "where"):
        assert len({len(asked.scene.things) for asked in group}) == 1
        left, right, above, below = (dict(zip("ab", places(asked))) for asked in group)
        assert (left["a"], right["a"]) == (right["b"], left["b"]) and (above["a"], below["a"]) == (below["b"], above["b"])  # each object is at all ends


def test_in_half_of_the_sets_the_area_says_nothing_of_the_number():
    for number, group in enumerate(sets("test", "count")):
        target = group[-1].scene.things[0].kind
        areas = [sum(thing.half**2 for thing in asked.scene.things if thing.kind == target) for asked in group]
        assert [sum(thing.kind == target for thing in asked.scene.things) for asked in group] == list(range(1, 9)) and {len(asked.scene.things) for asked in group} == {9}
        assert (max(areas) < 1.2 * min(areas)) == (number % 2 == 1)


def test_where_something_is_not_its_color_and_its_shape_are_there():
    levels = collections.Counter()
    for yes, no in sets("test", "exists"):
        color, shape = target = yes.scene.things[0].kind
        others = [thing.kind for thing in no.scene.things]
        levels[yes.level] += 1
        assert target not in others and [thing.kind for thing in yes.scene.things[1:]] == others[1:]
        assert (color in [c for c, _ in others[1:]] and shape in [s for _, s in others[1:]]) == (yes.level == "adversarial") == any(color in kind or shape in kind for kind in others)
    assert levels == {"adversarial": 125, "random": 125}


def test_some_colors_are_on_some_shapes_in_no_scene_but_those_that_ask_for_them():
    assert len(scenes.HELD_OUT) == 6 and {color for color, _ in scenes.SEEN} == set(scenes.COLORS) and {shape for _, shape in scenes.SEEN} == set(scenes.SHAPES)
    for split in ("train", "test"):
        for suite in scenes.SUITES:
            assert not {thing.kind for group in sets(split, suite)[:200] for asked in group for thing in asked.scene.things} & set(scenes.HELD_OUT)
    for suite in ("exists", "count", "where"):
        for group in sets("comp", suite):
            held = {thing.kind for asked in group for thing in asked.scene.things} & set(scenes.HELD_OUT)
            assert len(held) == 1 and " ".join(held.pop()).replace("star", "star") in group[0].question


def test_no_scene_of_the_test_is_in_the_training():
    for suite in scenes.SUITES:
        train = {asked.scene for group in sets("train", suite) for asked in group}
        assert not train & {asked.scene for group in sets("test", suite) for asked in group}


def look(pixels):
    """What is in an image: its connected pieces by their most frequent color and their form, [(color, shape or dot, x, y)]."""
    table, pixels, found = np.array([*scenes.COLORS.values()]), pixels.astype(int), []
    labels, count = ndimage.label(np.abs(pixels - scenes.GROUND).sum(-1) > 24, np.ones((3, 3)))
    for n, piece in enumerate(ndimage.find_objects(labels, count), 1):
        own = labels[piece] == n
        color = np.bincount(np.abs(pixels[piece][own][:, None] - table).sum(-1).argmin(-1)).argmax()
        # A pixel of an edge counts by how much of it is the thing's.
        part = np.abs(pixels[piece] - scenes.GROUND).sum(-1) / np.abs(table[color] - scenes.GROUND).sum()
        found.append((list(scenes.COLORS)[color], form(part), (piece[1].start + piece[1].stop) / 2, (piece[0].start + piece[0].stop) / 2))
    return found


def form(part):
    """By how far a thing's area lies from its middle, and how much it fills of its width times its height."""
    if max(part.shape) <= max(scenes.DOTS) and (part == 1).all():
        return "dot"
    area, places = part.sum(), np.indices(part.shape)
    middle = (places * part).sum((1, 2), keepdims=True) / area
    spread = ((places - middle) ** 2 * part).sum() / area**2  # 1/2π of a disc, 1/6 of a square, 0.193 of a triangle, 0.205 of a star
    if spread < 0.18:
        return "square" if area / (part.sum(0).max() * part.sum(1).max()) > 0.9 else "circle"
    return "triangle" if spread < 0.2 else "star"


def answer(suite, question, found):
    words = question.rstrip("?").replace(":", "").split()
    if suite == "detail":
        return next(color for color, shape, *_ in found if shape == "dot")
    if suite == "where":
        (ax, ay), (bx, by) = (next((x, y) for color, shape, x, y in found if [color, shape] == asked) for asked in (words[3:5], words[-2:]))
        return ("left" if ax < bx else "right") if abs(ax - bx) > abs(ay - by) else "above" if ay < by else "below"
    color, shape = (words[-2:] if suite == "exists" else (words[2], words[3].rstrip("s")))
    count = sum((c, s) == (color, shape) for c, s, *_ in found)
    return ("no", "yes")[count > 0] if suite == "exists" else str(count)


@pytest.mark.parametrize("suite", scenes.SUITES)
def test_who_looks_knows(suite):
    """Every question, from the pixels of the file alone."""
    source, wrong, count = scenes.open_source("", "test", suite), [], 0
    for example in source.examples[::5]:
        found = look(np.asarray(images.decode(source.read_image(example.images[0]))))
        count += 1
        if answer(suite, example.turns[0].text.removeprefix("<image>"), found) != example.turns[1].text:
            wrong.append(example.id)
    assert count > 90 and not wrong


def test_a_dot_has_its_side_and_its_color():
    for side, group in zip(scenes.DOTS, sets("test", "detail")):
        for asked in group:
            pixels = np.asarray(scenes.draw(asked.scene))
            assert (pixels == scenes.COLORS[asked.answer]).all(-1).sum() >= side**2 and asked.level == f"{side} px"


def test_views_and_their_mistakes():
    source = scenes.open_source("", "test", "questions")
    assert len(source.examples) == sum(len(group) for suite in scenes.SUITES for group in sets("test", suite)) and source is scenes.open_source("", "test", "questions")
    assert source.read_image("test/count/3/1") == source.read_image("test/count/3/1") and images.decode(source.read_image("test/count/3/1")).size == (224, 224)
    captions = scenes.open_source("", "test", "captions").examples
    assert captions[0].turns[1].text == scenes.caption(scenes.group("test", "exists", 0)[0].scene) and captions[-1].turns[1].text.endswith("dot")
    assert not scenes.open_source("", "train", "texts").examples[0].images
    with pytest.raises(UserError, match="there is nothing to build"):
        scenes.build("")
    for split, view, says in (("tset", "questions", "no split 'tset'; did you mean 'test'"), ("test", "counts", "'counts' is not one of its views; did you mean 'count'"), ("comp", "detail", "has none of detail")):
        with pytest.raises(UserError, match=says):
            scenes.open_source("", split, view)
