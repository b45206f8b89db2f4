"""What is sent to VQAv2's server, and that a task without answers is asked, stored and shown, and never scored."""
import json

import pytest

from tests.evaluate import tiny
from tests.evaluate.tasks import standins
from tests.golden import scorers
from vlmjax import ablate, bundle, files, report
from vlmjax.commands import evaluate as command
from vlmjax.data.conversation import TEMPLATES
from vlmjax.errors import UserError
from vlmjax.evaluate import runner, uploads
from vlmjax.evaluate.tasks import vqav2_upload
from vlmjax.evaluate.tasks.vqav2_upload import VQAV2_UPLOAD
from vlmjax.hosts import Job


def questions(data_dir, split, ids):
    standins.write(data_dir / vqav2_upload.SPLITS[split], json.dumps({"questions": [{"question_id": i, "image_id": 7 + i % 3, "question": f"What is {i}?"} for i in ids]}))
    for i in range(3):
        standins.picture(data_dir / f"vqav2/test2015/COCO_test2015_{7 + i:012d}.jpg", i)


def test_the_file_is_the_one_of_llavas_script(tmp_path):
    golden = scorers.read("vqav2_upload")
    questions(tmp_path, "test", golden["questions"])
    rows = [{"id": str(question), "control": "real", "prediction": text} for question, text in golden["asked"]]
    assert len(rows) >= 200 and uploads.make(VQAV2_UPLOAD, str(tmp_path), "", rows) == {"vqav2_upload.test-dev.real.json": golden["sent"]}


def test_a_model_is_asked_and_its_answers_lie_beside_its_predictions(tmp_path):
    data, run = tmp_path / "data", tmp_path / "run"
    questions(data, "test", range(9))
    questions(data, "test-dev", range(1, 7))
    model = bundle.make(tiny.tiny.modules(), tiny.parameters(), standins.letters(), TEMPLATES["plain_qa"], tiny.LAYOUT)
    command.score(model, "vqav2_upload", command.EvaluateConfig(rows=4), str(data), run, Job())
    assert sorted(path.name for path in (run / "uploads").iterdir()) == [f"vqav2_upload.test-dev.{control}.json" for control in ("blind", "real", "shuffled")]
    assert [row["question_id"] for row in json.loads((run / "uploads/vqav2_upload.test-dev.real.json").read_text())] == list(range(9)) and not (run / "maps").exists()
    rows, results = runner.read_predictions(run, "vqav2_upload"), runner.read_results(run)["vqav2_upload"]
    assert len(rows) == 3 * 6 and rows[0]["answer"] == "" and "correct" not in rows[0] and set(results) == {"unparsed", "provenance"}
    assert results["provenance"]["prior"] is None and results["provenance"]["split"] == "test-dev"
    sent = {path.name: path.read_text() for path in (run / "uploads").iterdir()}
    (run / "uploads/vqav2_upload.test-dev.real.json").unlink()
    command.main(["--model", str(run), "--tasks", "vqav2_upload", "--rescore", f"--data_dir={data}"])
    assert {path.name: path.read_text() for path in (run / "uploads").iterdir()} == sent
    files.write_json(run / "config.json", {})
    files.write_json(run / "record.json", {"wall_seconds": 1.0})
    assert ablate.read(run, 0).scores == {} and "answers are wrong" not in report.write(run).read_text()


def test_without_answers_there_is_no_prior(tmp_path):
    with pytest.raises(UserError, match="^--control: the answers of vqav2_upload are on a server, so that it has no prior"):
        runner.evaluate(tiny.oracle(), VQAV2_UPLOAD, str(tmp_path), controls=("prior",))


def test_an_answer_to_no_question_is_refused(tmp_path):
    questions(tmp_path, "test", range(3))
    with pytest.raises(UserError, match="has no question 5, which was asked of test-dev"):
        uploads.make(VQAV2_UPLOAD, str(tmp_path), "", [{"id": "5", "control": "real", "prediction": "yes"}])
    with pytest.raises(UserError, match="^vqav2_upload: .*test-dev2015_questions.json: .*; what it needs is told by: vlmjax data sources vqav2_upload$"):
        VQAV2_UPLOAD.read(str(tmp_path))


def test_what_the_file_for_the_server_lacks_is_said_before_anything_is_asked(tmp_path):
    questions(tmp_path, "test-dev", range(3))
    with pytest.raises(UserError, match="test2015_questions.json: .*; what it needs is told by: vlmjax data sources vqav2_upload$"):
        VQAV2_UPLOAD.read(str(tmp_path))
    questions(tmp_path, "test", range(2))
    with pytest.raises(UserError, match=r"test-dev2015_questions.json: questions\[2\]: question_id 2 is not in "):
        VQAV2_UPLOAD.read(str(tmp_path))
