import json

import pytest

from tests.evaluate.tasks import standins
from tests.golden import scorers
from tests.golden.scorers import open_answers
from vlmjax.errors import UserError
from vlmjax.evaluate import scoring
from vlmjax.evaluate.tasks import vizwiz
from vlmjax.evaluate.texts import vqa_accuracy

FILE, FOLDER = vizwiz.SPLITS["val"]
PEOPLE = ["unanswerable"] * 6 + ["soup"] * 3 + ["a soup"]


def files(data_dir, **changed):
    rows = [{"image": f"VizWiz_val_{i:08d}.jpg", "question": f"What is {'ab'[i % 2]}?", "answers": [{"answer_confidence": "yes", "answer": answer} for answer in PEOPLE], "answer_type": vizwiz.KINDS[i], "answerable": int(i > 0), **changed} for i in range(4)]
    standins.write(data_dir / FILE, json.dumps(rows))
    for i in range(4):
        standins.picture(data_dir / FOLDER / f"VizWiz_val_{i:08d}.jpg", i)


def test_answers_are_scored_as_a_copy_of_its_program_does():
    golden = scorers.read("vizwiz")
    assert [vqa_accuracy.vizwiz(vqa_accuracy.tidy(text)) for text in golden["texts"]] == golden["normalised"]
    questions = open_answers.unpacked(golden["texts"], golden["questions"])
    assert [100 * vqa_accuracy.by_vizwiz(said, answers) for said, answers in questions] == pytest.approx(golden["scores"])
    rows = [{"id": str(i), "image": str(i), "answer": answers[0], "answers": answers, "kind": "", "control": "real", "prediction": said} for i, (said, answers) in enumerate(questions)]
    assert 100 * scoring.rescore(rows, vizwiz.VIZWIZ)["real"]["accuracy"]["value"] == pytest.approx(golden["accuracy"], abs=0.005)


def test_contractions_have_the_apostrophes_of_its_table():
    assert [vqa_accuracy.vizwiz(word) for word in ("dont", "cant", "wheres", "couldn'tve", "she's")] == ["don\u2019t", "can't", "where's", "couldn\u2019t\u2019ve", "she's"]


def test_only_the_answer_is_normalised():
    assert vqa_accuracy.by_vizwiz("The soup.", PEOPLE) == pytest.approx(0.9) and vqa_accuracy.by_vizwiz("Unanswerable", PEOPLE) == 1
    assert vqa_accuracy.by_vizwiz("Soup", ["Soup"] * 10) == 0


def test_a_model_is_scored_with_its_files(tmp_path):
    files(tmp_path)
    results, predictions = standins.scored("vizwiz", tmp_path)
    assert set(results["real"]) == {"accuracy", "accuracy/evalai", *(f"accuracy/{kind}" for kind in vizwiz.KINDS)} and results["provenance"]["split"] == "val"
    assert predictions[0]["question"] == "What is a?\nWhen the provided information is insufficient, respond with 'Unanswerable'.\nAnswer the question using a single word or phrase."
    assert (predictions[0]["id"], predictions[0]["answer"], predictions[0]["answers"]) == ("VizWiz_val_00000000.jpg", "unanswerable", PEOPLE)


@pytest.mark.parametrize("changed, said", [({"answer_type": "none"}, r"val.json\[0\]: 'none' is none of unanswerable, other"), ({"answers": [{"text": "a"}]}, r"val.json\[0\]: .* is not a list of answers")])
def test_what_is_wrong_in_a_file_is_said(tmp_path, changed, said):
    with pytest.raises(UserError, match="^vizwiz: .*val.json: .*; what it needs is told by: vlmjax data sources vizwiz$"):
        vizwiz.VIZWIZ.read(str(tmp_path))
    files(tmp_path, **changed)
    with pytest.raises(UserError, match=said):
        vizwiz.read(str(tmp_path), "val")
