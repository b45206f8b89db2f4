import json

import pytest

from tests.evaluate.tasks import standins
from tests.golden import scorers
from vlmjax.errors import UserError
from vlmjax.evaluate import scoring
from vlmjax.evaluate.tasks import seedbench

QUESTION = {"question_id": "1", "question_type_id": 1, "data_type": "image", "data_id": "0_1", "question": "what?", "answer": "B", "choice_a": "red", "choice_b": "blue", "choice_c": "green", "choice_d": "black"}


def files(data_dir, questions):
    standins.write(data_dir / seedbench.FILE, json.dumps({"question_type": {"Scene Understanding": 1, "Instances Counting": 5, "Action Recognition": 10}, "questions": questions}))


def test_answers_are_counted_as_the_official_program_does():
    golden = scorers.read("seedbench")
    names = {number: name for name, number in golden["types"].items()}
    rows = [{"id": str(i), "image": str(i), "answer": answer, "kind": names[kind], "control": "real", "prediction": text, "options": list("abcd")} for i, (kind, what, answer, text) in enumerate(golden["rows"]) if what == "image"]
    found = scoring.rescore(rows, seedbench.SEEDBENCH)["real"]
    assert len(rows) > 150 and round(100 * found["accuracy"]["value"], 2) == golden["numbers"]["image accuracy"]
    assert all(round(100 * found[f"accuracy/{name}"]["value"], 2) == golden["numbers"][name] for name in golden["types"] if name != "Action Recognition")


def test_known_cases():
    means = lambda text: seedbench.SEEDBENCH.means(text, ("one", "two", "three", "four"))
    assert [means(text) for text in ("B", " B\n", "B.", "(B)", "b", "E", "", "two")] == ["B", "B", None, None, None, None, None, None]


def test_a_model_is_scored_with_its_files(tmp_path):
    files(tmp_path, [QUESTION | {"question_id": str(i), "question_type_id": (1, 5)[i % 2], "data_id": f"0_{i // 2}"} for i in range(6)] + [{"question_id": "v1", "data_type": "video"}])
    for i in range(3):
        (tmp_path / f"seed_bench/SEED-Bench-image/0_{i}").parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"seed_bench/SEED-Bench-image/0_{i}").write_bytes(standins.picture(tmp_path / "x.jpg", i))
    results, predictions = standins.scored("seedbench", tmp_path)
    assert {metric: score["n"] for metric, score in results["real"].items()} == {"accuracy": 6, "accuracy/Scene Understanding": 3, "accuracy/Instances Counting": 3}
    assert predictions[0]["question"] == "what?\nA. red\nB. blue\nC. green\nD. black\nAnswer with the option's letter from the given choices directly."
    assert results["provenance"]["split"] == "image"


def test_what_is_missing_or_wrong_is_said(tmp_path):
    with pytest.raises(UserError, match="^seedbench: .*SEED-Bench.json: .*; what it needs is told by: vlmjax data sources seedbench$"):
        seedbench.SEEDBENCH.read(str(tmp_path))
    with pytest.raises(UserError, match="has no split 'test'; it has image"):
        seedbench.read(str(tmp_path), "test")
    for change, message in (({"answer": "E"}, r"questions\[0\]: 'E' is none of A, B, C, D"), ({"question_type_id": 3}, "question_type has no 3"), ({"choice_d": None}, "is not a list of 2 to 26 options"), ({"data_type": "image", "question": ...}, "has no 'question'")):
        files(tmp_path, [{key: value for key, value in (QUESTION | change).items() if value is not ...}])
        with pytest.raises(UserError, match=message):
            seedbench.read(str(tmp_path), "image")
