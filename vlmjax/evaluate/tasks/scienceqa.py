"""ScienceQA (Lu et al., arXiv:2209.09513): science questions of schools, some of them with an image. lupantech/ScienceQA, data/scienceqa.

    scienceqa/pid_splits.json       which questions a split has; `test` 4,241, `val` 4,241, `minitest` 424, …
    scienceqa/problems.json         all questions
    scienceqa/images/test           ID/image.png, or images/test.zip

Asked in LLaVA 1.5's CQM-A form and read as its eval_science_qa.py does: what that calls FAILED is wrong, as it is there. LLaVA 1.5's published number is `accuracy/image` of `test` (its IMG-Accuracy). Of an answer the first 16 tokens are read, where LLaVA
lets a model say 1,024.
"""
from typing import Any

from vlmjax.data.datasets.published import PublishedSource, read_json
from vlmjax.data.example import Turn
from vlmjax.data.files_at import File, join
from vlmjax.errors import UserError
from vlmjax.evaluate import benchmark
from vlmjax.evaluate.task import Item, Task, exact_match
from vlmjax.evaluate.texts import letters

IMAGES = "scienceqa/images"


def read(data_dir: str, split: str) -> tuple[PublishedSource, list[Item]]:
    ids = benchmark.splits("scienceqa", split, _read(data_dir, "scienceqa/pid_splits.json"))
    problems = _read(data_dir, "scienceqa/problems.json")
    if not isinstance(ids, list):
        raise UserError(f"scienceqa/pid_splits.json: {split} is no list")
    ids = [benchmark.text(f"scienceqa/pid_splits.json: {split}", id_) for id_ in ids]
    return benchmark.images("scienceqa", data_dir, IMAGES), [_item(f"scienceqa/problems.json: {id_!r:.80}", id_, problems.get(id_)) for id_ in ids]


def _read(data_dir: str, path: str) -> dict[str, Any]:
    found = read_json(File(join(data_dir, path)))
    if not isinstance(found, dict):
        raise UserError(f"{path}: is not an object")
    return found


def _item(where: str, id_: str, problem: Any) -> Item:
    row = benchmark.fields(where, problem, ("question", "hint", "split"), need=("choices", "answer", "image"))
    image = f"{row['split']}/{id_}/{benchmark.text(f'{where}: image', row['image'])}" if row["image"] else None
    choices = letters.texts(where, row["choices"])
    answer = letters.index(where, row["answer"], choices)
    return Item(id_, image, prompt(row["question"], row["hint"], choices, bool(image)), answer, "image" if image else "text", options=choices)


def prompt(question: str, hint: str, choices: tuple[str, ...], image: bool) -> tuple[Turn, ...]:
    """The hint, the question, the choices as "(A) … (B) …", two spaces as one, and to answer with the letter; behind the image where there is one."""
    options = " ".join(map("({}) {}".format, letters.LETTERS, choices))
    text = f"Context: {hint.strip() or 'N/A'}\nQuestion: {question}\nOptions: {options}\n".replace("  ", " ").strip()
    return benchmark.ask(text, benchmark.LETTER) if image else (Turn("user", f"{text}\n{benchmark.LETTER}"),)


SCIENCEQA = Task(name="scienceqa", about="science questions of schools (ScienceQA); accuracy, over all and of those with an image", open=read, prior=None, parse=letters.declared,
                 parser="official (LLaVA 1.5): the letter alone, before '. ', or in the only 'The answer is X.'", score=exact_match, metric="accuracy", max_new_tokens=16, files="scienceqa")
