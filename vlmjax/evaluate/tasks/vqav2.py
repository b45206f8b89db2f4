"""VQAv2 (Goyal et al., arXiv:1612.00837): questions about COCO's images, each answered by ten people. The validation split, whose answers are public; scored as GT-Vision-Lab/VQA does (vqa_accuracy.py).

    vqav2/v2_OpenEnded_mscoco_val2014_questions.json     214,354 questions
    vqav2/v2_mscoco_val2014_annotations.json             ten answers to each
    vqav2/val2014                                        COCO's images

LLaVA 1.5 reports the split test-dev, whose answers only a server has (vqav2_upload.py), and puts its answers through the EvalAI processor before it submits them; so does `accuracy`, and `accuracy/raw`
does not: there "Yes" is wrong where all ten people say "yes". A model may have seen the images: COCO's train2017 holds those of val2014 that are not in val2017.
"""
import sys
from collections.abc import Sequence

from vlmjax.data.example import Source
from vlmjax.errors import UserError
from vlmjax.evaluate import annotations, benchmark, scoring
from vlmjax.evaluate.task import Item, Task
from vlmjax.evaluate.texts import vqa_accuracy

KINDS = ("yes/no", "number", "other")
SPLITS = {"val": ("vqav2/v2_OpenEnded_mscoco_val2014_questions.json", "vqav2/v2_mscoco_val2014_annotations.json", "vqav2/val2014", "COCO_val2014_")}


def read(data_dir: str, split: str) -> tuple[Source, list[Item]]:
    questions, answered, folder, prefix = benchmark.splits("vqav2", split, SPLITS)
    known = {}
    for where, row in annotations.rows(data_dir, answered, "annotations", ("multiple_choice_answer",), ("question_id",), ("answer_type", "answers")):
        if str(row["question_id"]) in known:
            raise UserError(f"{where}: question_id {row['question_id']!r} has been there before")
        kind = benchmark.one_of(where, row["answer_type"], KINDS)
        known[str(row["question_id"])] = sys.intern(row["multiple_choice_answer"]), kind, annotations.answers(where, row["answers"])
    items = []
    for where, row in annotations.rows(data_dir, questions, "questions", ("question",), ("question_id", "image_id")):
        if str(row["question_id"]) not in known:
            raise UserError(f"{where}: question_id {row['question_id']!r} has no answers in {answered}")
        answer, kind, people = known[str(row["question_id"])]
        image = sys.intern(f"{prefix}{str(row['image_id']).zfill(12)}.jpg")
        items.append(Item(str(row["question_id"]), image, benchmark.ask(row["question"]), answer, kind, answers=people))
    return benchmark.images("vqav2", data_dir, folder), items


def more(rows: Sequence[scoring.Row]) -> dict[str, scoring.Metric]:
    """What the official program says of the answers as they are."""
    return {"accuracy/raw": scoring.mean(rows, "official, of answers as they are", lambda row: vqa_accuracy.by_official(row["prediction"], scoring.accepted(row)))}


VQAV2 = Task(name="vqav2", about="questions about photographs, each answered by ten people (VQAv2, val); VQA accuracy, by the type of answer", open=read, prior=None, parse=vqa_accuracy.evalai,
             parser="the EvalAI processor, as LLaVA submits answers; then the official program", score=vqa_accuracy.by_official, metric="accuracy", max_new_tokens=16, more=more, split="val", files="vqav2")
