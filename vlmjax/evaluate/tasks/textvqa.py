"""TextVQA 0.5.1 (Singh et al., arXiv:1904.08920): questions about text in photographs, each answered by ten people; its validation split, scored as haotian-liu/LLaVA, llava/eval/eval_textvqa.py.

    textvqa/TextVQA_0.5.1_val.json                   5,000 questions with their answers
    textvqa/train_images                             the images
    textvqa/llava_textvqa_val_v051_ocr.jsonl         LLaVA's prompts, of its eval.zip: {"question_id": the image's id, "image", "text"}

Two tasks, whose scores cannot be compared. `textvqa` asks the question as it is published. `textvqa_ocr` asks what LLaVA 1.5 is asked for its published numbers: between the question and the form of the
answer stands `Reference OCR token: ` with words that a program has read in the image. The form of that file is known from the programs that read it, eval_textvqa.py and model_vqa_loader.py.
"""
from collections.abc import Mapping, Sequence
from typing import Any

from vlmjax.data.example import Source
from vlmjax.errors import UserError
from vlmjax.evaluate import annotations, benchmark
from vlmjax.evaluate.task import Item, Task
from vlmjax.evaluate.texts import vqa_accuracy

SPLITS = {"val": ("textvqa/TextVQA_0.5.1_val.json", "textvqa/llava_textvqa_val_v051_ocr.jsonl", "textvqa/train_images")}
OCR = "Reference OCR token:"


def read(data_dir: str, split: str) -> tuple[Source, list[Item]]:
    file, _, folder = benchmark.splits("textvqa", split, SPLITS)
    items = []
    for where, row in annotations.rows(data_dir, file, "data", ("question",), ("question_id", "image_id"), ("answers",)):
        items.append(_item(str(row["question_id"]), f"{row['image_id']}.jpg", benchmark.ask(row["question"]), annotations.answers(where, row["answers"])))
    return benchmark.images("textvqa", data_dir, folder), items


def read_ocr(data_dir: str, split: str) -> tuple[Source, list[Item]]:
    """LLaVA's file has no answers: they are those of the question about the image, in whatever case; of a question that is there twice, the last one's, as in its program."""
    file, prompts, folder = benchmark.splits("textvqa_ocr", split, SPLITS)
    known: dict[tuple[str, str], Mapping[str, Any]] = {}
    for where, row in annotations.rows(data_dir, file, "data", ("question",), ("question_id", "image_id"), ("answers",)):
        known[str(row["image_id"]), row["question"].lower()] = {"id": str(row["question_id"]), "answers": annotations.answers(where, row["answers"])}
    items, ids = [], set()
    for where, row in benchmark.rows(data_dir, prompts, ("image", "text"), ("question_id",)):
        asked = question(where, row["text"])
        found = known.get((str(row["question_id"]), asked.lower()))
        if found is None:
            raise UserError(f"{where}: {file} has no question {asked!r:.80} about the image {row['question_id']!r:.80}")
        id_ = found["id"] if found["id"] not in ids else f"{found['id']}#{len(items)}"
        ids.add(id_)
        items.append(_item(id_, row["image"], benchmark.ask(*row["text"].rsplit("\n", 1)), found["answers"]))
    return benchmark.images("textvqa_ocr", data_dir, folder), items


def _item(id_: str, image: str, turns: Sequence[Any], answers: tuple[str, ...]) -> Item:
    return Item(id_, image, tuple(turns), annotations.most_said(answers), answers=answers)


def question(where: str, prompt: Any) -> str:
    """Of three lines, one of which has the OCR tokens: the first line, or the second where they stand in the first."""
    lines = annotations.text(where, prompt).split("\n")
    if len(lines) != 3 or f"{OCR} " not in prompt:
        raise UserError(f"{where}: {prompt!r:.80} is not a question, a line with {OCR!r} and the form of the answer")
    return lines[prompt.startswith(OCR)]


SHARED = {"prior": None, "parse": vqa_accuracy.tidy, "parser": "EvalAI's answer processor, on both sides", "score": vqa_accuracy.by_evalai, "metric": "accuracy", "max_new_tokens": 32, "split": "val", "files": "textvqa"}
TEXTVQA = Task(name="textvqa", about="questions about text in photographs, each answered by ten people (TextVQA 0.5.1, val); VQA accuracy", open=read, **SHARED)
TEXTVQA_OCR = Task(name="textvqa_ocr", about="the same with words in the prompt that a program has read in the image, as LLaVA 1.5 is asked; not comparable with textvqa", open=read_ocr, **SHARED)
ALL = (TEXTVQA, TEXTVQA_OCR)
