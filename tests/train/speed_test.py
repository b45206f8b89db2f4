import dataclasses
import re
import threading
import time
import types

import jax
import jax.numpy as jnp
import pytest

from tests.train import tiny
from vlmjax.errors import UserError
from vlmjax.train import floor, metrics, speed

NOT_ON_CPU = {"mfu", "hbm_peak"}


@pytest.fixture(scope="module")
def align():
    stage = tiny.stage(steps=6)
    return stage, stage.compile()


class Clock:
    """Stands for the module `time`: moves when it is told to."""

    now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(speed, "time", clock)
    return clock


def batches(clock, stage, seconds):
    """Batches that take so many seconds each."""
    data = tiny.FakeData(stage, lambda step, batch: batch["segments"].__setitem__((slice(None), slice(9, None)), 0))
    for step, wait in enumerate(seconds):
        clock.now += wait
        yield data.batch(step)


def settle(meter):
    """Waits until the meter has seen that the devices are done."""
    for _ in range(5000):
        if meter._watch._finished == meter._watch._given:
            return
        time.sleep(0.001)
    raise AssertionError("the steps did not end")


def test_a_reading_is_of_the_steps_since_the_last_and_of_nothing_else(clock, monkeypatch, align):
    stage, _ = align
    monkeypatch.setattr(speed.chips, "peak", lambda kind: 1e9)
    monkeypatch.setattr(jax, "local_devices", lambda: [types.SimpleNamespace(memory_stats=lambda held=held: held) for held in (None, {"peak_bytes_in_use": 7}, {"peak_bytes_in_use": 5})])
    with speed.Meter(stage) as meter:
        drawn = batches(clock, stage, [50.0, 0.0, 1.0])
        meter.draw(drawn)
        clock.now += 100.0  # compiling
        meter.start()
        for number in range(3):
            number and meter.draw(drawn)
            meter.step(lambda: (None, {"loss": jnp.float32(0)}))
            settle(meter)
        clock.now += 5.0
        found = meter.read(3, 30)
        clock.now += 9.0  # a save
        meter.start()
        clock.now += 1.0
        assert meter.read(1, 10)["step_seconds"] == 1.0
    flops = floor.useful(floor.stage(stage))
    assert found == pytest.approx({"step_seconds": 2.0, "examples_per_second": 5.0, "tokens_per_second": 8 * 9 / 2.0, "tflops_per_device": flops / 2 / 1e12, "mfu": flops / 2 / 1e9,
                                   "data_wait": 1 / 3, "data_wait_share": 1 / 6, "hbm_peak": 7})
    assert set(found) == set(speed.KEYS)


def test_a_wait_counts_only_while_the_devices_have_nothing_to_do(clock, align):
    stage, _ = align
    running = threading.Event()
    with speed.Meter(stage) as meter:
        drawn = batches(clock, stage, [3.0, 3.0])
        meter.step(lambda: (None, {"loss": types.SimpleNamespace(block_until_ready=running.wait)}))
        meter.draw(drawn)  # while the step runs
        running.set()
        settle(meter)
        meter.draw(drawn)
        assert meter.read(2, 1)["data_wait"] == 1.5


def test_every_row_says_how_fast_and_the_log_says_once_what_is_counted(tmp_path, capsys, align):
    stage, compiled = align
    record = tiny.run(stage, tmp_path, compiled=compiled).record
    rows = metrics.read(tmp_path, stage.name)
    assert len(rows) == 6 and all(set(speed.KEYS) - NOT_ON_CPU == set(speed.KEYS) & set(row) for row in rows)
    assert [row["step_seconds"] for row in rows[:2]] == [rows[0]["step_seconds"]] * 2 and all(0 < row["step_seconds"] < 30 and 0 <= row["data_wait_share"] <= 1 for row in rows)
    for row in rows:
        assert row["tokens_per_second"] == pytest.approx(row["examples_per_second"] * 12)  # every place of the fake rows is real
    assert capsys.readouterr().out.count(f"GFLOP per step on 1 device(s), peak of each not known, so no MFU ({floor.CONVENTION})") == 1
    assert record["recompiles"] == 0


def test_a_step_that_is_compiled_while_it_runs_is_counted(tmp_path, align):
    stage, compiled = align
    calls = []

    def again(*args):
        calls.append(args)
        return (dataclasses.replace(stage, step=lambda *args: stage.step(*args)).compile() if len(calls) == 3 else compiled)(*args)

    assert tiny.run(stage, tmp_path, compiled=again).record["recompiles"] == 1 and len(calls) == 6


def test_the_record_keeps_medians_and_the_most_memory():
    rows = [{"step": n, "loss": 1.0, "step_seconds": s, "hbm_peak": h} for n, (s, h) in enumerate([(1.0, 5), (0.12345678, 9), (0.1, 9)])]
    assert speed.summary(rows) == {"step_seconds": 0.1235, "hbm_peak": 9, "flops_convention": floor.CONVENTION}
    assert speed.summary([{"step": 0, "loss": 1.0}]) == {"flops_convention": floor.CONVENTION}


FAST = {"step_seconds": 2.0, "examples_per_second": 1234.5, "data_wait_share": 0.04}


def test_a_line_has_what_one_asks_of_a_run(capsys):
    progress = metrics.Progress("align", 10, 1000, metrics.LoggingConfig(line_seconds=0.0))
    progress.update(20, 2.5, FAST)
    progress.update(30, 2.25, {**FAST, "step_seconds": 0.0512, "mfu": 0.4123, "data_wait_share": 0.25})
    first, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"align: step 20/1000, loss 2\.5000, 1,23[45] examples/s, 2\.00 s/step, \d+ s left", first)
    assert re.fullmatch(r"align: step 30/1000, loss 2\.2500, 1,23[45] examples/s, 51\.2 ms/step, MFU 41\.2 %, waits for data 25 %, \d+ s left", second)
    assert [metrics.clock(seconds) for seconds in (40.4, 200, 18420)] == ["40 s", "3 min 20 s", "5 h 07 min"]


def test_lines_are_few_and_of_one_process(capsys, monkeypatch):
    metrics.Progress("align", 0, 9, metrics.LoggingConfig(line_seconds=60.0)).update(1, 2.5, FAST)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    metrics.Progress("align", 0, 9, metrics.LoggingConfig(line_seconds=0.0)).update(1, 2.5, FAST)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("key, value", [("every", 0), ("trace_steps", -1), ("trace_start", -1), ("trace_process", -2)])
def test_a_logging_key_out_of_range_is_refused(key, value):
    with pytest.raises(UserError, match=rf"logging\.{key}: {value} is less than"):
        metrics.LoggingConfig(**{key: value})
