import json

import pytest

from tests.evaluate.tasks import standins
from tests.golden import scorers
from vlmjax.errors import UserError
from vlmjax.evaluate import scoring
from vlmjax.evaluate.tasks import tallyqa

ROW = {"answer": 4, "data_source": "imported_genome", "image": "VG_100K_2/0.jpg", "image_id": 90, "issimple": False, "question": "How many headlights does the bus have?", "question_id": 300}


def test_numbers_are_those_of_the_official_program():
    golden = scorers.read("tallyqa")
    rows = [{"id": str(i), "image": str(i), "answer": str(right), "kind": "simple" if simple else "complex", "control": "real", "prediction": f"{said}."}
            for i, (said, right, simple) in enumerate(zip(golden["said"], golden["right"], golden["simple"]))]
    found = scoring.rescore(rows, tallyqa.TALLYQA)["real"]
    for kind, official in golden["numbers"].items():
        end = "" if kind == "all" else f"/{kind}"
        assert 100 * found[f"accuracy{end}"]["value"] == pytest.approx(official["accuracy"]) and found[f"rmse{end}"]["value"] == pytest.approx(official["RMSE"])


def test_a_model_is_scored_with_its_files(tmp_path):
    rows = [{**ROW, "question_id": i, "image": f"VG_100K{'_2' if i % 2 else ''}/{i % 4}.jpg", "image_id": i % 4, "issimple": i < 3, "answer": i % 3} for i in range(6)]
    standins.write(tmp_path / "tallyqa/test.json", json.dumps(rows))
    for i in range(4):
        standins.picture(tmp_path / f"tallyqa/VG_100K{'_2' if i % 2 else ''}/{i}.jpg", i)
    results, predictions = standins.scored("tallyqa", tmp_path)
    real = results["real"]
    assert set(real) == {f"{metric}{end}" for metric in ("accuracy", "off_by_one", "mae", "rmse") for end in ("", "/simple", "/complex")} and real["accuracy"]["n"] == 6
    assert results["prior"]["mae"]["unit"] == "objects" and results["prior"]["mae"]["n"] == 6 and results["provenance"]["prior"] == "other images of the split"
    assert [row["answer"] for row in predictions[:3]] == ["0", "1", "2"] and predictions[0]["id"] == "0/0" and predictions[0]["kind"] == "simple" and predictions[5]["kind"] == "complex"
    assert predictions[0]["question"] == "How many headlights does the bus have?\nAnswer the question using a single word or phrase."


def test_what_is_missing_or_wrong_is_said(tmp_path):
    with pytest.raises(UserError, match="^tallyqa: .*test.json: .*; what it needs is told by: vlmjax data sources tallyqa$"):
        tallyqa.TALLYQA.read(str(tmp_path))
    standins.write(tmp_path / "tallyqa/test.json", json.dumps([{**ROW, "issimple": 1}]))
    with pytest.raises(UserError, match=r"test.json\[0\]: issimple is 1, not true or false"):
        tallyqa.TALLYQA.read(str(tmp_path))
    standins.write(tmp_path / "tallyqa/test.json", json.dumps([{key: value for key, value in ROW.items() if key != "issimple"}]))
    with pytest.raises(UserError, match=r"test.json\[0\]: has no 'issimple'"):
        tallyqa.TALLYQA.read(str(tmp_path))
