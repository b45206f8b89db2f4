import json

import pytest

from tests.evaluate.tasks import standins
from tests.golden import scorers
from tests.golden.scorers import open_answers
from vlmjax.errors import UserError
from vlmjax.evaluate import scoring
from vlmjax.evaluate.tasks import textvqa
from vlmjax.evaluate.texts import vqa_accuracy

FILE, PROMPTS, FOLDER = textvqa.SPLITS["val"]
PEOPLE = ("nokia", "nokia", "Nokia", "nokia phone", "sony", "nokia", "sony", "lg", "lg", "lg")


def files(data_dir, count=4):
    rows = [{"question_id": 34602 + i, "image_id": f"{i // 2:016x}", "question": f"what is brand {'ab'[i % 2]}?", "answers": PEOPLE, "image_width": 24, "ocr_tokens": []} for i in range(count)]
    standins.write(data_dir / FILE, json.dumps({"dataset_type": "val", "data": rows}))
    standins.lines(data_dir / PROMPTS, [{"question_id": row["image_id"], "image": f"{row['image_id']}.jpg",
                                         "text": f"{row['question'].capitalize()}\nReference OCR token: nokia, lg\nAnswer the question using a single word or phrase."} for row in rows])
    for i in range(-(-count // 2)):
        standins.picture(data_dir / FOLDER / f"{i:016x}.jpg", i)


def test_answers_are_scored_as_the_official_program_does():
    golden = scorers.read("textvqa")
    assert [vqa_accuracy.evalai(text) for text in golden["texts"]] == golden["normalised"]
    questions = open_answers.unpacked(golden["texts"], golden["questions"])
    assert [100 * vqa_accuracy.by_evalai(said, answers) for said, answers in questions] == pytest.approx(golden["scores"], abs=1e-5)
    rows = [{"id": str(i), "image": str(i), "answer": answers[0], "answers": answers, "kind": "", "control": "real", "prediction": said} for i, (said, answers) in enumerate(questions)]
    assert 100 * scoring.rescore(rows, textvqa.TEXTVQA)["real"]["accuracy"]["value"] == pytest.approx(golden["accuracy"], abs=0.005)
    assert [textvqa.question("", prompt).lower() for prompt in golden["prompts"]] == golden["asked"]


@pytest.mark.parametrize("task", textvqa.ALL, ids=lambda task: task.name)
def test_a_model_is_scored_with_its_files(tmp_path, task):
    files(tmp_path)
    results, predictions = standins.scored(task.name, tmp_path)
    assert set(results["real"]) == {"accuracy"} and results["real"]["accuracy"]["n"] == 4 and results["provenance"]["split"] == "val"
    asked = {"textvqa": "what is brand a?\n", "textvqa_ocr": "What is brand a?\nReference OCR token: nokia, lg\n"}[task.name]
    assert predictions[0]["question"] == asked + "Answer the question using a single word or phrase."
    assert (predictions[0]["id"], predictions[0]["image"], predictions[0]["answer"], predictions[0]["answers"]) == ("34602", "0000000000000000.jpg", "nokia", list(PEOPLE))


def test_of_a_question_that_is_there_twice_the_last_answers_count(tmp_path):
    files(tmp_path, 1)
    row = {"question_id": 1, "image_id": "x", "question": "What?"}
    standins.write(tmp_path / FILE, json.dumps({"data": [row | {"answers": ["red"]}, row | {"question_id": 2, "question": "what?", "answers": ["blue"]}]}))
    line = {"question_id": "x", "image": "x.jpg", "text": "What?\nReference OCR token: \nAnswer."}
    standins.lines(tmp_path / PROMPTS, [line, line])
    _, items = textvqa.read_ocr(str(tmp_path), "val")
    assert [(item.id, item.answer) for item in items] == [("2", "blue"), ("2#1", "blue")]


def test_a_prompt_of_another_form_or_without_answers_is_said(tmp_path):
    files(tmp_path)
    for line, said in (({"question_id": "x", "text": "What?\nAnswer."}, r"ocr.jsonl\[0\]: 'What\?.*' is not a question, a line with 'Reference OCR token:'"), ({"question_id": "y", "text": "What?\nReference OCR token: a\nAnswer."}, "no question 'What.' about the image 'y'"),
                       ({"question_id": "x", "text": 3}, "3 is not a text")):
        standins.lines(tmp_path / PROMPTS, [{"image": "x.jpg", **line}])
        with pytest.raises(UserError, match=said):
            textvqa.read_ocr(str(tmp_path), "val")
    (tmp_path / PROMPTS).unlink()
    with pytest.raises(UserError, match="^textvqa_ocr: .*ocr.jsonl: .*; what it needs is told by: vlmjax data sources textvqa$"):
        textvqa.TEXTVQA_OCR.read(str(tmp_path))
