import pytest

from tests.evaluate.tasks import standins
from tests.golden import scorers
from vlmjax.errors import UserError
from vlmjax.evaluate import scoring
from vlmjax.evaluate.tasks import cvbench

GOLDEN = scorers.read("cvbench")
ROW = {"idx": 0, "type": "2D", "task": "Count", "filename": "img/2D/0.jpg", "choices": ["3", "2"], "answer": "(B)", "prompt": GOLDEN["asked"][0], "source": "ADE20K"}


def test_answers_are_read_and_counted_as_cambrians_programs_do():
    rows = []
    for source in cvbench.SOURCES:
        for i, (task, gold, options, answer, read) in enumerate(GOLDEN[source]["rows"]):
            assert cvbench.CVBENCH.means(answer, options) == (read.upper() if read.upper() in list("ABCD"[: len(options)]) else None), answer
            rows.append({"id": f"{source}/x/{i}", "image": str(i), "answer": gold[1], "kind": task, "control": "real", "prediction": answer, "options": options})
    found = {metric: score["value"] for metric, score in scoring.rescore(rows, cvbench.CVBENCH)["real"].items()}
    a, b, c = (GOLDEN[source]["accuracy"] for source in cvbench.SOURCES)
    assert [found[f"accuracy/{source}"] for source in cvbench.SOURCES] == pytest.approx([a, b, c])
    assert found["combined"] == pytest.approx(((a + b) / 2 + c) / 2)


def test_a_model_is_scored_with_its_files(tmp_path):
    standins.lines(tmp_path / cvbench.FILES[0], [ROW | {"idx": i, "source": ("ADE20K", "COCO")[i % 2], "filename": f"img/2D/{i}.jpg"} for i in range(4)])
    standins.lines(tmp_path / cvbench.FILES[1], [ROW | {"idx": i, "type": "3D", "task": "Depth", "source": "Omni3D", "filename": f"img/3D/{i}.jpg"} for i in range(2)])
    for name in ("2D/0", "2D/1", "2D/2", "2D/3", "3D/0", "3D/1"):
        standins.picture(tmp_path / f"cvbench/img/{name}.jpg", len(name) + ord(name[-1]) + ord(name[0]))
    results, predictions = standins.scored("cvbench", tmp_path)
    assert {metric: score["n"] for metric, score in results["real"].items()} == {"accuracy": 6, "accuracy/Count": 4, "accuracy/Depth": 2, "combined": 6, "accuracy/ADE20K": 2, "accuracy/COCO": 2, "accuracy/Omni3D": 2}
    assert "<image>\n" + predictions[0]["question"] == GOLDEN["asked"][1]
    assert results["prior"]["combined"]["value"] is not None


def test_what_is_missing_or_wrong_is_said(tmp_path):
    with pytest.raises(UserError, match="^cvbench: .*test_2d.jsonl: .*; what it needs is told by: vlmjax data sources cvbench$"):
        cvbench.CVBENCH.read(str(tmp_path))
    with pytest.raises(UserError, match="has no split 'val'; it has test"):
        cvbench.read(str(tmp_path), "val")
    for change, message in (({"answer": "(C)"}, r"test_2d.jsonl\[0\]: '\(C\)' is none of \(A\), \(B\)"), ({"source": "KITTI"}, "'KITTI' is none of ADE20K, COCO, Omni3D"), ({"choices": "32"}, "'32' is not a list of 2 to 26 options")):
        standins.lines(tmp_path / cvbench.FILES[0], [ROW | change])
        with pytest.raises(UserError, match=message):
            cvbench.read(str(tmp_path), "test")
