"""`vlmjax train` as a user meets it: the whole path once at the size of `demo.py:tiny`, and every mistake in one line."""
import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest

from vlmjax.__main__ import main
from vlmjax.commands.common import DATA_DIR
from vlmjax.commands.train import same_rows
from vlmjax.data.datasets import easy_vqa
from vlmjax.data.lengths import LengthTable
from vlmjax.errors import UserError

DEMO = "experiments/demo.py:tiny"


@pytest.fixture(scope="module", autouse=True)
def data_dir():
    easy_vqa.build(os.path.expanduser(DATA_DIR))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One device in a process of its own, as a laptop has it → (workdir, what was printed)."""
    workdir = tmp_path_factory.mktemp("run") / "demo"
    return workdir, train(workdir)


def train(workdir, *overrides):
    env = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-m", "vlmjax", "train", f"--config={DEMO}", f"--workdir={workdir}", *overrides], env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_first_line_is_the_plan(run):
    assert run[1].startswith("plan: contrast ") and "about" in run[1].splitlines()[0]


def test_the_record_proves_what_was_frozen(run):
    record = json.loads((run[0] / "record.json").read_text())
    stages = {stage["name"]: stage for stage in record["stages"]}
    assert list(stages) == ["contrast", "language", "align", "instruct"]
    assert set(stages["align"]["trainable"]) == {"projector"} and set(stages["align"]["frozen"]) == {"encoder", "decoder"}
    for name in ("align", "instruct"):
        proof = stages[name]["frozen_sha256"]
        assert proof["before"] == proof["after"] and len(proof["before"]) == 64
        assert all((stages[name]["optimizer_bytes"][c] == 0) == (c in stages[name]["frozen"]) for c in stages[name]["optimizer_bytes"])
    rows = {name: stage["batch"] for name, stage in json.loads((run[0] / "config.json").read_text())["config"]["stages"].items()}
    assert stages["align"]["flops_per_step"] / rows["align"] < stages["instruct"]["flops_per_step"] / rows["instruct"]
    assert all(stage["supervised_tokens"] > 0 for name, stage in stages.items() if name != "contrast")


def test_the_record_says_how_fast_each_stage_ran(run):
    for stage in json.loads((run[0] / "record.json").read_text())["stages"]:
        assert all(stage[key] > 0 for key in ("step_seconds", "tokens_per_second", "examples_per_second", "tflops_per_device")) and stage["recompiles"] == 0
        assert "causal attention counts half" in stage["flops_convention"] and "mfu" not in stage  # nobody knows the peak of a CPU
        assert run[1].count(f"{stage['name']}: ") >= 3 and f"per step on 1 device(s), peak of each not known, so no MFU ({stage['flops_convention']})" in run[1]


def test_scores_stand_beside_their_controls(run, tmp_path):
    results = json.loads((run[0] / "results.json").read_text())
    assert set(results) == {"easy_vqa_zero_shot", "easy_vqa_caption", "easy_vqa"}
    scores = {control: results["easy_vqa"][control]["exact_match"] for control in ("real", "blind", "shuffled", "prior")}
    assert all(score["n"] == 1000 for score in scores.values())
    assert scores["prior"]["value"] == pytest.approx(0.669, abs=0.05)
    lines = (run[0] / "predictions" / "easy_vqa.jsonl").read_text().splitlines()
    assert len(lines) == 4 * 1000
    page = (run[0] / "report.html").read_text()
    assert "<html" in page and "data:image/png;base64" in page
    maps = json.loads((run[0] / "maps" / "easy_vqa.json").read_text())
    assert len(maps["maps"]) == 4 and maps["mean_of"] == 64 and page.count('class="answer mapped') == len(maps["maps"] + json.loads((run[0] / "maps" / "easy_vqa_caption.json").read_text())["maps"])
    # The whole split, for the control that asks no model.
    assert main(["evaluate", f"--model={run[0]}", "--tasks=easy_vqa", "--control=prior", "--mesh=fsdp:8", f"--output={tmp_path}"]) == 0
    prior = json.loads((tmp_path / "results.json").read_text())["easy_vqa"]["prior"]["exact_match"]
    assert prior["n"] == 9673 and prior["value"] == pytest.approx(0.669, abs=2e-3)


def test_a_finished_run_ends_at_once_and_changes_nothing(run):
    kept = {f: (run[0] / f).read_bytes() for f in ("results.json", "model/model.safetensors", "config.json")}
    again = train(run[0])
    assert "starts" not in again and "resumes" not in again
    assert kept == {f: (run[0] / f).read_bytes() for f in kept}


def test_evaluate_reads_the_exported_model(run, tmp_path, capsys):
    assert main(["evaluate", f"--model={run[0]}", "--tasks=easy_vqa", "--control=real", "--sample=250", "--limit=200", "--maps=0", "--mesh=fsdp:8", f"--output={tmp_path}"]) == 0
    stored = [json.loads(line) for line in (run[0] / "predictions" / "easy_vqa.jsonl").read_text().splitlines()]
    want = {row["id"]: row["prediction"] for row in stored if row["control"] == "real"}
    again = [json.loads(line) for line in (tmp_path / "predictions" / "easy_vqa.jsonl").read_text().splitlines()]
    # Eight devices sum in another order; an untrained tie may break the other way, no more.
    assert len(again) == 200 and sum(row["prediction"] != want[row["id"]] for row in again) <= 2
    assert main(["evaluate", f"--model={tmp_path}", "--tasks=easy_vqa", "--rescore"]) == 0
    assert "easy_vqa" in capsys.readouterr().out


def fails(capsys, *argv):
    """→ the one line that a mistake gives. Rows are split over eight devices here."""
    rows = ["--config.stages.instruct.batch=8"] if f"--config={DEMO}" in argv else []
    assert main([*argv[:1], *rows, *argv[1:]]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("vlmjax: ") and "\n" not in error
    return error


@pytest.mark.parametrize("override, message", [
    ("--config.stages.align.optimizer.lrr=1", "no such key; did you mean 'stages.align.optimizer.lr'"),
    ("--config.stages.align.batch=many", "many"),
    ("--config.stages.align.trainable=((\"projektor/.*\",True),(\".*\",False))", "'projektor/.*' matches no parameter; nearest: projector/"),
    ("--config.stages.align.trainable=((\".*\",False),)", "stages.align.trainable: nothing would learn"),
    ("--config.run=(\"aligne\",)", "run: no stage 'aligne'; did you mean 'align'"),
    ("--config.model.encoder.variant=clip-l15", "model.encoder.variant: 'clip-l15' is not known; did you mean 'clip-l14'"),
    ("--config.stages.instruct.targets=1", "38,575 x needs 2 supervised tokens (targets), the row has 1: easy_vqa/train/0/0, "),
    ("--config.stages.instruct.length=12", "tokens (length), the row has 12"),
    ("--config.stages.align.data=((\"easy_vqb:train:captions\",1.0),)", "no data set 'easy_vqb'; did you mean 'easy_vqa'"),
    ("--config.precision.compute=float33", "precision.compute: 'float33' is not one of"),
    ("--config.mesh.fsdp=3", "does not use exactly the 8 devices"),
    ("--config.evaluate.mesh=fsdp:3", "evaluate.mesh: replica 1, fsdp 3, tensor 1 does not use exactly the 8 devices"),
    ("--config.evaluate.mesh=tensr:2", "evaluate.mesh: 'tensr:2' is not NAME:SIZE with a name of replica, fsdp, tensor"),
    ("--config.stages.align.batch=20", "20 rows do not divide over 8"),
    ("--config.stages.contrast.accumulate=2", "accumulate: 2 would change the contrastive loss"),
])
def test_a_mistake_in_the_config_is_one_line(tmp_path, capsys, override, message):
    assert message in fails(capsys, "train", f"--config={DEMO}", f"--workdir={tmp_path}/w", override)


def test_data_that_is_not_built(tmp_path, capsys):
    assert "run: vlmjax data build easy_vqa" in fails(capsys, "train", f"--config={DEMO}", f"--workdir={tmp_path}/w", f"--data_dir={tmp_path}/none")


def test_a_run_goes_on_on_another_mesh_and_compiled_otherwise_and_says_so(run, tmp_path):
    shutil.copytree(run[0], tmp_path / "run")
    said = train(tmp_path / "run", "--config.mesh.fsdp=1", "--config.compile.remat=full")  # one device is that mesh, however it is asked for
    assert "resuming on another machine: the same examples in each batch, losses equal up to reduction order; changed: compile.remat none → full\n" in said
    held, before = (json.loads((workdir / "config.json").read_text()) for workdir in (tmp_path / "run", run[0]))
    assert held["fingerprint"] == json.loads((tmp_path / "run" / "record.json").read_text())["fingerprint"] != before["fingerprint"]
    assert held["config"]["mesh"]["fsdp"] == 1 and [path.name for path in (tmp_path / "run" / "stages").iterdir()] == [path.name for path in (run[0] / "stages").iterdir()]


def test_a_workdir_of_another_config_is_left_alone(run, capsys):
    before = sorted(p.name for p in run[0].iterdir()), (run[0] / "config.json").read_bytes()
    error = fails(capsys, "train", f"--config={DEMO}", f"--workdir={run[0]}", "--config.seed=7", "--config.stages.align.optimizer.lr=0.5")
    assert "belongs to another config: seed was 0, is 7; stages.align.optimizer.lr was" in error
    assert before == (sorted(p.name for p in run[0].iterdir()), (run[0] / "config.json").read_bytes())


def test_a_workdir_that_cannot_be_written_or_holds_something_else(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in fails(capsys, "train", f"--config={DEMO}", f"--workdir={tmp_path}/file/w")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    assert "is not empty and holds no run" in fails(capsys, "train", f"--config={DEMO}", f"--workdir={tmp_path}/mine")


@pytest.mark.slow
def test_broken_images_stop_a_run_that_meets_too_many_of_them(tmp_path, capsys, monkeypatch):
    opened = easy_vqa.open_source

    def damaged(data_dir, split, view):
        source = opened(data_dir, split, view)
        return dataclasses.replace(source, read=lambda key: source.read_image(key)[:200])

    monkeypatch.setattr(easy_vqa, "open_source", damaged)
    error = fails(capsys, "train", f"--config={DEMO}", f"--workdir={tmp_path}/w", '--config.run=("align",)')
    assert "stage align: " in error and "example easy_vqa/train/" in error and "truncated (PNG)" in error and "raise stages.align.max_broken" in error
    listed = json.loads((tmp_path / "w" / "quarantine" / "align.json").read_text())
    assert len(listed) > 4 and set(listed.values()) == {"truncated (PNG)"}


def test_hosts_that_would_plan_other_rows_are_stopped():
    """As when one of them cannot read an image, which then has fewer tiles there than elsewhere."""
    table = LengthTable(*np.ones((5, 3), np.int32))
    other = dataclasses.replace(table, images=np.array([1, 3, 1], np.int32))
    data = {"instruct": types.SimpleNamespace(table=table)}
    job = lambda theirs: types.SimpleNamespace(gather=lambda mine: [mine, theirs.digest()])
    same_rows(job(dataclasses.replace(table)), data)
    with pytest.raises(UserError, match="stages.instruct.data: hosts found examples or images of different sizes"):
        same_rows(job(other), data)


@pytest.mark.parametrize("argv, message", [
    (["trian"], "no command 'trian'; did you mean 'train'"),
    (["train", "--workdir=x"], "--config"),
    (["train", "--config=none.py", "--workdir=x"], "no file 'none.py'"),
    (["evaluate", "--model=nowhere", "--tasks=easy_vqa"], "holds no model"),
    (["evaluate", "--model=nowhere", "--tasks=easy"], "no task 'easy'"),
    (["evaluate", "--model=nowhere", "--tasks=easy_vqa", "--mesh=fdsp:8"], "NAME:SIZE with a name of replica, fsdp, tensor"),
    (["report", "--workdir=nowhere"], "holds no run"),
    (["data", "build", "easy_vqb"], "no data set 'easy_vqb' comes with a package"),
])
def test_a_mistake_on_the_command_line_is_one_line(capsys, argv, message):
    assert message in fails(capsys, *argv)


def test_help_and_list_work(capsys):
    assert main([]) == 0 and main(["list", "encoders"]) == 0
    out = capsys.readouterr().out
    assert "train" in out and "clip-l14-336" in out


@pytest.mark.slow
@pytest.mark.parametrize("flags", [("--times=1",), ("--mixture", "--times=3")])
def test_a_killed_run_ends_like_an_undisturbed_one(flags):
    script = pathlib.Path(__file__).parents[2] / "experiments" / "benchmarks" / "kill_and_resume.py"
    done = subprocess.run([sys.executable, str(script), *flags, "--seed=1"], env={**os.environ, "XLA_FLAGS": ""}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
