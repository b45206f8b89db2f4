"""DocVQA (Mathew et al., arXiv:2007.00398): questions about scanned pages, answered with their words. The validation split, scored by ANLS (anls.py).

    docvqa/val/val_v1.0.json     5,349 questions with their answers
    docvqa/val/documents         the pages

There is no program by its authors to hold this to: the headline is the paper's formula, where a distance of just half the length scores 0, as google-research/pix2struct has it; `anls/lmms-eval` is what
harnesses compute, where it scores a half.
"""
from collections.abc import Sequence

from vlmjax.data.example import Source
from vlmjax.evaluate import annotations, benchmark, scoring
from vlmjax.evaluate.task import Item, Task
from vlmjax.evaluate.texts import anls

SPLITS = {"val": ("docvqa/val/val_v1.0.json", "docvqa/val")}


def read(data_dir: str, split: str) -> tuple[Source, list[Item]]:
    file, folder = benchmark.splits("docvqa", split, SPLITS)
    items = []
    for where, row in annotations.rows(data_dir, file, "data", ("image", "question"), ("questionId",), ("answers",)):
        accepted = annotations.answers(where, row["answers"])
        items.append(Item(str(row["questionId"]), row["image"], benchmark.ask(row["question"]), accepted[0], answers=accepted))
    return benchmark.images("docvqa", data_dir, folder), items


def more(rows: Sequence[scoring.Row]) -> dict[str, scoring.Metric]:
    return {"anls/lmms-eval": scoring.mean(rows, "lmms-eval's: a similarity of just 0.5 counts", lambda row: anls.by_harness(row["parsed"], scoring.accepted(row)))}


DOCVQA = Task(name="docvqa", about="questions about scanned pages (DocVQA, val); ANLS", open=read, prior=None, parse=str.strip, parser="the answer as it is", score=anls.by_formula, metric="anls", max_new_tokens=32,
              more=more, split="val", files="docvqa")
