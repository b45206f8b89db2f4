import json

import pytest

from tests.evaluate.tasks import standins
from tests.golden import scorers
from vlmjax.errors import UserError
from vlmjax.evaluate.tasks import chartqa

FILE, FOLDER = chartqa.SPLITS["test"]


def files(data_dir, **changed):
    for kind in chartqa.KINDS:
        standins.write(data_dir / FILE.format(kind), json.dumps([{"imgname": f"{i // 2}.png", "query": f"How many {'ab'[i % 2]}?", "label": str(i), **changed} for i in range(4)]))
    for i in range(2):
        standins.picture(data_dir / FOLDER / f"{i}.png", i)


def test_numbers_are_relaxed_as_pix2struct_does():
    golden = scorers.read("chartqa")
    assert [chartqa.relaxed(said, (right,)) for said, right in zip(golden["said"], golden["right"])] == golden["correct"]


def test_known_cases():
    cases = {("10.5", "10"): 1, ("10.51", "10"): 0, ("50", "50%"): 0, ("0.5", "50%"): 1, ("0.0", "0"): 0, ("0", "0"): 1, ("yes", "Yes"): 1, ("1950", "2019"): 1, ("about 10", "10"): 0}
    assert {case: chartqa.relaxed(case[0], (case[1],)) for case in cases} == cases


def test_a_model_is_scored_with_its_files(tmp_path):
    files(tmp_path)
    results, predictions = standins.scored("chartqa", tmp_path)
    assert set(results["real"]) == {"accuracy", "accuracy/human", "accuracy/augmented", "accuracy/exact"} and results["real"]["accuracy"]["n"] == 8 and results["provenance"]["split"] == "test"
    assert (predictions[0]["id"], predictions[0]["image"], predictions[0]["question"]) == ("human/0", "0.png", "How many a?\nAnswer the question using a single word or phrase.")


def test_what_is_missing_or_wrong_is_said(tmp_path):
    with pytest.raises(UserError, match="^chartqa: .*test_human.json: .*; what it needs is told by: vlmjax data sources chartqa$"):
        chartqa.CHARTQA.read(str(tmp_path))
    files(tmp_path, label=3)
    with pytest.raises(UserError, match=r"test_human.json\[0\]: label: 3 is not a text"):
        chartqa.read(str(tmp_path), "test")
