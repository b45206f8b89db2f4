"""`vlmjax ablate`: rows, seeds, what fails, what is stopped, and what the table then says."""
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from tests import ablate_test
from vlmjax import files
from vlmjax.commands import ablate
from vlmjax.commands.common import DATA_DIR
from vlmjax.data.datasets import easy_vqa
from vlmjax.errors import Stopped, UserError

DEMO = pathlib.Path(__file__).parent.parent.parent / "experiments" / "demo.py"
SWEEP = '[{"name": "all"}, {"name": "slow", "stages.instruct.optimizer.lr": 1e-4}, {"model.projector.variant": "linear"}]'


@pytest.fixture
def config(tmp_path):
    def write(sweep=SWEEP):
        path = tmp_path / "sweep.py"
        path.write_text(f"from vlmjax import config\ndef get_config(arg=''):\n    return config.load({str(DEMO)!r} + ':tiny')\ndef get_sweep(arg=''):\n    return {sweep}\n")
        return f"--config={path}"

    return write


@pytest.fixture
def trained(monkeypatch):
    """A stand-in for `vlmjax train`: leaves a run whose score depends on the row; `statuses` {row: exit status} are of rows that fail. → the runs it was asked for."""
    asked, statuses = [], {}

    def train(run):
        asked.append((run.row, run.seed))
        if status := statuses.get(run.row):
            return status
        scores = {"all": [1, 1, 1, 0], "slow": [1, 0, 0, 0]}.get(run.row, [1, 1, 0, 0])
        ablate_test.run(run.workdir.parent.parent, run.workdir.parent.name, run.workdir.name, scores)
        files.write_json(run.workdir / "config.json", {"fingerprint": ablate.configs.fingerprint(run.node), "config": ablate.configs.plain(run.node)})
        return 0

    monkeypatch.setattr(ablate, "train", train)
    return asked, statuses


def test_every_row_under_every_seed_and_nothing_twice(config, trained, tmp_path, capsys):
    asked, _ = trained
    arguments = [config(), f"--workdir={tmp_path / 'd'}"]
    ablate.main([*arguments, "--seeds=1"])
    assert asked == [("all", 0), ("slow", 0), ("variant=linear", 0)]
    assert "of a row with one seed nothing is known of the spread between seeds" in capsys.readouterr().out
    ablate.main([*arguments, "--seeds=2"])
    assert asked[3:] == [("all", 1), ("slow", 1), ("variant=linear", 1)]  # the first three are there
    said = capsys.readouterr().out
    assert "3 of 6 runs have ended before" in said and "| all | 2 | 75.0 [" in said
    held = json.loads((tmp_path / "d" / "ablation.json").read_text())
    assert held["rows"]["slow"]["overrides"] == {"stages.instruct.optimizer.lr": 1e-4} and held["notes"] == []
    assert held["rows"]["variant=linear"]["runs"]["1"]["workdir"] == str(tmp_path / "d" / "runs" / "variant=linear" / "seed-1")
    assert held["tasks"]["task"]["real"]["exact_match"]["slow"]["difference"]["value"] == -0.5
    assert (tmp_path / "d" / "ablation.md").read_text() in said
    assert "variant=linear" in (tmp_path / "d" / "ablation.html").read_text()


def test_a_row_that_fails_does_not_take_the_others_along(config, trained, tmp_path, capsys):
    asked, statuses = trained
    statuses["slow"] = 2
    with pytest.raises(Stopped, match="slow, seed 0, ended with status 2") as stopped:
        ablate.main([config(), f"--workdir={tmp_path / 'd'}"])
    assert stopped.value.status == 1 and len(asked) == 3
    said = capsys.readouterr().out
    assert "| slow | 0 | status 2 |" in said and "not in the table: slow, seed 0" in said
    statuses.clear()
    ablate.main([config(), f"--workdir={tmp_path / 'd'}"])
    assert asked[3:] == [("slow", 0)] and "| slow | 1 | 25.0" in capsys.readouterr().out


def test_one_that_is_told_to_stop_ends_all_and_the_same_command_goes_on(config, trained, tmp_path):
    asked, statuses = trained
    statuses["slow"] = 143
    with pytest.raises(Stopped, match="stopped in slow, seed 0; the same command goes on") as stopped:
        ablate.main([config(), f"--workdir={tmp_path / 'd'}"])
    assert stopped.value.status == 143 and len(asked) == 2


def test_rows_of_several_machines_make_one_table(config, trained, tmp_path, capsys):
    asked, _ = trained
    ablate.main([config(), f"--workdir={tmp_path / 'd'}", "--rows=slow; variant=linear"])
    assert asked == [("slow", 0), ("variant=linear", 0)] and "the first row, all, has no result" in capsys.readouterr().out
    ablate.main([config(), f"--workdir={tmp_path / 'd'}", "--rows=all"])
    assert asked[2:] == [("all", 0)] and "| slow | 1 | 25.0" in capsys.readouterr().out


def test_a_dry_run_prints_commands_that_train_takes(config, trained, tmp_path, capsys):
    ablate.main([config(), f"--workdir={tmp_path / 'd'}", "--seeds=2", "--dry_run", "--config.stages.align.steps=3"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6 and not trained[0] and not (tmp_path / "d").exists()
    assert all(line.startswith("vlmjax train --config=") and "--config.stages.align.steps=3" in line for line in lines)
    assert "--config.stages.instruct.optimizer.lr=0.0001 --config.seed=1" in lines[4]


@pytest.mark.parametrize("sweep, says", [
    ('[{"stages.instruct.optimizer.lrr": 1e-4}]', "get_sweep: row 'lrr=0.0001': --config.stages.instruct.optimizer.lrr: .* has no such key; did you mean"),
    ('[{"model.projector.depth": 2}]', "row 'depth=2'"), ('[{}, {"seed": 3}]', "row 'seed=3' sets seed"),
    ('[{}, {"name": "again"}]', "the rows 'base' and 'again' are the same training"), ('[{}, {"evaluate.maps": 1}]', "the rows 'base' and 'maps=1' are the same training"),
    ('[{}, {"name": "b", "stages.align.steps": 1, "evaluate.sample": 7}]', "row 'b' would be asked other questions than the first: evaluate.sample 1000, 7"),
    ('[{"name": "a/b"}, {"name": "a b", "prefetch": 1}]', "would share the directory a-b")])
def test_what_is_wrong_with_a_row_is_said_before_anything_runs(config, trained, tmp_path, sweep, says):
    with pytest.raises(UserError, match=says):
        ablate.main([config(sweep), f"--workdir={tmp_path / 'd'}"])
    assert not trained[0] and not (tmp_path / "d").exists()


def test_flags(config, trained, tmp_path):
    for flags, says in ((["--seeds=0"], "--seeds: 0 is less than 1"), (["--rows=al"], "--rows: no row 'al'; did you mean 'all'")):
        with pytest.raises(UserError, match=says):
            ablate.main([config(), f"--workdir={tmp_path / 'd'}", *flags])


def test_a_directory_with_other_runs_is_refused(config, trained, tmp_path):
    ablate.main([config(), f"--workdir={tmp_path / 'd'}"])
    with pytest.raises(UserError, match="belongs to another config: stages.instruct.optimizer.lr was 0.0001, is 0.001"):
        ablate.main([config(SWEEP.replace("1e-4", "1e-3")), f"--workdir={tmp_path / 'd'}"])
    ablate.main([config(), f"--workdir={tmp_path / 'd'}", "--config.mesh.fsdp=1"])  # of the machine: the same runs
    assert len(trained[0]) == 3


def test_finished_runs_are_not_asked_again_so_they_have_to_have_been_asked_the_same(config, trained, tmp_path):
    ablate.main([config(), f"--workdir={tmp_path / 'd'}", "--config.evaluate.sample=100"])
    with pytest.raises(UserError, match="was asked other questions than this command would ask: evaluate.sample 100, 1000"):
        ablate.main([config(), f"--workdir={tmp_path / 'd'}", "--seeds=2"])


def test_a_child_that_refuses_its_data_is_a_row_that_failed(config, tmp_path):
    """The real `vlmjax train`, which finds no data set."""
    told = subprocess.run([sys.executable, "-m", "vlmjax", "ablate", config("[{}]"), f"--workdir={tmp_path / 'd'}", f"--data_dir={tmp_path}"], capture_output=True, text=True, timeout=120)
    assert told.returncode == 1 and "| base | 0 | status 2 |" not in told.stdout  # there is no task to have a table of
    assert "base, seed 0, ended with status 2: the same command tries again" in told.stderr and "Traceback" not in told.stderr


def test_sigterm_goes_on_to_the_child(tmp_path):
    """And its status comes back."""
    script = tmp_path / "vlmjax.py"
    script.write_text("import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\nprint('ready', flush=True)\ntime.sleep(60)\n")
    code = ("import pathlib, sys; sys.path.insert(0, sys.argv[1])\nfrom vlmjax.commands import ablate\n"
            "sys.exit(ablate.train(ablate.Planned('a', 0, pathlib.Path('.'), (), None)))")
    # the child is `python -m vlmjax` of its own directory: the script above
    process = subprocess.Popen([sys.executable, "-c", code, os.getcwd()], cwd=tmp_path, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 143


@pytest.mark.slow
def test_real_rows_on_two_hosts_make_one_table(tmp_path):
    """A row that hardly learns is worse than one that does, and every host ends with the same table."""
    easy_vqa.build(os.path.expanduser(DATA_DIR))
    (tmp_path / "sweep.py").write_text(f"""from vlmjax import config
def get_config(arg=''):
    c = config.load({str(DEMO)!r} + ':tiny')
    c.run = ('language', 'align', 'instruct')
    for name in c.run:
        c.stages[name].epochs = 0.02
    c.evaluate.sample, c.evaluate.maps, c.evaluate.controls = 60, 0, ('real',)
    return c
def get_sweep(arg=''):
    return [{{'name': 'base'}}, {{'name': 'slow', 'stages.instruct.optimizer.lr': 1e-5}}]
""")
    command = [str(DEMO.parent.parent / "launch" / "local.sh"), "2", "--", sys.executable, "-m", "vlmjax", "ablate", f"--config={tmp_path / 'sweep.py'}", f"--workdir={tmp_path / 'd'}"]
    done = subprocess.run(command, env={**os.environ, "XLA_FLAGS": ""}, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    held = json.loads((tmp_path / "d" / "ablation.json").read_text())
    assert {name: row["runs"]["0"]["devices"]["processes"] for name, row in held["rows"].items()} == {"base": 2, "slow": 2}
    assert held["tasks"]["easy_vqa"]["real"]["exact_match"]["slow"]["difference"]["high"] < 0
    assert sum("| base | 1 |" in line for line in done.stdout.splitlines()) == 2 * len(held["tasks"])
