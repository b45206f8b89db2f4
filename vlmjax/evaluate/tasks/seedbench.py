"""SEED-Bench (Li et al., arXiv:2307.16125), version 1, its questions about single images: nine abilities by multiple choice.

    seed_bench/SEED-Bench.json          all questions; those of `data_type` image
    seed_bench/SEED-Bench-image         the images, named DATA_ID

Asked and read as LLaVA 1.5 does: an answer is right when it is the letter and nothing else (scripts/convert_seed_for_submission.py), and its "image accuracy" is `accuracy`. The publisher's own program takes the option to which the model gives the
highest likelihood instead.
"""
from typing import Any

from vlmjax.data.datasets.published import PublishedSource, read_json
from vlmjax.data.files_at import File, join
from vlmjax.errors import UserError
from vlmjax.evaluate import benchmark
from vlmjax.evaluate.task import Item, Task, exact_match
from vlmjax.evaluate.texts import letters

FILE, IMAGES = "seed_bench/SEED-Bench.json", "seed_bench"
CHOICES = ("choice_a", "choice_b", "choice_c", "choice_d")


def read(data_dir: str, split: str) -> tuple[PublishedSource, list[Item]]:
    benchmark.splits("seedbench", split, {"image": FILE})
    found = benchmark.fields(FILE, read_json(File(join(data_dir, FILE))), need=("question_type", "questions"))
    if not isinstance(found["question_type"], dict) or not isinstance(found["questions"], list):
        raise UserError(f"{FILE}: question_type is no object or questions no list")
    benchmark.fields(f"{FILE}: question_type", found["question_type"], ids=tuple(found["question_type"]))
    names = {number: name for name, number in found["question_type"].items()}
    rows = [(f"{FILE}: questions[{i}]", benchmark.fields(f"{FILE}: questions[{i}]", row, need=("data_type",))) for i, row in enumerate(found["questions"])]
    return benchmark.images("seedbench", data_dir, IMAGES), [_item(where, row, names) for where, row in rows if row["data_type"] == "image"]


def _item(where: str, row: dict[str, Any], names: dict[int, str]) -> Item:
    benchmark.fields(where, row, ("data_id", "question"), ("question_id", "question_type_id"), ("answer", *CHOICES))
    if row["question_type_id"] not in names:
        raise UserError(f"{where}: question_type has no {row['question_type_id']!r}")
    options = letters.texts(where, [row[choice] for choice in CHOICES])
    answer = benchmark.one_of(where, row["answer"], tuple(letters.LETTERS[: len(options)]))
    return Item(str(row["question_id"]), f"SEED-Bench-image/{row['data_id']}", letters.ask(row["question"], options), answer, names[row["question_type_id"]], options=options)


SEEDBENCH = Task(name="seedbench", about="abilities by multiple choice about single images (SEED-Bench, image part); accuracy, by type of question", open=read, prior=None, parse=letters.alone,
                 parser="official (LLaVA 1.5): the letter and nothing else", score=exact_match, metric="accuracy", max_new_tokens=16, split="image", files="seedbench")
