import json

import pytest

from tests.evaluate.tasks import standins
from tests.golden import scorers
from vlmjax.errors import UserError
from vlmjax.evaluate import scoring
from vlmjax.evaluate.tasks import amber

PARTS = {"Descriminative Task": "", "Exsitence": "/existence", "Attribute": "/attribute", "State": "/state", "Number": "/number", "Action": "/action", "Relation": "/relation"}


def files(data_dir):
    """Two images; a question of each type about each."""
    rows = [(1 + k, f"AMBER_{1 + k % 2}.jpg", type_, "no" if type_ in ("discriminative-hallucination", "relation") else ("yes", "no")[k // 2 % 2]) for k, type_ in enumerate(type_ for type_ in amber.KINDS for _ in range(2))]
    standins.write(data_dir / "AMBER/data/query/query_discriminative.json", json.dumps([{"id": id_, "image": image, "query": "Is there a dog in this image?"} for id_, image, *_ in rows], indent=1))
    standins.write(data_dir / "AMBER/data/annotations.json", json.dumps([{"id": 0, "type": "generative", "truth": ["dog"], "hallu": []}] + [{"id": id_, "type": type_, "truth": truth} for id_, _, type_, truth in rows], indent=1))
    for i in range(2):
        standins.picture(data_dir / f"AMBER/image/AMBER_{i + 1}.jpg", i)


def found(golden, name):
    rows = []
    for k, (truth, answer) in enumerate(zip(golden["truths"], golden["answers"][name], strict=True)):
        type_, label = truth.split(": ")
        rows.append({"id": str(k), "image": str(k), "answer": label, "kind": amber.KINDS[type_], "control": "real", "prediction": answer})
    return {metric: score["value"] for metric, score in scoring.rescore(rows, amber.AMBER)["real"].items()}


def test_plain_answers_are_counted_as_the_official_program_does():
    golden = scorers.read("amber")
    numbers, ours = golden["numbers"]["plain"], found(golden, "plain")
    for part, end in PARTS.items():
        for name, off in (("Accuracy", 0.06), ("Precision", 0.06), ("Recall", 0.06), ("F1", 0.1)):  # it prints one decimal, and computes F1 from these
            assert 100 * ours[f"{name.lower()}{end}"] == pytest.approx(numbers[f"{part}: {name}"], abs=off), (part, name)
    assert ours["accuracy/exact"] == ours["accuracy"] and ours["f1/exact"] == ours["f1"]


def test_exact_is_what_the_official_program_makes_of_other_answers():
    golden = scorers.read("amber")
    numbers, ours = golden["numbers"]["ugly"], found(golden, "ugly")
    for name, off in (("Accuracy", 0.06), ("Precision", 0.06), ("Recall", 0.06), ("F1", 0.1)):
        assert 100 * ours[f"{name.lower()}/exact"] == pytest.approx(numbers[f"Descriminative Task: {name}"], abs=off), name
    assert ours["accuracy"] > ours["accuracy/exact"]


def test_always_no_is_right_about_existence():
    rows = [{"id": str(k), "image": str(k), "answer": answer, "kind": kind, "control": "real", "prediction": "No."} for k, (answer, kind) in enumerate((("no", "existence"), ("no", "existence"), ("yes", "state"), ("no", "relation")))]
    ours = {metric: score["value"] for metric, score in scoring.rescore(rows, amber.AMBER)["real"].items()}
    assert (ours["accuracy/existence"], ours["accuracy/state"], ours["no/existence"], ours["recall"], ours["precision"], ours["accuracy/exact"]) == (1, 0, 1, 1, 0.75, 0)
    assert ours["f1/number"] is None and ours["f1/attribute"] == 0


def test_a_model_is_scored_with_its_files(tmp_path):
    files(tmp_path)
    results, predictions = standins.scored("amber", tmp_path)
    real = results["real"]
    assert {"accuracy", "accuracy/existence", "accuracy/attribute", "accuracy/relation", "f1", "precision/state", "no/action", "accuracy/exact", "f1/exact"} <= set(real)
    assert real["accuracy"]["n"] == 12 and real["accuracy/relation"]["n"] == 4 and real["accuracy/attribute"]["n"] == 6
    assert predictions[0]["question"] == "Is there a dog in this image?\nAnswer the question using a single word or phrase."


def test_mistakes_in_files_are_one_line(tmp_path):
    with pytest.raises(UserError, match="^amber: .*annotations.json: .*; what it needs is told by: vlmjax data sources amber$"):
        amber.AMBER.read(str(tmp_path))
    files(tmp_path)
    questions = tmp_path / "AMBER/data/query/query_discriminative.json"
    for id_, reason in ((99, r"query_discriminative.json\[0\]: .*annotations.json has no id 99"), (0, r"annotations.json\[0\]: 'generative' is none of")):
        questions.write_text(json.dumps([{"id": id_, "image": "AMBER_1.jpg", "query": "?"}]))
        with pytest.raises(UserError, match=reason):
            amber.AMBER.read(str(tmp_path))
