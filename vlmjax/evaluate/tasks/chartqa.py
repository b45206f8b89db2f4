"""ChartQA (Masry et al., Findings of ACL 2022): questions about charts, written by people or made from people's summaries of charts; the test split, by relaxed accuracy, in which a number may be 5 % off.

    chartqa/ChartQA Dataset/test/test_{human,augmented}.json
    chartqa/ChartQA Dataset/test/png

Relaxed accuracy is google-research/pix2struct's, pix2struct/metrics.py, which harnesses copy. Known of it: 50% is 0.5, so that it is not 50; where the right answer is 0 only the same text counts; and years are
numbers, so that 1950 is right for 2019. `accuracy/exact` counts the same text only.
"""
from collections.abc import Sequence

from vlmjax.data.example import Source
from vlmjax.evaluate import benchmark, scoring
from vlmjax.evaluate.task import Item, Task

KINDS = ("human", "augmented")
SPLITS = {"test": ("chartqa/ChartQA Dataset/test/test_{}.json", "chartqa/ChartQA Dataset/test/png")}
SLACK = 0.05


def read(data_dir: str, split: str) -> tuple[Source, list[Item]]:
    file, folder = benchmark.splits("chartqa", split, SPLITS)
    items = []
    for kind in KINDS:
        for i, (where, row) in enumerate(benchmark.rows(data_dir, file.format(kind), ("imgname", "query", "label"))):
            items.append(Item(f"{kind}/{i}", row["imgname"], benchmark.ask(row["query"]), row["label"], kind))
    return benchmark.images("chartqa", data_dir, folder), items


def number(text: str) -> float | None:
    """What Python reads as one, of a percentage a hundredth."""
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def relaxed(said: str, accepted: Sequence[str]) -> float:
    return float(any(_near(said, answer) for answer in accepted))


def _near(said: str, answer: str) -> bool:
    guess, right = number(said), number(answer)
    return abs(guess - right) / abs(right) <= SLACK if guess is not None and right else said.lower() == answer.lower()


def more(rows: Sequence[scoring.Row]) -> dict[str, scoring.Metric]:
    return {"accuracy/exact": scoring.mean(rows, "the same text, in whatever case", lambda row: float(row["parsed"].lower() == row["answer"].lower()))}


CHARTQA = Task(name="chartqa", about="questions about charts (ChartQA, test); relaxed accuracy, by who wrote the question", open=read, prior=None, parse=str.strip,
               parser="the answer as it is; a number where Python reads one, with % its hundredth", score=relaxed, metric="accuracy", max_new_tokens=16, more=more, files="chartqa")
