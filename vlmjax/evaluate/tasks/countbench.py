"""CountBenchQA: how many are there, 2 to 10. Images of CountBench (Paiss et al., arXiv:2302.12066) with the questions of PaliGemma (Beyer et al., arXiv:2407.07726), as vikhyatk/CountBenchQA has them.

    CountBenchQA/data/test-00000-of-00001.parquet     491 rows {image: {bytes, path}, text, question, number}; CountBench's other 49 images were gone when its files were made

`text` is the caption the image was found by, which states the number: it is never read. No program is published with it; how an answer is read is in evaluate/texts/counting.py. VLMEvalKit counts an answer right
that holds the number anywhere (12 for 2), lmms-eval one that is the number and nothing else.
"""
import dataclasses

from vlmjax.data.datasets.published import PublishedSource
from vlmjax.data.example import Source
from vlmjax.data.files_at import join, shown
from vlmjax.data.parquet_file import ParquetFile
from vlmjax.errors import UserError
from vlmjax.evaluate import benchmark
from vlmjax.evaluate.task import Item, Task, exact_match
from vlmjax.evaluate.texts import counting

SPLITS = {"test": "CountBenchQA/data/test-00000-of-00001.parquet"}
ASKED, IMAGE = ("question", "number"), "image.bytes"


@dataclasses.dataclass(frozen=True)
class Images:
    """Reads images by key, the number of their row."""

    file: ParquetFile

    def __call__(self, key: str) -> bytes:
        image = self.file.row(int(key), (IMAGE,))["image"]
        if not image or not isinstance(image["bytes"], bytes):
            raise UserError(f"{shown(self.file.path)}: row {key}: its image holds no bytes")
        return image["bytes"]


def read(data_dir: str, split: str) -> tuple[Source, list[Item]]:
    path = benchmark.splits("countbench", split, SPLITS)
    file = ParquetFile.open(join(data_dir, path))
    if missing := [leaf for leaf in (*ASKED, IMAGE) if leaf not in file.leaves]:
        raise UserError(f"{path}: has no column {missing[0]!r}")
    rows = [row for group in range(len(file.starts) - 1) for row in file.rows(group, ASKED)]
    items = []
    for i, row in enumerate(rows):
        if not isinstance(row["question"], str):
            raise UserError(f"{path}[{i}]: the question {row['question']!r:.80} is no text")
        number = counting.answer(f"{path}[{i}]", row["number"])
        items.append(Item(str(i), str(i), benchmark.ask(row["question"]), number, number))
    return PublishedSource("countbench", (), Images(file), {}, {}), items


COUNTBENCH = Task(name="countbench", about="counting: how many are there, 2 to 10 (CountBenchQA); accuracy by number, and distance in objects", open=read, prior=None, parse=counting.parse,
                  parser=counting.PARSER, score=exact_match, metric="accuracy", max_new_tokens=16, more=counting.more, files="countbench")
