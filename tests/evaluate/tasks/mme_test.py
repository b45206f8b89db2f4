import pytest

from tests.evaluate.tasks import standins
from tests.golden import scorers
from vlmjax.errors import UserError
from vlmjax.evaluate import scoring
from vlmjax.evaluate.tasks import mme

APART = ("artwork", "celebrity", "landmark", "posters", "scene")
CATEGORIES = [category for categories in mme.TOTALS.values() for category in categories]


def files(data_dir, extra=""):
    """One image and its two questions in each category."""
    for k, category in enumerate(CATEGORIES):
        folder = data_dir / f"MME/MME_Benchmark_release_version{extra}/{category}"
        texts, images = (folder / "questions_answers_YN", folder / "images") if category in APART else (folder, folder)
        standins.write(texts / "0001.txt", "Is it red? Please answer yes or no.\tYes\nIs it blue?  Please answer yes or no.\tNo\n\n")
        standins.picture(images / f"0001{'.png' if k > 9 else '.jpg'}", k)


def test_answers_are_read_and_counted_as_the_official_program_does():
    golden = scorers.read("mme")
    assert [mme.parse(text) or "other" for *_, text, _ in golden["answers"]] == [read for *_, read in golden["answers"]]
    rows = [{"id": str(i), "image": str(i // 2), "answer": label.lower(), "kind": category, "group": str(i // 2), "control": "real", "prediction": text} for i, (category, label, text, _) in enumerate(golden["answers"])]
    found = scoring.rescore(rows, mme.MME)["real"]
    assert {category: found[f"score/{category}"]["value"] for category in CATEGORIES} == pytest.approx(golden["points"])
    assert {total: found[total]["value"] for total in mme.TOTALS} == pytest.approx(golden["totals"])
    assert found["perception"]["unit"] == "points" and found["perception"]["n"] == 10 * 18 and found["perception"]["stderr"] > 0


def test_known_cases():
    assert [mme.parse(text) for text in ("Yes, it is", "The answer is yes", "Know", "", "NO", "\n\n\n\nno")] == ["yes", None, "no", None, "no", "no"]
    assert mme.more([])["perception"]["value"] is None


@pytest.mark.parametrize("extra", ["", "/MME_Benchmark"])
def test_both_layouts_are_read_and_asked_as_llava_does(tmp_path, extra):
    files(tmp_path, extra)
    source, items = mme.MME.read(str(tmp_path))
    assert [item.kind for item in items] == [category for category in CATEGORIES for _ in range(2)] and len({item.id for item in items}) == 28
    assert items[0].turns[-1].text == "<image>\nIs it red?\nAnswer the question using a single word or phrase." and items[1].question.startswith("Is it blue?\nAnswer")
    assert {item.image for item in items} >= {"existence/0001.jpg", "artwork/images/0001.jpg", "code_reasoning/0001.png"} and all(source.read_image(item.image) for item in items)


def test_a_model_is_scored_with_its_files(tmp_path):
    files(tmp_path)
    results, predictions = standins.scored("mme", tmp_path)
    real = results["real"]
    assert {"accuracy", "accuracy/OCR", "sets", "score/OCR", "perception", "cognition"} <= set(real) and real["accuracy"]["n"] == 28 and real["sets"]["n"] == 14
    assert real["perception"]["value"] == pytest.approx(sum(real[f"score/{category}"]["value"] for category in mme.TOTALS["perception"]))
    assert len(predictions) == 4 * 28 and predictions[0]["group"] == "existence/0001"


def test_mistakes_in_files_are_one_line(tmp_path):
    with pytest.raises(UserError, match="^mme: .*existence: .*; what it needs is told by: vlmjax data sources mme$"):
        mme.MME.read(str(tmp_path))
    files(tmp_path)
    folder = tmp_path / "MME/MME_Benchmark_release_version/count"
    for content, reason in ((b"Is it?\tMaybe\nIs it?\tNo", r"count/0001.txt: 'maybe' is none of yes, no"), (b"Is it?\tYes", "is not two lines of"), (b"Is it?\tYes\nWas it No", "is not two lines of"), (b"\xff\tYes", "not text in UTF-8")):
        (folder / "0001.txt").write_bytes(content)
        with pytest.raises(UserError, match=reason):
            mme.MME.read(str(tmp_path))
    (folder / "0001.jpg").unlink()
    with pytest.raises(UserError, match="count/0001.txt: there is no image of this name"):
        mme.MME.read(str(tmp_path))
