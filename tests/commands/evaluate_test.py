"""Several tasks in one command: what is interrupted in one asks nothing of the others twice."""
import dataclasses

import pytest

from tests.evaluate import tiny
from vlmjax import pretrained
from vlmjax.commands import evaluate
from vlmjax.errors import Stopped, UserError
from vlmjax.evaluate import runner
from vlmjax.hosts import Job


@pytest.mark.parametrize("several", [False, True])
def test_nothing_is_left_but_what_was_asked_for(tmp_path, monkeypatch, several):
    monkeypatch.setattr(evaluate, "TASKS", {"tiny": tiny.TASK})
    ask = evaluate.score_all if several else evaluate.score
    ask(tiny.oracle(), ["tiny"] if several else "tiny", evaluate.EvaluateConfig(rows=2, maps=0), "", tmp_path, Job())
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["predictions", "results.json", "tiny.jsonl"]


def test_an_interrupted_command_asks_nothing_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "TASKS", {name: dataclasses.replace(tiny.TASK, name=name) for name in ("one", "two")})
    config, calls = evaluate.EvaluateConfig(rows=2, maps=0), []

    def run(directory, oracle, stop_at=None):
        job, calls[:] = Job(), []
        job.stops = lambda: calls.append(1) or ("asked to" if len(calls) == stop_at else "")
        evaluate.score_all(oracle, ["one", "two"], config, "", directory, job)
        return len(calls)

    batches = run(tmp_path / "whole", tiny.oracle())
    with pytest.raises(Stopped):
        run(tmp_path / "cut", tiny.oracle(), batches // 2 + 2)  # in the second task
    assert list(runner.read_results(tmp_path / "cut")) == ["one"]
    assert run(tmp_path / "cut", tiny.oracle()) == batches - (batches // 2 + 2)  # of the first nothing is asked again
    read = lambda name: {p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*") if p.is_file()}
    assert read("cut") == read("whole")  # the kept answers are gone


def test_what_one_task_lacks_is_said_before_a_model_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(Job, "catch_termination", lambda self: None)
    monkeypatch.setattr(pretrained, "load", lambda *_: pytest.fail("read a model"))
    with pytest.raises(UserError, match="^pope: .*coco_pope_random.json: there is no such file; what it needs is told by: vlmjax data sources pope$"):
        evaluate.main(["--model=nowhere", "--tasks=scenes_where,pope", f"--data_dir={tmp_path}"])
