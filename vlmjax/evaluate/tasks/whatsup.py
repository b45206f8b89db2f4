"""What'sUp (Kamath et al., arXiv:2310.19785), its controlled images: which of four statements about where two things are is true. amitakamath/whatsup_vlms, whose data/ is whatsup/ here.

    whatsup/controlled_images_dataset.json      A: left of, right of, on, under
    whatsup/controlled_images                   THING_RELATION_THING.jpeg
    whatsup/controlled_clevr_dataset.json       B: left of, right of, in front of, behind
    whatsup/controlled_clevr

A set is two things in all four relations; `sets` is the share of sets, `pairs` of pairs of opposite relations, that are right in all images, as in the publisher's table. There a model scores each statement; here it is asked for the letter of one. The files have
the true statement first; here the statements of a set have one order, the alphabet's, rotated by a hash of the set, so that its four questions are the same and only the images tell their four answers apart.
"""
import hashlib
from collections.abc import Sequence
from typing import Any

from vlmjax.data.datasets.published import PublishedSource
from vlmjax.errors import UserError
from vlmjax.evaluate import benchmark, scoring
from vlmjax.evaluate.task import Item, Task, exact_match
from vlmjax.evaluate.texts import letters

FILES = {"A": "whatsup/controlled_images_dataset.json", "B": "whatsup/controlled_clevr_dataset.json"}
OPPOSITE = {"left": "right", "on": "under", "in-front": "behind"}
QUESTION = "Which of these statements describes the image?"


def read(data_dir: str, split: str) -> tuple[PublishedSource, list[Item]]:
    files = benchmark.splits("whatsup", split, {"controlled": FILES})
    items = [_item(where, subset, row) for subset, file in files.items() for where, row in benchmark.rows(data_dir, file, ("image_path",), need=("caption_options",))]
    return benchmark.images("whatsup", data_dir, "whatsup"), items


def _item(where: str, subset: str, row: dict[str, Any]) -> Item:
    statements = letters.texts(where, row["caption_options"])
    *_, folder, name = ["", *row["image_path"].split("/")]
    parts = name.rpartition(".")[0].split("_")
    if len(parts) < 3 or parts[1] not in (*OPPOSITE, *OPPOSITE.values()):
        raise UserError(f"{where}: {name!r:.80} is not named THING_RELATION_THING")
    group = f"{subset}/{parts[0]}/{parts[-1]}"
    order = sorted(statements)
    k = hashlib.sha256(group.encode()).digest()[0] % len(order)
    options = tuple(order[k:] + order[:k])
    return Item(f"{subset}/{name}", f"{folder}/{name}", letters.ask(QUESTION, options), letters.LETTERS[options.index(statements[0])], subset, group, options=options)


def more(rows: Sequence[scoring.Row]) -> dict[str, scoring.Metric]:
    """The share of pairs and of sets that are right in all their images, over both subsets and in each, and accuracy by relation."""
    out = {"pairs": scoring.sets(_pairs(rows), "pairs")}
    for subset in dict.fromkeys(row["kind"] for row in rows):
        own = [row for row in rows if row["kind"] == subset]
        out |= {f"pairs/{subset}": scoring.sets(_pairs(own), f"pairs of {subset}"), f"sets/{subset}": scoring.sets(own, f"sets of {subset}")}
        for relation in dict.fromkeys(map(_relation, own)):
            out[f"accuracy/{subset}/{relation}"] = scoring.mean([row for row in own if _relation(row) == relation], f"{relation} in {subset}")
    return out


def _relation(row: scoring.Row) -> str:
    return row["id"].split("_")[1]


def _pairs(rows: Sequence[scoring.Row]) -> list[scoring.Row]:
    """With pairs of opposite relations as groups."""
    return [{**row, "group": f"{row['group']}/{OPPOSITE.get(_relation(row), _relation(row))}"} for row in rows]


WHATSUP = Task(name="whatsup", about="which of four statements about where two things are is true (What'sUp, controlled images); alone, by pairs of opposites and by sets", open=read, prior=None, parse=letters.inferred,
               parser="VLMEvalKit's rules with exact_matching: the letter, else the only statement repeated", score=exact_match, metric="accuracy", max_new_tokens=16, more=more, split="controlled", files="whatsup")
