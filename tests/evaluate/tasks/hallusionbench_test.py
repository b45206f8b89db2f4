import json

import pytest

from tests.evaluate.tasks import standins
from tests.golden import scorers
from vlmjax.errors import UserError
from vlmjax.evaluate import scoring
from vlmjax.evaluate.tasks import hallusionbench

KEYS = ("category", "subcategory", "visual_input", "set_id", "figure_id", "question_id", "gt_answer")


def files(data_dir, rows, pictures=True):
    """rows: values of KEYS."""
    questions = [dict(zip(KEYS, row)) for row in rows]
    for i, row in enumerate(questions):
        picture = f"./{row['category']}/{row['subcategory']}/{row['set_id']}_{row['figure_id']}.png"
        row |= {"question": f"Is it longer, {row['question_id']}?", "filename": None if row["visual_input"] == "0" else picture}
        if pictures and row["filename"]:
            standins.picture(data_dir / f"HallusionBench/hallusion_bench/{picture}", i)
    standins.write(data_dir / "HallusionBench/HallusionBench.json", json.dumps(questions))


def test_sets_figures_and_levels_are_counted_as_the_official_program_does(tmp_path):
    golden = scorers.read("hallusionbench")
    lines = [line.split("\t") for line in golden["rows"]]
    files(tmp_path, [line[:7] for line in lines], pictures=False)
    _, items = hallusionbench.HALLUSIONBENCH.read(str(tmp_path))
    assert [scoring.grade(hallusionbench.HALLUSIONBENCH, line[7], item.accepted) for item, line in zip(items, lines, strict=True)] == [float(line[8]) for line in lines]
    rows = [{"id": item.id, "image": item.image, "answer": item.answer, "answers": item.answers, "kind": item.kind, "group": item.group, "control": "real", "prediction": line[7]} for item, line in zip(items, lines)]
    found = {metric: score["value"] for metric, score in scoring.rescore(rows, hallusionbench.HALLUSIONBENCH)["real"].items()}
    names = {"accuracy": "aAcc", "accuracy/VD": "aAcc VD", "accuracy/VS": "aAcc VS", "sets": "qAcc", "figures": "fAcc", "easy": "easy", "hard": "hard", "bias": "diff", "false_yes": "fp"}
    assert {metric: found[metric] for metric in names} == {metric: pytest.approx(golden["numbers"][name]) for metric, name in names.items()}
    assert found["accuracy/strict"] < found["accuracy"]


def test_the_rule():
    assert [hallusionbench.parse(text) for text in ("Yes, it is", "No.", "The answer is yes", "I cannot tell", "", "?!", "None", "yesterday")] == ["yes", "no", "unclear", "unclear", None, None, "unclear", "unclear"]


def test_unclear_is_right_only_without_the_figure_that_supplements(tmp_path):
    files(tmp_path, [("VS", "chart", "0", 0, 0, 0, "1"), ("VS", "chart", "1", 0, 1, 0, "1"), ("VD", "chart", "1", 0, 0, 0, "0")])
    _, items = hallusionbench.HALLUSIONBENCH.read(str(tmp_path))
    assert [scoring.grade(hallusionbench.HALLUSIONBENCH, "I do not know", item.accepted) for item in items] == [1, 0, 0] and [item.kind for item in items] == ["VS/easy", "VS/easy", "VD/easy"]
    assert items[0].image is None and items[0].turns[0].text == "Is it longer, 0?\nAnswer the question using a single word or phrase."
    assert items[1].image == "VS/chart/0_1.png" and items[1].turns[0].text == f"<image>\n{items[0].turns[0].text}" and items[0].group == items[1].group != items[2].group


def test_a_model_is_scored_with_its_files(tmp_path):
    files(tmp_path, [(category, "chart", visual, 0, figure, question, str(question % 2)) for category, visuals in (("VD", "122"), ("VS", "012")) for figure, visual in enumerate(visuals) for question in range(2)])
    results, predictions = standins.scored("hallusionbench", tmp_path)
    real = results["real"]
    assert {"accuracy", "accuracy/VD", "accuracy/VD/hard", "sets", "figures", "easy", "hard", "bias", "accuracy/strict", "unclear"} <= set(real)
    assert (real["accuracy"]["n"], real["sets"]["n"], real["figures"]["n"], real["easy"]["n"], real["hard"]["n"]) == (12, 4, 5, 4, 4) and len(predictions) == 4 * 12


def test_mistakes_in_files_are_one_line(tmp_path):
    with pytest.raises(UserError, match="^hallusionbench: .*HallusionBench.json: .*; what it needs is told by: vlmjax data sources hallusionbench$"):
        hallusionbench.HALLUSIONBENCH.read(str(tmp_path))
    for row, reason in ((("VD", "chart", "1", 0, 0, 0, "2"), "'2' is none of 0, 1"), (("VD", "chart", "3", 0, 0, 0, "1"), "'3' is none of 0, 1, 2"), (("VT", "chart", "1", 0, 0, 0, "1"), "'VT' is none of VD, VS")):
        files(tmp_path, [row], pictures=False)
        with pytest.raises(UserError, match=rf"HallusionBench.json\[0\]: {reason}"):
            hallusionbench.HALLUSIONBENCH.read(str(tmp_path))
