"""GQA (Hudson and Manning, arXiv:1902.09506): compositional questions made from scene graphs; the balanced questions of testdev, scored by equality as GQA's eval.py.

    gqa/data/testdev_balanced_questions.json     12,578 questions, by id
    gqa/data/images                              the images

Of an answer the full stops at its end are dropped and it is put in lower case, as haotian-liu/LLaVA, scripts/convert_gqa_for_eval.py does. Not here: consistency, validity and plausibility, which need files
that GQA 1.2 comes without (LLaVA, docs/Evaluation.md), and the distribution of answers. GQA publishes eval.py with its data; the tests compare with the copy of it in TRI-ML/vlm-evaluation.
"""
from collections.abc import Sequence

from vlmjax.data.datasets import published
from vlmjax.data.example import Source
from vlmjax.data.files_at import File, join
from vlmjax.errors import UserError
from vlmjax.evaluate import benchmark, scoring
from vlmjax.evaluate.task import Item, Task, exact_match

KINDS = ("choose", "compare", "logical", "query", "verify")  # structural types
SPLITS = {"testdev": ("gqa/data/testdev_balanced_questions.json", "gqa/data/images")}


def read(data_dir: str, split: str) -> tuple[Source, list[Item]]:
    file, folder = benchmark.splits("gqa", split, SPLITS)
    questions, items = published.read_json(File(join(data_dir, file))), []
    if not isinstance(questions, dict):
        raise UserError(f"{file}: is not an object of questions by their ids")
    for id_, row in questions.items():
        where = f"{file}: {benchmark.text(file, id_)!r:.80}"
        row = benchmark.fields(where, row, ("question", "answer"), ("imageId",), ("types",))
        kind = benchmark.one_of(where, benchmark.fields(f"{where}: types", row["types"], need=("structural",))["structural"], KINDS)
        items.append(Item(id_, f"{row['imageId']}.jpg", benchmark.ask(row["question"]), row["answer"], kind))
    return benchmark.images("gqa", data_dir, folder), items


def parse(text: str) -> str:
    return text.strip().rstrip(".").lower()


def more(rows: Sequence[scoring.Row]) -> dict[str, scoring.Metric]:
    """Accuracy of the questions that ask for a name or attribute, and of the others, which have two answers to choose from."""
    return {"accuracy/open": scoring.mean([row for row in rows if row["kind"] == "query"], "open"), "accuracy/binary": scoring.mean([row for row in rows if row["kind"] != "query"], "binary")}


GQA = Task(name="gqa", about="compositional questions about photographs (GQA, testdev balanced); accuracy, by the structural type of the question", open=read, prior=None, parse=parse,
           parser="in lower case, without full stops at the end", score=exact_match, metric="accuracy", max_new_tokens=16, more=more, split="testdev", files="gqa")
