"""What is said of a model's answers about scenes."""
import pytest

from vlmjax.evaluate import diagnose, runner, scoring
from vlmjax.evaluate.tasks.scenes import COUNT, EXISTS


def rows(task, answer, controls=("real", "blind"), sets=4):
    """Predictions of the first sets: answer(item, control)."""
    items = [item for item in task.open("", "test")[1] if int(item.group.split("/")[-1]) < sets]
    return [{"id": item.id, "image": item.image, "question": item.question, "answer": item.answer, "kind": item.kind, "group": item.group, "control": control, "prediction": answer(item, control), "correct": 0.0}
            for control in controls for item in items]


def test_a_model_that_looks_and_one_that_does_not():
    looks = rows(EXISTS, lambda item, control: item.answer if control == "real" else "yes")
    found = diagnose.diagnose({EXISTS.name: looks})["exists"]
    assert found["seen"] == 1.0 and found["chance"] == 0.5 and found["scores"]["real"]["sets"]["value"] == 1.0 and found["scores"]["blind"]["sets"]["value"] == 0.0
    assert (found["yes"], found["precision"], found["recall"], found["f1"]) == (0.5, 1.0, 1.0, 1.0) and found["answers"] == {"yes": {"yes": 4}, "no": {"no": 4}}
    blind = diagnose.diagnose({EXISTS.name: rows(EXISTS, lambda item, control: "Yes.")})["exists"]
    assert blind["seen"] == 0.0 and (blind["yes"], blind["precision"], blind["recall"]) == (1.0, 0.5, 1.0) and blind["f1"] == pytest.approx(2 / 3)
    mute = diagnose.diagnose({EXISTS.name: rows(EXISTS, lambda item, control: "well")})["exists"]
    assert mute["yes"] == 0.0 and mute["precision"] is None and mute["answers"]["yes"] == {diagnose.UNPARSED: 4} and mute["scores"]["unparsed"]["real"] == 8


def test_numbers_that_are_near_are_nearer():
    found = diagnose.diagnose({COUNT.name: rows(COUNT, lambda item, control: str(min(8, int(item.answer) + 1)) if item.answer != "1" else "a few")})["count"]
    assert found["error"] == pytest.approx(6 / 7) and found["answers"]["8"] == {"8": 4} and found["answers"]["1"] == {diagnose.UNPARSED: 4}
    assert found["scores"]["real"]["exact_match"]["value"] == 1 / 8 and found["scores"]["real"]["exact_match/8"]["value"] == 1.0


def test_a_set_is_right_when_all_its_items_are():
    wrong = {"test/exists/1"}
    found = scoring.rescore(rows(EXISTS, lambda item, control: "no" if item.group in wrong else item.answer, ("real",)), EXISTS)["real"]
    assert found["sets"] == {"value": 0.75, "stderr": pytest.approx(0.25), "n": 4, "variant": "sets"} and found["exact_match"]["value"] == 7 / 8
    assert found["exact_match"]["stderr"] == pytest.approx(0.125)  # four clusters: the two scenes of a set depend on each other


def test_a_sample_has_whole_sets():
    items = COUNT.open("", "test")[1]
    drawn = runner.draw(items, 20, 0)
    assert len(drawn) == 16 and len({item.group for item in drawn}) == 2 and drawn == [item for item in items if item.group in {other.group for other in drawn}]
    assert len(runner.draw(items, 3, 0)) == 8  # never none
