"""The control `prior`: what is right without image and model, by the answer that a question's wording mostly has."""
import collections
import hashlib
from collections.abc import Sequence

from vlmjax.evaluate.task import Item, Task

FOLDS = 10


def guess(task: Task, data_dir: str, everything: Sequence[Item], items: Sequence[Item]) -> list[str]:
    """One answer for each of `items`: its question's most frequent one in the training split, "" for a question that has none there; where a benchmark has no training split, see
    `from_other_images`, of all items of the split."""
    if task.prior is None:
        found = from_other_images(everything)
        return [found[item.id] for item in items]
    known = task.prior(data_dir)
    return [known.get(item.question, "") for item in items]


def source(task: Task) -> str:
    return "training split" if task.prior else "other images of the split"


def from_other_images(items: Sequence[Item]) -> dict[str, str]:
    """{id: an answer from the rest of the benchmark}. Images are dealt into ten parts by their keys; an item gets the most frequent answer to its question among those of its kind in the other nine,
    else to its question, else of its kind, else of all (of equals the first in the alphabet). Not from all images but its own: a question with as many yes as no would then always get the wrong one."""
    part = {item.id: hashlib.sha256((item.image or item.group or item.id).encode()).digest()[0] % FOLDS for item in items}
    wordings = ("both", lambda item: f"{item.kind}\0{item.question}"), ("question", lambda item: item.question), ("kind", lambda item: item.kind), ("all", lambda item: "")
    counts: dict[tuple[str, str], dict[int, collections.Counter[str]]] = collections.defaultdict(lambda: collections.defaultdict(collections.Counter))
    for item in items:
        for name, of in wordings:
            counts[name, of(item)][part[item.id]].update([item.answer])
    most: dict[tuple[str, str, int], str] = {}
    for (name, text), parts in counts.items():
        whole = sum(parts.values(), collections.Counter())
        for k, own in parts.items():
            most[name, text, k] = _first(whole - own)
    return {item.id: next((most[name, of(item), part[item.id]] for name, of in wordings if most[name, of(item), part[item.id]]), "") for item in items}


def _first(counts: collections.Counter[str]) -> str:
    return min(counts, key=lambda answer: (-counts[answer], answer), default="")
