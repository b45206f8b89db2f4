"""Checkpoints that are damaged, and how many stay."""
import numpy as np
import pytest

from tests.train import tiny
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


def test_values_that_read_well_but_are_not_what_was_saved_are_found(stage, whole, tmp_path, capsys, monkeypatch):
    directory = begin(stage, tmp_path)
    about = directory / "4" / "about" / "metadata"
    held = about.read_text()
    sha = held.split('"rest": "')[1][:64]
    about.write_text(held.replace(sha, "0" * 64))
    equal(go_on(stage, tmp_path)[1], whole)
    assert "stages/align/4: rest are not what was saved; set aside" in capsys.readouterr().out


def test_where_no_checkpoint_is_whole_the_stage_begins_again(stage, whole, tmp_path, capsys):
    directory = begin(stage, tmp_path)
    for step in ("2", "4"):
        damage(directory / step, "remove")
    asked, outcome = go_on(stage, tmp_path)
    assert asked == list(range(6))
    equal(outcome, whole)
    assert "set aside as damaged-2, the stage begins again" in capsys.readouterr().out


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
    with pytest.raises(UserError, match="stages/align/6: cannot be restored"):
        checkpoints.restore_params(stage[0].abstract.learned)
    checkpoints.close()


def test_the_newest_stay_and_those_of_every_so_many_steps(stage, tmp_path):
    tiny.run(stage[0], tmp_path, compiled=stage[1], every=1, checkpoints=Checkpoints(tmp_path, "align", keep=1, keep_every=3))
    assert sorted(p.name for p in (tmp_path / "stages" / "align").iterdir()) == ["3", "6"]
