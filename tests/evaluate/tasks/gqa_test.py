import json

import pytest

from tests.evaluate.tasks import standins
from tests.golden import scorers
from vlmjax.errors import UserError
from vlmjax.evaluate import scoring
from vlmjax.evaluate.tasks import gqa

FILE, FOLDER = gqa.SPLITS["testdev"]


def files(data_dir, **changed):
    rows = {f"20130770{i}": {"question": f"Is it {'ab'[i % 2]}?", "answer": ("yes", "no", "t-shirt")[i % 3], "fullAnswer": "", "imageId": f"n{i // 2}", "isBalanced": True,
                             "types": {"structural": gqa.KINDS[i % 5], "semantic": "obj"}, **changed} for i in range(6)}
    standins.write(data_dir / FILE, json.dumps(rows))
    for i in range(3):
        standins.picture(data_dir / FOLDER / f"n{i}.jpg", i)


def test_answers_are_read_and_counted_as_the_official_program_does():
    golden = scorers.read("gqa")
    assert [gqa.parse(answer) for answer in golden["answers"]] == golden["read as"]
    rows = [{"id": str(i), "image": str(i), "answer": label, "kind": kind, "control": "real", "prediction": answer}
            for i, (answer, label, kind) in enumerate(zip(golden["answers"], golden["labels"], golden["kinds"]))]
    found = {metric: 100 * score["value"] for metric, score in scoring.rescore(rows, gqa.GQA)["real"].items()}
    assert found == pytest.approx({("accuracy" if name == "accuracy" else f"accuracy/{name}"): value for name, value in golden["numbers"].items()}, abs=0.005)


def test_known_cases():
    assert [gqa.parse(text) for text in ("Yes.", " T-shirt..", "a. b", "No,", "")] == ["yes", "t-shirt", "a. b", "no,", ""]


def test_a_model_is_scored_with_its_files(tmp_path):
    files(tmp_path)
    results, predictions = standins.scored("gqa", tmp_path)
    assert {"accuracy", "accuracy/open", "accuracy/binary", "accuracy/query"} <= set(results["real"]) and results["real"]["accuracy/binary"]["n"] == 5
    assert (predictions[0]["id"], predictions[0]["image"], predictions[0]["question"]) == ("201307700", "n0.jpg", "Is it a?\nAnswer the question using a single word or phrase.")
    assert results["provenance"]["split"] == "testdev" and results["provenance"]["prior"] == "other images of the split"


def test_what_is_missing_or_wrong_is_said(tmp_path):
    with pytest.raises(UserError, match="^gqa: .*testdev_balanced_questions.json: .*; what it needs is told by: vlmjax data sources gqa$"):
        gqa.GQA.read(str(tmp_path))
    for types, said in (({"structural": "other"}, "'201307700': 'other' is none of choose"), ({}, "201307700': types: has no 'structural'"), (3, "types: is 3, not an object")):
        files(tmp_path, types=types)
        with pytest.raises(UserError, match=said):
            gqa.read(str(tmp_path), "testdev")
    standins.write(tmp_path / FILE, "[]")
    with pytest.raises(UserError, match="is not an object of questions by their ids"):
        gqa.read(str(tmp_path), "testdev")
