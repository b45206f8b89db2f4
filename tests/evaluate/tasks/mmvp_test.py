import csv
import io

import pytest

from tests.evaluate.tasks import standins
from tests.golden import scorers
from vlmjax.errors import UserError
from vlmjax.evaluate import scoring
from vlmjax.evaluate.tasks import mmvp

GOLDEN = scorers.read("mmvp")


def files(data_dir, rows):
    out = io.StringIO(newline="")
    csv.writer(out).writerows([("Index", "Question", "Options", "Correct Answer"), *rows])
    standins.write(data_dir / mmvp.FILE, "\ufeff" + out.getvalue())


def test_questions_are_asked_as_cambrian_asks_them(tmp_path):
    files(tmp_path, [(i + 1, question, options, "(b)") for i, (question, options) in enumerate(GOLDEN["questions"])])
    _, items = mmvp.read(str(tmp_path), "test")
    assert [item.turns[0].text for item in items] == GOLDEN["prompts"] and [list(item.options) for item in items] == GOLDEN["options"]
    assert [item.group for item in items] == ["pair 1", "pair 1", "pair 2", "pair 2"] and {item.answer for item in items} == {"B"}


def test_answers_are_read_and_counted_as_cambrians_program_does():
    options = [GOLDEN["options"][question] for question, *_ in GOLDEN["rows"]]
    meant = [rest.upper() if rest in ("a", "b") else next((letter for letter, option in zip("AB", own) if option.lower() == rest), None) for own, (*_, rest) in zip(options, GOLDEN["rows"])]
    assert [mmvp.MMVP.means(answer, own) for own, (_, _, answer, _) in zip(options, GOLDEN["rows"])] == meant
    rows = [{"id": f"x{i}", "image": str(i), "answer": gold[1].upper(), "kind": "", "group": str(i // 2), "control": "real", "prediction": answer, "options": own} for i, (own, (_, gold, answer, _)) in enumerate(zip(options, GOLDEN["rows"]))]
    assert 100 * scoring.rescore(rows, mmvp.MMVP)["real"]["sets"]["value"] == pytest.approx(GOLDEN["pairs"])


def test_swapped_answers_are_also_counted_the_right_way_round():
    rows = [{"id": str(i), "image": str(i), "answer": "AB"[i % 2 == 0], "kind": "", "group": str((i + 1) // 2), "control": "real", "prediction": said, "options": ["one", "two"]} for i, said in ((99, "B"), (100, "A"), (101, "A"), (102, "B"))]
    found = scoring.rescore(rows, mmvp.MMVP)["real"]
    assert [found[metric]["value"] for metric in ("accuracy", "sets", "sets/corrected")] == [0.5, 0.5, 1]  # of 99 and 100, published as A and B, the others are right


def test_a_model_is_scored_with_its_files(tmp_path):
    files(tmp_path, [(i + 1, "Is it open?", "(a) Open (b) Closed", f"({'ab'[i % 2]})") for i in range(12)])
    for i in range(12):
        standins.picture(tmp_path / f"mmvp/MMVP Images/{i + 1}.jpg", i)
    results, predictions = standins.scored("mmvp", tmp_path)
    assert {metric: score["n"] for metric, score in results["real"].items()} == {"accuracy": 12, "sets": 6, "sets/corrected": 6}
    assert predictions[0]["question"] == "Is it open? Options:\nA. Open\nB. Closed\nAnswer with the option's letter from the given choices directly."
    assert results["prior"]["sets"]["value"] == 0 and results["prior"]["accuracy"]["value"] == 0.5  # one answer to both of a pair


def test_what_is_missing_or_wrong_is_said(tmp_path):
    with pytest.raises(UserError, match="^mmvp: .*Questions.csv: .*; what it needs is told by: vlmjax data sources mmvp$"):
        mmvp.MMVP.read(str(tmp_path))
    with pytest.raises(UserError, match="has no split 'val'; it has test"):
        mmvp.read(str(tmp_path), "val")
    for row, message in (((1, "?", "Open or closed", "(a)"), "row 0: .* is not a number, a question"), ((1, "?", "(a) x (b) y", "(c)"), r"row 0: '\(c\)' is none of \(a\), \(b\)"), ((1, "?"), "row 0: .* is not a number, a question")):
        files(tmp_path, [row])
        with pytest.raises(UserError, match=message):
            mmvp.read(str(tmp_path), "test")
