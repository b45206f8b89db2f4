import json
import zipfile

import pytest

from tests.evaluate.tasks import standins
from tests.golden import scorers
from vlmjax.errors import UserError
from vlmjax.evaluate import scoring
from vlmjax.evaluate.tasks import scienceqa
from vlmjax.evaluate.texts import letters

GOLDEN = scorers.read("scienceqa")


def files(data_dir, problems):
    standins.write(data_dir / "scienceqa/problems.json", json.dumps(problems))
    standins.write(data_dir / "scienceqa/pid_splits.json", json.dumps({"test": list(problems), "minitest": list(problems)[:1]}))


def problem(i):
    return {"question": "which is it?", "choices": ["red", "blue", "green"][: 2 + i % 2], "answer": i % 2, "hint": "" if i % 2 else "a hint", "image": "image.png" if i < 4 else None, "split": "test"}


def test_questions_are_asked_as_llava_asks_them(tmp_path):
    files(tmp_path, GOLDEN["problems"])
    _, items = scienceqa.read(str(tmp_path), "test")
    assert [item.turns[0].text for item in items] == GOLDEN["prompts"]
    assert [item.kind == "image" for item in items] == GOLDEN["image"][: len(items)]


def test_answers_are_read_and_counted_as_the_official_program_does():
    options = [tuple("abcde"[:count]) for count in GOLDEN["choices"]]
    read = [scienceqa.SCIENCEQA.means(answer, own) for answer, own in zip(GOLDEN["answers"], options)]
    assert [-1 if letter is None else letters.LETTERS.index(letter) for letter in read] == GOLDEN["read as"]
    rows = [{"id": str(i), "image": None, "answer": letters.LETTERS[label], "kind": "image" if image else "text", "control": "real", "prediction": answer, "options": own}
            for i, (answer, label, image, own) in enumerate(zip(GOLDEN["answers"], GOLDEN["labels"], GOLDEN["image"], options))]
    found = scoring.rescore(rows, scienceqa.SCIENCEQA)
    assert [round(100 * found["real"][metric]["value"], 2) for metric in ("accuracy", "accuracy/image")] == list(GOLDEN["numbers"].values())
    assert found["unparsed"] == {"real": GOLDEN["read as"].count(-1)}


def test_known_cases():
    means = lambda text: scienceqa.SCIENCEQA.means(text, ("one", "two", "three"))
    assert [means(text) for text in ("B", "B. two", "The answer is C.", "The answer is C. The answer is C.", "D", "two", "", "(A)")] == ["B", "B", "C", None, None, None, None, None]


def test_a_model_is_scored_with_its_files(tmp_path):
    files(tmp_path, {str(i): problem(i) for i in range(8)})
    for i in range(3):
        standins.picture(tmp_path / f"scienceqa/images/test/{i}/image.png", i)
    standins.picture(tmp_path / "image.png", 3)
    with zipfile.ZipFile(tmp_path / "scienceqa/images/test.zip", "w") as packed:
        packed.write(tmp_path / "image.png", "test/3/image.png")
    results, predictions = standins.scored("scienceqa", tmp_path)
    assert {metric: score["n"] for metric, score in results["real"].items()} == {"accuracy": 8, "accuracy/image": 4, "accuracy/text": 4}
    said = {(row["control"], row["id"]): row["prediction"] for row in predictions}
    assert all(said["real", str(i)] == said["blind", str(i)] == said["shuffled", str(i)] for i in range(4, 8))  # a question without an image has none to take
    assert predictions[0]["question"] == "Context: a hint\nQuestion: which is it?\nOptions: (A) red (B) blue\nAnswer with the option's letter from the given choices directly."
    assert predictions[0]["options"] == ["red", "blue"] and results["provenance"]["prior"] == "other images of the split"
    assert len(scienceqa.read(str(tmp_path), "minitest")[1]) == 1


def test_what_is_missing_or_no_answer_is_said(tmp_path):
    with pytest.raises(UserError, match="^scienceqa: .*pid_splits.json: .*; what it needs is told by: vlmjax data sources scienceqa$"):
        scienceqa.SCIENCEQA.read(str(tmp_path))
    files(tmp_path, {"7": problem(0) | {"answer": 2}})
    with pytest.raises(UserError, match="has no split 'dev'; it has test, minitest"):
        scienceqa.read(str(tmp_path), "dev")
    with pytest.raises(UserError, match="scienceqa/problems.json: '7': 2 is not the index of one of its 2 options"):
        scienceqa.read(str(tmp_path), "test")
    standins.write(tmp_path / "scienceqa/problems.json", "{}")
    with pytest.raises(UserError, match="scienceqa/problems.json: '7': is None, not an object"):
        scienceqa.read(str(tmp_path), "test")
