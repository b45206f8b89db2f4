"""The benchmark beside transformers: what counts as agreement, and how ratios come about. No torch."""
import numpy as np
import pytest

from experiments import tables
from experiments.benchmarks import speed

REFERENCE = {"loss": np.float32(8.0), "gradient/w": np.array([3.0, 4.0], np.float32), "tokens": np.array([[5, 6, 7]])}


def test_what_agrees():
    ours = {"loss": np.float32(8.0005), "gradient/w": np.array([3.0, 4.004], np.float32), "tokens": np.array([[5, 6, 7]]), "more": np.zeros(2)}
    checks = speed.compare(ours, REFERENCE)
    assert [check["what"] for check in checks] == list(REFERENCE) and all(check["agrees"] for check in checks)


@pytest.mark.parametrize("key, value", [
    ("loss", np.float32(8.001)), ("loss", np.float32(np.nan)), ("gradient/w", np.array([3.0, 4.01], np.float32)), ("gradient/w", np.array([3.0], np.float32)), ("gradient/w", None),
    ("tokens", np.array([[5, 6, 8]])),
])  # fmt: skip
def test_what_does_not(key, value):
    ours = {**REFERENCE, key: value} if value is not None else {k: v for k, v in REFERENCE.items() if k != key}
    assert [check["what"] for check in speed.compare(ours, REFERENCE) if not check["agrees"]] == [key]


def turn(who, *runs):
    return {"who": who, "runs": list(runs), "load_before": 0.5, "load_after": 1.5, "others": 0.1}


def result(**cells):
    machine = {"cpu": "a processor", "cores": 2}
    return {"date": "2026-11-24", "commit": "0123456789ab+", "machine": machine, "case": {**speed.CASES["tiny"], "threads": 2}, "repetitions": 3, "versions": {"jax": "1"}, "cells": cells}


def cell(*turns, checks=()):
    sides = {"vlmjax": 1.0, "transformers": 2.0}
    return {"checks": list(checks), "turns": list(turns), "first_seconds": sides, "peak_MiB": sides}


def test_a_ratio_is_of_medians_and_to_the_faster_variant():
    turns = [turn(who, *({"step": s} for s in seconds)) for who, seconds in (
        ("vlmjax", (1.0, 1.0, 9.0)), ("slow", (8.0,)), ("fast", (1.5,)),
        ("vlmjax", (2.0,)), ("slow", (0.1,)), ("fast", (1.0,)),
        ("vlmjax", (1.0,)), ("slow", (8.0,)), ("fast", (1.5,)))]  # fmt: skip
    made = speed.summary(cell(*turns), "step")
    assert made == {"seconds": {"vlmjax": 1.0, "slow": 8.0, "fast": 1.5}, "ratios": {"slow": 8.0, "fast": 1.5}, "ratio": 1.5, "least": 0.5, "most": 1.5}


def test_the_table_says_what_was_kept_missed_and_refused():
    answers = cell(turn("vlmjax", {"first": 1.0, "whole": 1.0 + 2 * speed.NEW_TOKENS}), turn("growing cache", {"first": 2.0, "whole": 2.0 + speed.NEW_TOKENS}))
    steps = cell(turn("vlmjax", {"step": 1.0}), turn("logits everywhere", {"step": 0.95}))
    refused = cell(checks=speed.compare({}, {"loss": np.float32(1)})) | {"refused": "loss differs"}
    text = "\n".join(speed.markdown(result(stage1=steps, stage2=refused, answer1=answers)))
    assert "| stage1 | a step, s | 1.000 | 0.950 (logits everywhere, 0.95) | **0.95** | 0.95 to 0.95 | 0.90 kept |" in text
    assert "| stage2 | not timed: loss differs |" in text and "1 checks, 1 failed" in text
    assert "| answer1 | a further token of all rows, ms | 2000.0 | 1000.0 (growing cache, 0.50) | **0.50** | 0.50 to 0.50 | 1.00 MISSED |" in text
    assert "| answer1 | encoder, prompt and first token, ms | 1000 | 2000 (growing cache, 2.00) | **2.00** |" in text and "commit 0123456789+, 2026-11-24" in text


def test_the_log_has_a_place_for_it(tmp_path):
    log = tmp_path / "README.md"
    log.write_text((tables.TOP / "experiments" / "README.md").read_text())
    tables.put(log, "speed-table", "a table")
    assert "\na table\n<!-- /speed-table -->" in log.read_text()
