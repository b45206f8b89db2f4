"""Checkpoints that are damaged, and how many stay."""
import types

import numpy as np
import orbax.checkpoint as ocp
import pytest

from tests.train import tiny
from vlmjax import hosts
from vlmjax.errors import Stopped, UserError
from vlmjax.train.checkpoint import Checkpoints


@pytest.fixture(scope="module")
def stage():
    made = tiny.stage(steps=6)
    return made, made.compile()


@pytest.fixture(scope="module")
def whole(stage, tmp_path_factory):
    return tiny.run(stage[0], tmp_path_factory.mktemp("whole"), compiled=stage[1], every=2)


def stop_after(step):
    asked = iter(range(1, 100))
    return lambda: "the machine goes away" if next(asked) == step else ""


def begin(stage, workdir, steps=4):
    with pytest.raises(Stopped, match=f"align: the machine goes away; step {steps} of 6 is saved"):
        tiny.run(stage[0], workdir, compiled=stage[1], every=2, stops=stop_after(steps))
    return workdir / "stages" / "align"


def go_on(stage, workdir):
    asked = []
    outcome = tiny.run(stage[0], workdir, data=tiny.FakeData(stage[0], lambda step, batch: asked.append(step)), compiled=stage[1], every=2)
    return asked, outcome


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def damage(directory, harm):
    """Every file of a checkpoint's parameters that holds values."""
    files = [path for path in sorted((directory / "params").rglob("*")) if path.is_file()]
    for path in (path for path in files if path.parent.name == "d"):
        flip(path) if harm == "flip" else path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]) if harm == "cut" else path.unlink()


def equal(a, b):
    for x, y in zip(tiny.leaves(a.state), tiny.leaves(b.state), strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_run_that_is_asked_to_stop_saves_the_step_and_goes_on_there(stage, whole, tmp_path):
    assert sorted(p.name for p in begin(stage, tmp_path, 3).iterdir()) == ["2", "3"]
    asked, outcome = go_on(stage, tmp_path)
    assert asked == [3, 4, 5]
    equal(outcome, whole)


def test_a_run_stopped_after_its_last_step_only_has_its_proof_left(stage, whole, tmp_path):
    begin(stage, tmp_path, 6)
    asked, outcome = go_on(stage, tmp_path)
    assert asked == []
    equal(outcome, whole)


@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_taken(stage, whole, tmp_path, capsys, harm):
    directory = begin(stage, tmp_path)
    damage(directory / "4", harm)
    asked, outcome = go_on(stage, tmp_path)
    assert asked == [2, 3, 4, 5]
    equal(outcome, whole)
    assert "set aside as damaged-4, going on from step 2" in capsys.readouterr().out and (directory / "damaged-4").exists()


def forge(directory):
    """Another digest than that of what was saved."""
    about = directory / "about" / "metadata"
    held = about.read_text()
    sha = held.split('"rest": "')[1][:64]
    about.write_text(held.replace(sha, "0" * 64))


def test_values_that_read_well_but_are_not_what_was_saved_are_found(stage, whole, tmp_path, capsys):
    forge(begin(stage, tmp_path) / "4")
    equal(go_on(stage, tmp_path)[1], whole)
    assert "stages/align/4: rest are not what was saved; set aside" in capsys.readouterr().out


def test_where_no_checkpoint_is_whole_the_stage_begins_again(stage, whole, tmp_path, capsys):
    directory = begin(stage, tmp_path)
    (directory / "damaged-2").mkdir()
    for step in ("2", "4"):
        forge(directory / step)
    asked, outcome = go_on(stage, tmp_path)
    assert asked == list(range(6))
    equal(outcome, whole)
    assert "set aside as damaged-2-2, the stage begins again" in capsys.readouterr().out


def test_where_none_can_be_read_nothing_moves_until_the_store_answers_again(stage, whole, tmp_path, monkeypatch):
    directory = begin(stage, tmp_path)
    held = sorted(directory.iterdir())

    def fail(*_, **__):
        raise OSError(5, "UNAVAILABLE: 503 [source locations='x.cc:1']")

    with monkeypatch.context() as patched:
        patched.setattr(ocp.CheckpointManager, "restore", fail)
        with pytest.raises(Stopped, match=r"stages/align/4: cannot be restored: \[Errno 5\] UNAVAILABLE: 503; of the 2 checkpoints there none is left to go on from. Nothing was moved: the same command tries again") as error:
            go_on(stage, tmp_path)
    assert error.value.status == 1 and sorted(directory.iterdir()) == held
    asked, outcome = go_on(stage, tmp_path)
    assert asked == [4, 5]
    equal(outcome, whole)


def test_a_step_that_one_process_of_several_could_not_read_has_its_turn_last(stage, whole, tmp_path, monkeypatch, capsys):
    """As if this were one of two: it leaves a mark and ends the job, and the job that follows goes on from the step before."""
    directory = begin(stage, tmp_path)
    damage(directory / "4", "cut")
    with monkeypatch.context() as patched:
        patched.setattr(hosts, "job", lambda: types.SimpleNamespace(count=2))
        with pytest.raises(Stopped, match="stages/align/4: cannot be restored: .*; the same command goes on from the step before"):
            Checkpoints(tmp_path, "align").restore(stage[0].abstract.learned)
    assert sorted(path.name for path in directory.iterdir()) == ["2", "4", "unread-4"]
    asked, outcome = go_on(stage, tmp_path)
    assert asked == [2, 3, 4, 5] and (directory / "damaged-4").exists() and not (directory / "unread-4").exists()
    equal(outcome, whole)
    assert "4: a process could not restore it; set aside as damaged-4, going on from step 2" in capsys.readouterr().out


def test_a_checkpoint_that_cannot_be_written_ends_the_run_in_one_line(stage, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    checkpoints = Checkpoints(tmp_path, "align")
    monkeypatch.setattr(ocp.CheckpointManager, "wait_until_finished", full)
    with pytest.raises(Stopped, match=r"stages/align: a checkpoint cannot be written: \[Errno 28\] No space left on device; .* the same command goes on from there") as error:
        tiny.run(stage[0], tmp_path, compiled=stage[1], every=2, checkpoints=checkpoints)
    assert error.value.status == 1 and "\n" not in str(error.value)


def test_a_save_that_was_cut_off_is_no_checkpoint(stage, whole, tmp_path):
    directory = begin(stage, tmp_path)
    (directory / "5.orbax-checkpoint-tmp").mkdir()
    (directory / "5.orbax-checkpoint-tmp" / "params").mkdir()
    asked, outcome = go_on(stage, tmp_path)
    assert asked == [4, 5]
    equal(outcome, whole)


def test_what_a_finished_stage_trained_is_not_replaced_by_an_earlier_step(stage, tmp_path):
    tiny.run(stage[0], tmp_path, compiled=stage[1], every=2)
    damage(tmp_path / "stages" / "align" / "6", "cut")
    checkpoints = Checkpoints(tmp_path, "align")
    with pytest.raises(UserError, match="stages/align/6: cannot be restored: .*; it is what the finished stage trained, so the stage has to be trained again"):
        checkpoints.restore_params(stage[0].abstract.learned)
    checkpoints.close()


def test_the_newest_stay_and_those_of_every_so_many_steps(stage, tmp_path):
    tiny.run(stage[0], tmp_path, compiled=stage[1], every=1, checkpoints=Checkpoints(tmp_path, "align", keep=1, keep_every=3))
    assert sorted(p.name for p in (tmp_path / "stages" / "align").iterdir()) == ["3", "6"]
