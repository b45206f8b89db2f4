"""Benchmarks whose answers only a server has: what is sent there."""
from collections.abc import Mapping, Sequence
from typing import Any

from vlmjax.evaluate.task import Task


def make(task: Task, data_dir: str, split: str, predictions: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """{`TASK.SPLIT.CONTROL.json`: its text}, one file of all predictions under each control; {} of a task that is scored here."""
    if task.upload is None:
        return {}
    split, controls = split or task.split, dict.fromkeys(row["control"] for row in predictions)
    return {f"{task.name}.{split}.{control}.json": task.upload(data_dir, split, [row for row in predictions if row["control"] == control]) for control in controls}
