"""CV-Bench (Tong et al., arXiv:2406.16860): counting and relations in 2D, depth and distance in 3D, by multiple choice. The hub's nyu-visionx/CV-Bench is cvbench/ here.

    cvbench/test_2d.jsonl, cvbench/test_3d.jsonl    2,638 questions in all
    cvbench/img                                     the images, which its build_img.py writes from test_2d.parquet and test_3d.parquet

`combined`, the number that is published, is the mean of 2D, itself the mean of the accuracies on ADE20K and COCO, and 3D. Asked and read as Cambrian-1 does (cambrian-mllm/cambrian, eval/eval/{ade,coco,omni}), whose
program for 3D also takes the text of an option, if that is one character: the options there are names of things.
"""
from collections.abc import Sequence
from typing import Any

from vlmjax.data.datasets.published import PublishedSource
from vlmjax.evaluate import benchmark, scoring
from vlmjax.evaluate.task import Item, Task, exact_match
from vlmjax.evaluate.texts import letters

FILES = ("cvbench/test_2d.jsonl", "cvbench/test_3d.jsonl")
SOURCES = {"ADE20K": 1 / 4, "COCO": 1 / 4, "Omni3D": 1 / 2}


def read(data_dir: str, split: str) -> tuple[PublishedSource, list[Item]]:
    files = benchmark.splits("cvbench", split, {"test": FILES})
    return benchmark.images("cvbench", data_dir, "cvbench"), [_item(where, row) for file in files for where, row in benchmark.rows(data_dir, file, ("type", "task", "filename", "prompt"), ("idx",), ("choices", "answer", "source"))]


def _item(where: str, row: dict[str, Any]) -> Item:
    options = letters.texts(where, row["choices"])
    answer = benchmark.one_of(where, row["answer"], [f"({letter})" for letter in letters.LETTERS[: len(options)]])[1]
    source = benchmark.one_of(where, row["source"], tuple(SOURCES))
    return Item(f"{source}/{row['type']}/{row['idx']}", row["filename"], benchmark.ask(row["prompt"], benchmark.LETTER), answer, row["task"], options=options)


def more(rows: Sequence[scoring.Row]) -> dict[str, scoring.Metric]:
    """The accuracy on the images of each source, and what is made of them."""
    of = {source: [row for row in rows if row["id"].split("/")[0] == source] for source in SOURCES}
    out = {"combined": scoring.total([(weight, of[source], lambda row: row["score"], lambda row: 1.0) for source, weight in SOURCES.items()], "((ADE20K + COCO) / 2 + Omni3D) / 2")}
    return out | {f"accuracy/{source}": scoring.mean(own, source) for source, own in of.items()}


CVBENCH = Task(name="cvbench", about="counting, relations, depth and distance by multiple choice (CV-Bench); accuracy, by task and source", open=read, prior=None, parse=letters.leading,
               parser="official (Cambrian-1): the first letter behind the last 'answer is' or 'answer:', also of a word", score=exact_match, metric="accuracy", max_new_tokens=16, more=more, files="cvbench")
