"""An evaluation that is interrupted goes on where it was, and ends as if it had not been."""
import json

import numpy as np
import pytest

from tests.evaluate import tiny
from vlmjax.errors import Stopped
from vlmjax.evaluate import runner
from vlmjax.evaluate.answers import Answers


def ask(tmp_path, oracle, stop_after=None, writes=True, batch_rows=2):
    kept, batches = Answers(tmp_path, "tiny", writes, every=0.0), []

    def progress(done, total):
        batches.append(done)
        if len(batches) == stop_after:
            raise Stopped("asked to", 143)

    results, predictions = runner.evaluate(oracle, tiny.TASK, "", batch_rows=batch_rows, progress=progress, kept=kept)
    runner.write(tmp_path, "tiny", results, predictions, kept)
    return results, predictions, len(batches)


def test_it_goes_on_and_asks_nothing_twice(tmp_path):
    results, predictions, batches = ask(tmp_path / "whole", tiny.oracle())
    for stop in (2, 1):
        with pytest.raises(Stopped):
            ask(tmp_path / "cut", tiny.oracle(), stop)
    assert len(list((tmp_path / "cut" / "predictions" / "tiny.parts").iterdir())) == 3
    oracle = tiny.oracle()
    assert ask(tmp_path / "cut", oracle) == (results, predictions, batches - 3)
    read = lambda name: {p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*") if p.is_file()}
    assert read("cut") == read("whole")  # the parts are gone


def test_answers_of_another_model_or_of_other_batches_are_not_taken(tmp_path):
    whole = ask(tmp_path / "whole", tiny.oracle())[2]
    with pytest.raises(Stopped):
        ask(tmp_path / "cut", tiny.oracle(), 2)
    other = tiny.oracle()
    object.__setattr__(other, "params", {"w": np.ones(3, np.float32)})
    assert ask(tmp_path / "cut", other)[2] == whole
    with pytest.raises(Stopped):
        ask(tmp_path / "cut", tiny.oracle(), 2)
    assert ask(tmp_path / "cut", tiny.oracle(), batch_rows=3)[2] == ask(tmp_path / "more", tiny.oracle(), batch_rows=3)[2]


def test_other_processes_of_a_job_take_what_the_first_reads_and_write_nothing(tmp_path):
    with pytest.raises(Stopped):
        ask(tmp_path, tiny.oracle(), 2)
    first, told = Answers(tmp_path, "tiny"), []
    first._share = lambda read: told.append(read()) or told[-1]
    fingerprint = json.loads(next((tmp_path / "predictions" / "tiny.parts").iterdir()).read_text())["fingerprint"]
    first.begin(fingerprint)
    other = Answers("nowhere", "tiny", writes=False, share=lambda read: told[0], every=0.0)
    other.begin(fingerprint)
    assert other.known == first.known and len(other.known) == 2
    other.add(99, ["no"])
    other.flush()
    other.clear()
    assert len(list((tmp_path / "predictions" / "tiny.parts").iterdir())) == 2
