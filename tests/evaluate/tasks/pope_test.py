import pytest

from tests.evaluate.tasks import standins
from tests.golden import scorers
from vlmjax.errors import UserError
from vlmjax.evaluate import scoring
from vlmjax.evaluate.tasks import pope


def files(data_dir):
    for k, kind in enumerate(pope.KINDS):
        standins.lines(data_dir / f"pope/coco/coco_pope_{kind}.json", [
            {"question_id": 1 + i, "image": f"COCO_val2014_{i // 2:012d}.jpg", "text": f"Is there a {('dog', 'cat', 'car')[(i + k * (i % 2)) % 3]} in the image?", "label": ("yes", "no")[i % 2]} for i in range(6)])
    for i in range(3):
        standins.picture(data_dir / f"pope/val2014/COCO_val2014_{i:012d}.jpg", i)


def test_answers_are_read_and_counted_as_the_official_program_does():
    golden = scorers.read("pope")
    assert [pope.parse(answer) for answer in golden["answers"]] == golden["read as"]
    rows = [{"id": str(i), "image": str(i), "answer": label, "kind": "random", "control": "real", "prediction": answer} for i, (answer, label) in enumerate(zip(golden["answers"], golden["labels"]))]
    found = {metric: score["value"] for metric, score in scoring.rescore(rows, pope.POPE)["real"].items()}
    numbers = {"accuracy": "Accuracy", "precision/random": "Precision", "recall/random": "Recall", "f1/random": "F1 score", "yes/random": "Yes ratio"}
    assert {metric: found[metric] for metric in numbers} == {metric: pytest.approx(golden["numbers"][name]) for metric, name in numbers.items()}
    assert found["f1"] is None  # of no answers to the popular and adversarial questions


def test_known_cases():
    assert [pope.parse(text) for text in ("", "No, there is not.", "There is no. Yes", "Nope")] == ["yes", "no", "no", "yes"]
    assert [pope.strict(text) for text in ("", "No, there is not.", "There is no. Yes", "Nope", " *Yes*", "yesterday")] == [None, "no", None, None, "yes", None]


def test_a_model_is_scored_with_its_files(tmp_path):
    files(tmp_path)
    results, predictions = standins.scored("pope", tmp_path)
    real = results["real"]
    assert {"accuracy", "accuracy/random", "accuracy/popular", "accuracy/adversarial", "f1", "f1/random", "yes/popular", "accuracy/strict"} <= set(real) and real["accuracy"]["n"] == 18
    assert real["f1"]["value"] == pytest.approx(sum(real[f"f1/{kind}"]["value"] for kind in pope.KINDS) / 3)
    assert len(predictions) == 4 * 18 and predictions[0]["question"] == "Is there a dog in the image?\nAnswer the question using a single word or phrase."
    assert results["provenance"]["split"] == "coco" and results["provenance"]["prior"] == "other images of the split"


def test_what_is_missing_or_no_label_is_said(tmp_path):
    with pytest.raises(UserError, match="^pope: .*coco_pope_random.json: .*; what it needs is told by: vlmjax data sources pope$"):
        pope.POPE.read(str(tmp_path))
    with pytest.raises(UserError, match="has no split 'test'; it has coco"):
        pope.read(str(tmp_path), "test")
    standins.lines(tmp_path / "pope/coco/coco_pope_random.json", [{"question_id": 1, "image": "a.jpg", "text": "?", "label": "maybe"}])
    with pytest.raises(UserError, match=r"coco_pope_random.json\[0\]: 'maybe' is none of yes, no"):
        pope.read(str(tmp_path), "coco")
