import json

import pytest

from tests.evaluate.tasks import standins
from vlmjax.errors import UserError
from vlmjax.evaluate import scoring
from vlmjax.evaluate.tasks import docvqa

FILE, FOLDER = docvqa.SPLITS["val"]


def files(data_dir, **changed):
    rows = [{"questionId": 49153 + i, "question": f"What is {'ab'[i % 2]}?", "image": f"documents/pybv0228_{i // 2}.png", "docId": 1, "answers": ["ITC Limited", "itc limited"], "data_split": "val", **changed} for i in range(4)]
    standins.write(data_dir / FILE, json.dumps({"dataset_name": "docvqa", "data": rows}))
    for i in range(2):
        standins.picture(data_dir / FOLDER / f"documents/pybv0228_{i}.png", i)


def test_a_distance_of_just_half_the_length_is_the_difference():
    row = {"id": "0", "image": "i", "answer": "ab", "answers": ["ab"], "kind": "", "control": "real", "prediction": " ac"}
    real = scoring.rescore([row], docvqa.DOCVQA)["real"]
    assert real["anls"]["value"] == 0 and real["anls/lmms-eval"]["value"] == 0.5


def test_a_model_is_scored_with_its_files(tmp_path):
    files(tmp_path)
    results, predictions = standins.scored("docvqa", tmp_path)
    assert set(results["real"]) == {"anls", "anls/lmms-eval"} and results["real"]["anls"]["n"] == 4 and results["provenance"]["split"] == "val"
    assert (predictions[0]["id"], predictions[0]["image"], predictions[0]["question"]) == ("49153", "documents/pybv0228_0.png", "What is a?\nAnswer the question using a single word or phrase.")
    assert predictions[0]["answer"] == "ITC Limited" and predictions[0]["answers"] == ["ITC Limited", "itc limited"]


def test_what_is_missing_or_wrong_is_said(tmp_path):
    with pytest.raises(UserError, match="^docvqa: .*val_v1.0.json: .*; what it needs is told by: vlmjax data sources docvqa$"):
        docvqa.DOCVQA.read(str(tmp_path))
    files(tmp_path, answers=[])
    with pytest.raises(UserError, match=r"val_v1.0.json: data\[0\]: \[\] is not a list of answers"):
        docvqa.read(str(tmp_path), "val")
