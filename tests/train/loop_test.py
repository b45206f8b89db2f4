import json

import jax
import numpy as np
import pytest

from tests.train import tiny
from vlmjax import param_rules
from vlmjax.data.pipeline import Fault
from vlmjax.errors import UserError
from vlmjax.train import build, loop, metrics, speed
from vlmjax.train.checkpoint import Checkpoints

EVERYTHING = ((".*", True),)


@pytest.fixture(scope="module")
def instruct():
    stage = tiny.stage("instruct", trainable=(("encoder/.*", False), (".*", True)), steps=6)
    return stage, stage.compile()


class Killed(Exception):
    pass


def test_an_interrupted_stage_ends_bit_for_bit_like_an_uninterrupted_one(tmp_path, instruct):
    stage, compiled = instruct
    whole = tiny.run(stage, tmp_path / "whole", compiled=compiled, every=2)

    checkpoints = Checkpoints(tmp_path / "cut", stage.name)

    def die(step, batch):
        if step == 5:
            checkpoints.close()  # what was saved after step 3 is complete, however fast the steps are
            raise Killed

    with pytest.raises(Killed):
        tiny.run(stage, tmp_path / "cut", data=tiny.FakeData(stage, die), compiled=compiled, every=2, checkpoints=checkpoints)
    asked = []
    again = tiny.run(stage, tmp_path / "cut", data=tiny.FakeData(stage, lambda step, batch: asked.append(step)), compiled=compiled, every=2)
    assert asked == [4, 5]
    for a, b in zip(tiny.leaves(whole.state), tiny.leaves(again.state), strict=True):
        np.testing.assert_array_equal(a, b)
    read = lambda name: [{k: v for k, v in row.items() if k not in speed.KEYS} for row in metrics.read(tmp_path / name, "instruct")]
    assert read("whole") == read("cut") and [row["step"] for row in read("whole")] == list(range(6))
    assert {"grad_norm/decoder", "param_norm/projector", "update_norm/decoder", "loss", "lr"} <= set(read("whole")[0])


def test_a_stage_does_not_go_on_with_data_of_other_lengths(tmp_path, instruct):
    """Rows are planned by them, so it would read other rows. A checkpoint that says nothing of them is from before they were kept."""
    stage, compiled = instruct
    tiny.run(stage, tmp_path / "new", compiled=compiled, about={"lengths": 1})
    tiny.run(stage, tmp_path / "new", compiled=compiled, about={"lengths": 1})
    with pytest.raises(UserError, match="stage instruct: its data has other lengths than when .* was saved, .*; put the files back, or start in another --workdir"):
        tiny.run(stage, tmp_path / "new", compiled=compiled, about={"lengths": 2})
    for about in ({}, {"lengths": 2}):
        tiny.run(stage, tmp_path / "old", compiled=compiled, about=about)


def test_a_stage_killed_right_after_its_last_checkpoint_has_all_its_metrics(tmp_path, instruct):
    stage, compiled = instruct

    class Last(Checkpoints):
        def close(self):
            super().close()
            raise Killed

    with pytest.raises(Killed):
        tiny.run(stage, tmp_path, compiled=compiled, every=4, checkpoints=Last(tmp_path, stage.name))
    tiny.run(stage, tmp_path, data=tiny.FakeData(stage, lambda step, batch: pytest.fail("drawn")), compiled=compiled, every=4)
    assert [row["step"] for row in metrics.read(tmp_path, "instruct")] == list(range(6))


def test_a_loss_that_is_not_finite_stops_the_stage_and_names_step_and_examples(tmp_path, instruct):
    stage, compiled = instruct
    nan = lambda step, batch: batch["weights"].__setitem__((0, 0), np.nan) if step == 3 else None
    with pytest.raises(UserError, match=r"stage instruct: loss or gradient is not finite at step 3; its examples are fake/3/0, .*skip_nonfinite=0"):
        tiny.run(stage, tmp_path, data=tiny.FakeData(stage, nan), compiled=compiled)


def test_tolerated_steps_are_counted_and_change_nothing(tmp_path):
    stage = tiny.stage(skip_nonfinite=1)
    nan = lambda step, batch: batch["weights"].__setitem__((0, 0), np.nan) if step == 1 else None
    outcome = tiny.run(stage, tmp_path, data=tiny.FakeData(stage, nan))
    assert outcome.record["skipped_nonfinite"] == 1
    assert all(np.isfinite(leaf).all() for leaf in tiny.leaves(outcome.state.learned.trainable))


@pytest.mark.parametrize("key, damage, message", [
    ("tokens", lambda x: x[:, :-1], r"tokens is int32\[8, 11\], the step was compiled for int32\[8, 12\]"),
    ("weights", lambda x: x.astype(np.float64), "weights is float64"),
    ("tokens", lambda x: x + 48, "the vocabulary has 48"),
])
def test_a_batch_of_another_shape_saves_the_state_and_names_the_key(tmp_path, instruct, key, damage, message):
    stage, compiled = instruct
    spoil = lambda step, batch: batch.update({key: damage(batch[key])}) if step == 3 else None
    with pytest.raises(UserError, match=message):
        tiny.run(stage, tmp_path, data=tiny.FakeData(stage, spoil), compiled=compiled)
    assert Checkpoints(tmp_path, "instruct").latest() == 3
    asked = []
    tiny.run(stage, tmp_path, data=tiny.FakeData(stage, lambda step, batch: asked.append(step)), compiled=compiled)
    assert asked == [3, 4, 5] and [row["step"] for row in metrics.read(tmp_path, "instruct")] == list(range(6))


def broken(*steps):
    """{step: faults}: e1 every time, and another example."""
    return {number: [Fault("e1", "truncated (JPEG)", 4), Fault(f"e{number}", "empty file", 3)] for number in steps}


def test_a_stage_with_broken_examples_ends_and_says_so_and_a_killed_one_says_the_same(tmp_path, instruct):
    _, compiled = instruct
    stage = tiny.stage("instruct", trainable=(("encoder/.*", False), (".*", True)), steps=6, max_broken=0.004)
    weightless = lambda step, batch: batch["weights"].__setitem__(0, 0) if step in (0, 2, 4) else None
    whole = tiny.run(stage, tmp_path / "whole", data=tiny.FakeData(stage, weightless, broken(0, 2, 4)), compiled=compiled, every=2).record
    assert (whole["quarantined"], whole["quarantined_reasons"], whole["quarantined_appearances"]) == (4, {"empty file": 3, "truncated (JPEG)": 1}, 6)
    assert whole["examples"] == 6 * 8 and whole["supervised_tokens"] == 6 * 8 * 4 - 3 * 7
    listed = (tmp_path / "whole" / "quarantine" / "instruct.json").read_text()
    assert json.loads(listed) == {"e1": "truncated (JPEG)", "e0": "empty file", "e2": "empty file", "e4": "empty file"}

    checkpoints = Checkpoints(tmp_path / "cut", stage.name)

    def die(step, batch):
        weightless(step, batch)
        if step == 5:
            checkpoints.close()
            raise Killed

    with pytest.raises(Killed):
        tiny.run(stage, tmp_path / "cut", data=tiny.FakeData(stage, die, broken(0, 2, 4)), compiled=compiled, every=2, checkpoints=checkpoints)
    again = tiny.run(stage, tmp_path / "cut", data=tiny.FakeData(stage, weightless, broken(4)), compiled=compiled, every=2).record
    assert {**again, "seconds": 0} == {**whole, "seconds": 0}
    assert (tmp_path / "cut" / "quarantine" / "instruct.json").read_text() == listed


def test_more_broken_examples_than_are_tolerated_stop_the_stage_which_can_go_on(tmp_path, instruct):
    _, compiled = instruct
    make = lambda share: tiny.stage("instruct", trainable=(("encoder/.*", False), (".*", True)), steps=6, max_broken=share)
    stage = make(0.002)
    stopped = r"stage instruct: 3 of 1000 examples are broken, max_broken is 0.002: example e1: truncated \(JPEG\); "
    with pytest.raises(UserError, match=stopped):
        tiny.run(stage, tmp_path / "run", data=tiny.FakeData(stage, broken=broken(0, 3)), compiled=compiled)
    assert Checkpoints(tmp_path / "run", "instruct").latest() == 4
    assert [row["step"] for row in metrics.read(tmp_path / "run", "instruct")] == [0, 1, 2, 3]
    with pytest.raises(UserError, match=stopped):  # at once, and nothing more is drawn
        tiny.run(stage, tmp_path / "run", data=tiny.FakeData(stage, lambda step, batch: step == 4 or pytest.fail("drawn")), compiled=pytest.fail)
    stage = make(0.003)
    again = tiny.run(stage, tmp_path / "run", data=tiny.FakeData(stage), compiled=compiled)
    whole = tiny.run(stage, tmp_path / "whole", data=tiny.FakeData(stage, broken=broken(0, 3)), compiled=compiled)
    assert {**again.record, "seconds": 0} == {**whole.record, "seconds": 0} and again.record["quarantined"] == 3
    for a, b in zip(tiny.leaves(whole.state), tiny.leaves(again.state), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_first_batch_with_too_much_broken_stops_before_the_step_is_compiled(tmp_path):
    stage = tiny.stage()
    with pytest.raises(UserError, match="2 of 1000 examples are broken, max_broken is 0.001"):
        tiny.run(stage, tmp_path, data=tiny.FakeData(stage, broken=broken(0)), compiled=pytest.fail)


def test_a_stage_trains_in_bfloat16_over_a_frozen_copy_in_bfloat16(tmp_path):
    precision = build.Precision(compute="bfloat16", frozen="bfloat16", moments="bfloat16")
    stage = tiny.stage(precision=precision, parts=tiny.modules("bfloat16"))
    outcome = tiny.run(stage, tmp_path)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(outcome.state.frozen)} == {"bfloat16"}
    assert {leaf.dtype.name for leaf in jax.tree.leaves(outcome.state.learned.trainable)} == {"float32"}
    assert {"bfloat16", "float32"} == {leaf.dtype.name for p, leaf in param_rules.flatten(outcome.state.learned.opt_state).items() if "kernel" in p}


def test_the_contrastive_objective_reads_images_and_captions(tmp_path):
    stage = tiny.stage("contrast", objective="contrastive", trainable=EVERYTHING, steps=8)
    outcome = tiny.run(stage, tmp_path, data=Fixed(stage))
    losses = [row["loss"] for row in metrics.read(tmp_path, "contrast")]
    assert losses[-1] < losses[0] and outcome.record["frozen_sha256"] is None and outcome.record["frozen"] == {}


class Fixed(tiny.FakeData):
    def batch(self, step):
        return super().batch(0)


@pytest.mark.parametrize("key, value, least", [("every", 0, 1), ("keep", 0, 1), ("keep", -1, 1), ("keep_every", -1, 0)])
def test_checkpoints_that_would_never_be_written_or_kept_are_refused(key, value, least):
    with pytest.raises(UserError, match=f"checkpoint.{key}: {value} is less than {least}"):
        loop.CheckpointConfig(**{key: value})


@pytest.mark.parametrize("grace", [0.0, -1.0, float("inf"), float("nan")])
def test_a_grace_that_is_no_time_is_refused(grace):
    with pytest.raises(UserError, match="checkpoint.grace: .* is not a number of seconds above 0"):
        loop.CheckpointConfig(grace=grace)


def test_metrics_are_numbered_parts_and_the_later_counts(tmp_path):
    for value in (1.0, 2.0):
        writer = metrics.Writer(tmp_path, "align", metrics.LoggingConfig(tensorboard=True))
        writer.add(3, {"loss": value})
        writer.close()
    assert sorted(p.name for p in (tmp_path / "metrics").iterdir()) == ["align-000.jsonl", "align-001.jsonl"]
    assert json.loads((tmp_path / "metrics" / "align-000.jsonl").read_text())["loss"] == 1.0
    assert metrics.read(tmp_path, "align") == [{"step": 3, "loss": 2.0}]
    assert list((tmp_path / "events" / "align").iterdir())
