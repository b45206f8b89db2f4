"""VQAv2's test-dev and test, whose answers only a server has (https://eval.ai/web/challenges/challenge-page/830): what LLaVA 1.5 reports. The validation split is vqav2.py.

    vqav2/v2_OpenEnded_mscoco_test-dev2015_questions.json     what is asked of `test-dev`
    vqav2/v2_OpenEnded_mscoco_test2015_questions.json         447,793 questions: what is asked of `test`, and what a file for the server holds
    vqav2/test2015                                            COCO's images

The server wants an answer to every question of `test`, whichever split it scores. As haotian-liu/LLaVA, scripts/convert_vqav2_for_submission.py: answers through the EvalAI processor, and an empty one to a
question that was not asked. Each control gives a file of its own; `--control=real` asks only for the one that is reported.
"""
import json
import sys
from collections.abc import Sequence
from typing import Any

from vlmjax.data.example import Source
from vlmjax.errors import UserError
from vlmjax.evaluate import annotations, benchmark, scoring
from vlmjax.evaluate.task import Item, Task
from vlmjax.evaluate.texts import vqa_accuracy

EVERY = "vqav2/v2_OpenEnded_mscoco_test2015_questions.json"
SPLITS = {"test-dev": "vqav2/v2_OpenEnded_mscoco_test-dev2015_questions.json", "test": EVERY}


def read(data_dir: str, split: str) -> tuple[Source, list[Item]]:
    file, items = benchmark.splits("vqav2_upload", split, SPLITS), []
    every = set(_every(data_dir)) if file != EVERY else None  # what the file for the server needs is asked for before anything else is
    for where, row in annotations.rows(data_dir, file, "questions", ("question",), ("question_id", "image_id")):
        if every is not None and row["question_id"] not in every:
            raise UserError(f"{where}: question_id {row['question_id']!r} is not in {EVERY}")
        image = sys.intern(f"COCO_test2015_{str(row['image_id']).zfill(12)}.jpg")
        items.append(Item(str(row["question_id"]), image, benchmark.ask(row["question"]), ""))
    return benchmark.images("vqav2_upload", data_dir, "vqav2/test2015"), items


def _every(data_dir: str) -> list[Any]:
    """The ids of all questions of `test`, in its order."""
    return [row["question_id"] for _, row in annotations.rows(data_dir, EVERY, "questions", ids=("question_id",))]


def upload(data_dir: str, split: str, rows: Sequence[scoring.Row]) -> str:
    """A JSON list of {question_id, answer}: of every question of `test`, in its order. UserError where an answer is to none of them."""
    said = {row["id"]: row["prediction"] for row in rows}
    answers = [{"question_id": id_, "answer": vqa_accuracy.evalai(said.pop(str(id_), ""))} for id_ in _every(data_dir)]
    if said:
        raise UserError(f"{EVERY}: has no question {next(iter(said))}, which was asked of {split}")
    return json.dumps(answers)


VQAV2_UPLOAD = Task(name="vqav2_upload", about="VQAv2's test-dev, whose answers a server has: writes the file that it takes", open=read, prior=None, parse=vqa_accuracy.tidy, parser="the EvalAI processor, before it is sent",
                    score=None, metric="", max_new_tokens=16, split="test-dev", files="vqav2_upload", upload=upload)
