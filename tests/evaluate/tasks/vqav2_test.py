import dataclasses
import json

import pytest

from tests.evaluate.tasks import standins
from tests.golden import scorers
from tests.golden.scorers import open_answers
from vlmjax.errors import UserError
from vlmjax.evaluate import scoring
from vlmjax.evaluate.tasks import vqav2
from vlmjax.evaluate.texts import vqa_accuracy

QUESTIONS, ANNOTATIONS, FOLDER, PREFIX = vqav2.SPLITS["val"]


def files(data_dir, count=6, **changed):
    asked = [{"question_id": 10 * i, "image_id": 42 + i // 2, "question": f"What is {'abc'[i % 3]}?"} for i in range(count)]
    people = [["yes"] * 9 + ["no"], ["2"] * 10, ["red"] * 4 + ["blue"] * 6]
    told = [{"question_id": 10 * i, "image_id": 42 + i // 2, "question_type": "what is", "answer_type": vqav2.KINDS[i % 3], "multiple_choice_answer": people[i % 3][5],
             "answers": [{"answer": answer, "answer_confidence": "yes", "answer_id": n} for n, answer in enumerate(people[i % 3], 1)], **changed} for i in reversed(range(count))]
    standins.write(data_dir / QUESTIONS, json.dumps({"info": {}, "questions": asked}))
    standins.write(data_dir / ANNOTATIONS, json.dumps({"info": {}, "annotations": told}))
    for i in range(-(-count // 2)):
        standins.picture(data_dir / FOLDER / f"{PREFIX}{42 + i:012d}.jpg", i)


def test_answers_are_scored_as_the_official_program_does():
    golden = scorers.read("vqav2")
    assert [vqa_accuracy.official(text) for text in golden["texts"]] == golden["normalised"]
    questions = open_answers.unpacked(golden["texts"], golden["questions"])
    assert [100 * vqa_accuracy.by_official(said, answers) for said, answers in questions] == pytest.approx(golden["scores"])
    rows = [{"id": str(i), "image": str(i), "answer": answers[0], "answers": answers, "kind": vqav2.KINDS[i % 3], "control": "real", "prediction": said} for i, (said, answers) in enumerate(questions)]
    as_they_are = dataclasses.replace(vqav2.VQAV2, parse=vqa_accuracy.tidy, score=vqa_accuracy.by_official)
    found = {metric: 100 * score["value"] for metric, score in scoring.rescore(rows, as_they_are)["real"].items()}
    wanted = {("accuracy" if name == "overall" else f"accuracy/{name}"): value for name, value in golden["numbers"].items()}
    assert {metric: found[metric] for metric in wanted} == pytest.approx(wanted, abs=0.005) and found["accuracy/raw"] == pytest.approx(golden["numbers"]["overall"], abs=0.005)


def test_answers_are_scored_as_llava_submits_them_and_as_they_are():
    row = {"id": "0", "image": "i", "answer": "yes", "answers": ["yes"] * 10, "kind": "yes/no", "control": "real", "prediction": "Yes."}
    real = scoring.rescore([row], vqav2.VQAV2)["real"]
    assert real["accuracy"]["value"] == 1 and real["accuracy/raw"]["value"] == 0


def test_a_model_is_scored_with_its_files(tmp_path):
    files(tmp_path)
    results, predictions = standins.scored("vqav2", tmp_path)
    assert set(results["real"]) == {"accuracy", "accuracy/yes/no", "accuracy/number", "accuracy/other", "accuracy/raw"} and results["real"]["accuracy/other"]["n"] == 2
    first = predictions[0]
    assert (first["id"], first["image"], first["question"]) == ("0", "COCO_val2014_000000000042.jpg", "What is a?\nAnswer the question using a single word or phrase.")
    assert first["answer"] == "yes" and first["answers"] == ["yes"] * 9 + ["no"] and results["provenance"]["split"] == "val"


@pytest.mark.parametrize("changed, said", [({"answer_type": "maybe"}, r"annotations\[0\]: 'maybe' is none of yes/no, number, other"), ({"answers": "red"}, r"annotations\[0\]: 'red' is not a list of answers"),
                                           ({"answers": []}, "is not a list of answers"), ({"question_id": 7}, r"annotations\[1\]: question_id 7 has been there before"), ({"count": 1, "question_id": 7}, r"questions.json: questions\[0\]: question_id 0 has no answers in .*annotations.json")])
def test_what_is_wrong_in_a_file_is_said_with_its_place(tmp_path, changed, said):
    files(tmp_path, **changed)
    with pytest.raises(UserError, match=said):
        vqav2.read(str(tmp_path), "val")


def test_files_that_are_missing_or_of_another_form_are_said(tmp_path):
    with pytest.raises(UserError, match="^vqav2: .*annotations.json: .*; what it needs is told by: vlmjax data sources vqav2$"):
        vqav2.VQAV2.read(str(tmp_path))
    standins.write(tmp_path / ANNOTATIONS, "[1]")
    with pytest.raises(UserError, match="annotations.json: is .1., not an object"):
        vqav2.read(str(tmp_path), "val")
    standins.write(tmp_path / ANNOTATIONS, '{"annotations": 3}')
    with pytest.raises(UserError, match="annotations.json: annotations is 3, not a list"):
        vqav2.read(str(tmp_path), "val")
