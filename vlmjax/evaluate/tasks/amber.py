"""AMBER (Wang et al., arXiv:2311.07397), its questions to answer yes or no; its descriptions are not here, as their program needs word vectors. inference.py of junyangwang0410/AMBER.

    AMBER/data/query/query_discriminative.json, AMBER/data/annotations.json    14,216 questions about 1,004 images, and their answers by id
    AMBER/image                                                                the images

    existence    4,924, all no      state    4,764, half yes      number    2,072, half yes      action    792, half yes      relation    1,664, 689 no

Precision, recall and F1 are of no: does it deny what is not there. A model that always says no has an accuracy of 100 in existence, so see the types one by one. The program counts answers that are
exactly Yes or No, to which its readme leaves it to the user to bring them: here what begins with one of them is one (pope.strict), and `…/exact` is what the program makes of the answers as they
are. It prints one decimal, and adds 0.001 to each denominator.
"""
from collections.abc import Sequence
from typing import Any

from vlmjax.data.example import Source
from vlmjax.errors import UserError
from vlmjax.evaluate import benchmark, scoring
from vlmjax.evaluate.task import Item, Task, exact_match
from vlmjax.evaluate.tasks.pope import strict

KINDS = {"discriminative-hallucination": "existence", "discriminative-attribute-state": "state", "discriminative-attribute-number": "number", "discriminative-attribute-action": "action",
         "discriminative-relation": "relation", "relation": "relation"}
ATTRIBUTE = ("state", "number", "action")
SPLITS = {"discriminative": ("AMBER/data/query/query_discriminative.json", "AMBER/data/annotations.json", "AMBER/image")}


def read(data_dir: str, split: str) -> tuple[Source, list[Item]]:
    questions, annotations, folder = benchmark.splits("amber", split, SPLITS)
    known: dict[Any, tuple[str, dict[str, Any]]] = {}
    for where, row in benchmark.rows(data_dir, annotations, ids=("id",), need=("type", "truth")):
        if row["id"] in known:
            raise UserError(f"{where}: {row['id']!r} has been there before")
        known[row["id"]] = where, row
    items = []
    for at, asked in benchmark.rows(data_dir, questions, ("image", "query"), ("id",)):
        if asked["id"] not in known:
            raise UserError(f"{at}: {annotations} has no id {asked['id']!r}")
        where, row = known[asked["id"]]
        kind = KINDS[benchmark.one_of(where, row["type"], tuple(KINDS))]
        items.append(Item(str(asked["id"]), asked["image"], benchmark.ask(asked["query"]), benchmark.one_of(where, row["truth"], ("yes", "no")), kind))
    return benchmark.images("amber", data_dir, folder), items


def more(rows: Sequence[scoring.Row]) -> dict[str, scoring.Metric]:
    """Of no: precision, recall, F1 and share, over all, of each type and of the three that are attributes."""
    of = {kind: [row for row in rows if row["kind"] == kind] for kind in dict.fromkeys(KINDS.values())}
    attribute = [row for kind in ATTRIBUTE for row in of[kind]]
    out = _of_no(rows, "") | {"accuracy/attribute": scoring.mean(attribute, "attribute")} | _of_no(attribute, "/attribute")
    for kind, own in of.items():
        out |= _of_no(own, f"/{kind}")
    as_they_are = [{**row, "parsed": exact(row["prediction"]), "score": float(exact(row["prediction"]) == row["answer"])} for row in rows]
    return out | {"accuracy/exact": scoring.mean(as_they_are, "answers that are Yes or No")} | _of_no(as_they_are, "/exact")


def exact(text: str) -> str | None:
    return {"Yes": "yes", "No": "no"}.get(text)


def _of_no(rows: Sequence[scoring.Row], end: str) -> dict[str, scoring.Metric]:
    return benchmark.of_yes(rows, lambda metric: {"yes": "no"}.get(metric, metric) + end, yes="no")


AMBER = Task(name="amber", about="hallucination: existence, attributes and relations, yes or no (AMBER, discriminative); accuracy, precision, recall and F1 of no, by type", open=read, prior=None, parse=strict,
             parser="yes or no where the answer begins with it; the official program's in accuracy/exact", score=exact_match, metric="accuracy", max_new_tokens=16, more=more, split="discriminative", files="amber")
