import base64

import pytest

from tests.evaluate.tasks import standins
from tests.golden import scorers
from vlmjax.errors import UserError
from vlmjax.evaluate import scoring
from vlmjax.evaluate.tasks import mmbench

HEAD = "index\tquestion\thint\tA\tB\tC\tD\tanswer\tcategory\timage\tl2-category\n"


def test_questions_are_asked_as_llava_asks_them(tmp_path):
    golden = scorers.read("mmbench_prompts")
    image = base64.b64encode(standins.picture(tmp_path / "x.png", 0)).decode()
    for (path, _), language in zip(mmbench.SPLITS.values(), ("en", "cn")):
        standins.write(tmp_path / path, golden["table"].replace("IMAGE", image))
        _, items = mmbench.read(str(tmp_path), {"en": "dev", "cn": "dev_cn"}[language])
        assert [item.turns[0].text for item in items] == golden["asked"][language]
        assert [list(item.options) for item in items] == golden["options"]
    assert {item.image for item in items} == {"7"} and [item.group for item in items][::6] == ["7", "7"]


def test_answers_are_read_and_counted_as_the_official_program_does():
    golden = scorers.read("mmbench")
    read = [mmbench.MMBENCH.means(answer, options) for _, _, _, options, answer, _ in golden["rows"]]
    assert read == [None if letter == "Z" else letter for *_, letter in golden["rows"]]
    rows = [{"id": str(index), "image": "0", "answer": answer, "kind": kind, "group": str(index % 10**6), "control": "real", "prediction": text, "options": options} for index, kind, answer, options, text, _ in golden["rows"]]
    found = scoring.rescore(rows, mmbench.MMBENCH)["real"]
    assert {name: found[name]["value"] for name in golden["numbers"]} == pytest.approx(golden["numbers"])


def test_three_of_four_rotations_are_not_enough():
    rows = [{"id": str(k * 10**6), "image": "0", "answer": "ABCD"[-k % 4], "kind": "x", "group": "0", "control": "real", "prediction": "ABCD"[-k % 4] if k else "no idea", "options": ["red", "blue", "green", "black"]} for k in range(4)]
    found = scoring.rescore(rows, mmbench.MMBENCH)
    assert (found["real"]["accuracy"]["value"], found["real"]["sets"]["value"], found["real"]["vanilla"]["value"], found["unparsed"]) == (0.75, 0, 0, {"real": 1})


def test_a_model_is_scored_with_its_files(tmp_path):
    image = [base64.b64encode(standins.picture(tmp_path / f"{i}.png", i)).decode() for i in range(3)]
    rows = [f"{k * 10**6 + q}\twhich?\t\t{'red blue green'.split()[k]}\t{'blue green red'.split()[k]}\t{'green red blue'.split()[k]}\t\t{'ACB'[k]}\tc\t{q if k == 2 else image[q]}\t{'one' if q else 'two'}" for k in range(3) for q in range(3)]
    standins.write(tmp_path / "mmbench/mmbench_dev_20230712.tsv", HEAD + "\n".join(rows))
    results, predictions = standins.scored("mmbench", tmp_path)
    assert {metric: score["n"] for metric, score in results["real"].items()} == {"accuracy": 9, "accuracy/one": 6, "accuracy/two": 3, "sets": 3, "vanilla": 3, "sets/one": 2, "sets/two": 1}
    assert {row["image"] for row in predictions} == {"0", "1", "2"} and results["provenance"]["split"] == "dev"
    assert predictions[0]["question"] == "which?\nA. red\nB. blue\nC. green\nAnswer with the option's letter from the given choices directly."


def test_what_is_missing_or_no_answer_is_said(tmp_path):
    with pytest.raises(UserError, match="^mmbench: .*mmbench_dev_20230712.tsv: .*; what it needs is told by: vlmjax data sources mmbench$"):
        mmbench.MMBENCH.read(str(tmp_path))
    with pytest.raises(UserError, match="has no split 'test'; it has dev, dev_cn"):
        mmbench.read(str(tmp_path), "test")
    for index, answer, message in (("1", "", "index 1: '' is none of A, B"), ("x", "A", "index x: its index is not a number")):
        standins.write(tmp_path / "mmbench/mmbench_dev_20230712.tsv", f"{HEAD}{index}\twhich?\t\ta\tb\t\t\t{answer}\tc\t{'A' * 80}\tone\n")
        with pytest.raises(UserError, match=message):
            mmbench.read(str(tmp_path), "dev")
