"""POPE (Li et al., arXiv:2305.10355): is there an object in the image, half of the time one that is not. RUCAIBox/POPE, output/coco and evaluate.py at its newest commit.

    pope/coco/coco_pope_{random,popular,adversarial}.json     3 × 3,000 questions about 500 images, JSON lines
    pope/val2014                                              COCO's images

Absent objects are any (`random`), the most frequent (`popular`) or those most often seen with what is there (`adversarial`). LLaVA 1.5 reports F1, averaged over the three, on an older `random`
of 2,910 questions.
"""
import re
from collections.abc import Sequence

from vlmjax.data.example import Source
from vlmjax.evaluate import benchmark, scoring
from vlmjax.evaluate.task import Item, Task, exact_match

KINDS = ("random", "popular", "adversarial")
SPLITS = {"coco": ("pope/coco/coco_pope_{}.json", "pope/val2014")}


def read(data_dir: str, split: str) -> tuple[Source, list[Item]]:
    file, folder = benchmark.splits("pope", split, SPLITS)
    items = []
    for kind in KINDS:
        for where, row in benchmark.rows(data_dir, file.format(kind), ("image", "text"), ("question_id",), ("label",)):
            items.append(Item(f"{kind}/{row['question_id']}", row["image"], benchmark.ask(row["text"]), benchmark.one_of(where, row["label"], ("yes", "no")), kind))
    return benchmark.images("pope", data_dir, folder), items


def parse(text: str) -> str:
    """Of the first sentence: no where one of its words is No, no or not, else yes, also for an empty answer."""
    words = text.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "no", "not"} & set(words) else "yes"


def strict(text: str) -> str | None:
    """yes or no where the answer begins with it."""
    found = re.match(r"\W*(yes|no)\b", text, re.IGNORECASE)
    return found[1].lower() if found else None


def more(rows: Sequence[scoring.Row]) -> dict[str, scoring.Metric]:
    """F1 averaged over the kinds; precision, recall, F1 and the share of yes of each; and what becomes of it where only answers that begin with yes or no count."""
    of = {kind: [row for row in rows if row["kind"] == kind] for kind in KINDS}
    both, either = (lambda row: 2.0 * (row["parsed"] == row["answer"] == "yes")), (lambda row: float(row["parsed"] == "yes") + (row["answer"] == "yes"))
    out = {"f1": scoring.total([(1 / len(KINDS), of[kind], both, either) for kind in KINDS], "mean of random, popular and adversarial")}
    for kind in KINDS:
        out |= benchmark.of_yes(of[kind], lambda metric: f"{metric}/{kind}")
    return out | {"accuracy/strict": scoring.mean(rows, "answers that begin with yes or no", lambda row: float(strict(row["prediction"]) == row["answer"]))}


POPE = Task(name="pope", about="hallucination: is there an object in the image (POPE); accuracy and F1 of yes, by how the absent ones are drawn", open=read, prior=None, parse=parse,
            parser="official: no where the first sentence has the word No, no or not, else yes", score=exact_match, metric="accuracy", max_new_tokens=16, more=more, split="coco", files="pope")
