import pytest

from tests.data.tiny import TinySource, qa
from vlmjax.data.datasets import easy_vqa
from vlmjax.evaluate.tasks import TASKS


@pytest.mark.parametrize("task, text, parsed", [
    ("easy_vqa", "Yes.", "yes"),
    ("easy_vqa", " teal ", "teal"),
    ("easy_vqa", "yes yes", None),
    ("easy_vqa", "purple", None),
    ("easy_vqa", "", None),
    ("easy_vqa_caption", "A  red circle", "a red circle"),
    ("easy_vqa_caption", "red circle", None),
    ("easy_vqa_zero_shot", "a gray triangle", "a gray triangle"),
])
def test_only_one_of_the_closed_answers_is_parsed(task, text, parsed):
    assert TASKS[task].parse(text) == parsed


def test_items_end_where_the_answer_begins(monkeypatch):
    views = {"questions": [qa("q", ("i",), "is no circle present?", "yes"), qa("r", ("i",), "what color is the circle?", "red")],
             "captions": [qa("c", ("i",), "describe the image", "a red circle"), qa("d", ("j",), "describe the image", "a blue circle")]}
    monkeypatch.setattr(easy_vqa, "open_source", lambda data_dir, split, view: TinySource(view, views[view], {}))
    _, items = TASKS["easy_vqa"].open("", "test")
    assert [(item.id, item.image, item.question, item.answer, item.kind) for item in items] == [
        ("q", "i", "is no circle present?", "yes", "absence"), ("r", "i", "what color is the circle?", "red", "color")]
    assert [turn.role for turn in items[0].turns] == ["user"] and items[0].turns[0].text.startswith("<image>")
    _, items = TASKS["easy_vqa_zero_shot"].open("", "test")
    assert [(item.answer, item.kind) for item in items] == [("a red circle", ""), ("a blue circle", "")]
    assert TASKS["easy_vqa_zero_shot"].prior("") == {"describe the image": "a blue circle"}


def test_every_answer_of_the_data_set_can_be_parsed():
    answers = (*easy_vqa.SHAPES, *easy_vqa.COLORS, "yes", "no")
    assert all(TASKS["easy_vqa"].parse(answer) == answer for answer in answers)
    assert len(TASKS["easy_vqa_zero_shot"].choices) == 24
