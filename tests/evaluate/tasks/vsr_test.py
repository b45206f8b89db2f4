import pytest

from tests.evaluate.tasks import standins
from tests.golden import scorers
from vlmjax.errors import UserError
from vlmjax.evaluate import scoring
from vlmjax.evaluate.tasks import vsr

ROW = {"image": "000000000000.jpg", "caption": "The car is behind the suitcase.", "label": 1, "relation": "behind"}


def test_accuracy_by_relation_is_the_publishers():
    golden = scorers.read("vsr")
    assert vsr.GROUP == golden["groups"]
    rows = [{"id": str(i), "image": str(i), "answer": ("False", "True")[label], "kind": vsr.GROUP[relation], "control": "real", "prediction": answer} for i, (_, relation, label, answer) in enumerate(golden["rows"])]
    found = scoring.rescore(rows, vsr.VSR)["real"]
    assert {group: [round(found[f"accuracy/{group}"]["value"], 4), found[f"accuracy/{group}"]["n"]] for group in golden["numbers"]} == golden["numbers"]


@pytest.mark.parametrize("text, meant", [("True", "True"), (" false.", "False"), ("It is TRUE.", "True"), ("True or False", None), ("untrue", None), ("", None), ("yes", None)])
def test_known_cases(text, meant):
    assert vsr.parse(text) == meant


def test_a_model_is_scored_with_its_files(tmp_path):
    for split in vsr.SPLITS.values():
        standins.lines(tmp_path / split, [ROW | {"image": f"{i // 2:012d}.jpg", "label": i % 2, "relation": ("behind", "among")[i % 2]} for i in range(6)])
    for i in range(3):
        standins.picture(tmp_path / f"vsr/images/{i:012d}.jpg", i)
    results, predictions = standins.scored("vsr", tmp_path)
    assert {metric: score["n"] for metric, score in results["real"].items()} == {"accuracy": 6, "accuracy/projective": 3, "accuracy/unallocated": 3}
    assert predictions[0]["question"] == 'Based on the image, is this statement "True" or "False"? The car is behind the suitcase.\nRespond with "True" or "False" directly.'
    assert results["provenance"]["split"] == "zeroshot" and len(vsr.read(str(tmp_path), "random")[1]) == 6


def test_what_is_missing_or_wrong_is_said(tmp_path):
    with pytest.raises(UserError, match="^vsr: .*zeroshot/test.jsonl: .*; what it needs is told by: vlmjax data sources vsr$"):
        vsr.VSR.read(str(tmp_path))
    with pytest.raises(UserError, match="has no split 'dev'; it has zeroshot, random"):
        vsr.read(str(tmp_path), "dev")
    for change, message in (({"label": 2}, r"test.jsonl\[0\]: 2 is none of 0, 1"), ({"relation": "atop"}, "'atop' is none of adjacent to")):
        standins.lines(tmp_path / vsr.SPLITS["zeroshot"], [ROW | change])
        with pytest.raises(UserError, match=message):
            vsr.read(str(tmp_path), "zeroshot")
