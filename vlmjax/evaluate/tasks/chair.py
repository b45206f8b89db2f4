"""CHAIR (Rohrbach et al., arXiv:1809.02156): objects that a description names and the image does not hold. utils/chair.py of LisaAnne/Hallucination.

    coco/annotations/{instances,captions}_val2014.json    what is in the images: segmented objects, and those that their five captions mention
    coco/val2014                                          COCO's images: 40,504. Papers draw 500: --sample=500, drawn by a fixed seed

A description counts objects of COCO by name, as coco_words.py reads them; one that names none holds no false one. CHAIRs (`chair_s`) is the share of descriptions with a false object, and what the
task is scored by is its opposite, `truthful`; CHAIRi (`chair_i`) is the share of false ones among all mentions. Both fall as descriptions get shorter: see `recall`, the share of the images' objects
that are mentioned (not in the official program), and `words`.
"""
import collections
import json
from collections.abc import Sequence
from typing import Any

from vlmjax.data.example import IMAGE_MARK, Source, Turn
from vlmjax.data.files_at import File, join
from vlmjax.errors import UserError
from vlmjax.evaluate import benchmark, scoring
from vlmjax.evaluate.task import Item, Task
from vlmjax.evaluate.texts import coco_words

PROMPT = Turn("user", f"{IMAGE_MARK}\nPlease describe this image in detail.")
SPLITS = {"val2014": ("coco/annotations/instances_val2014.json", "coco/annotations/captions_val2014.json", "coco/val2014")}


def read(data_dir: str, split: str) -> tuple[Source, list[Item]]:
    instances, captions, folder = benchmark.splits("chair", split, SPLITS)
    content = _content(data_dir, captions, ("images", "annotations"), ("caption",), ("image_id",))
    there: dict[Any, set[str]] = collections.defaultdict(set)
    for annotation in content["annotations"]:
        there[annotation["image_id"]].update(coco_words.mentions(annotation["caption"]))
    outlined = _content(data_dir, instances, ("categories", "annotations"), (), ("image_id", "category_id"))
    names = {category["id"]: benchmark.one_of(f"{instances}: categories[{i}]", category["name"], coco_words.NAMES) for i, category in enumerate(outlined["categories"])}
    for i, annotation in enumerate(outlined["annotations"]):
        if annotation["category_id"] not in names:
            raise UserError(f"{instances}: annotations[{i}]: there is no category {annotation['category_id']!r}")
        there[annotation["image_id"]].add(names[annotation["category_id"]])
    items = []
    for image in content["images"]:
        objects = tuple(sorted(there[image["id"]]))
        items.append(Item(str(image["id"]), image["file_name"], (PROMPT,), ", ".join(objects), answers=objects))
    return benchmark.images("chair", data_dir, folder), items


def _content(data_dir: str, path: str, lists: Sequence[str], texts: Sequence[str], ids: Sequence[str]) -> dict[str, Any]:
    """A file of annotations. Fractions are not kept: only outlines have them, and these are most of a file."""
    try:
        content = json.loads(File(join(data_dir, path)).read(), parse_float=lambda digits: None)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not JSON: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not all(isinstance(content.get(name), list) for name in lists):
        raise UserError(f"{path}: has no lists {' and '.join(lists)}, as annotations of COCO have")
    for name, texts, ids in (("images", ("file_name",), ("id",)), ("categories", ("name",), ("id",)), ("annotations", texts, ids)):
        for i, row in enumerate(content[name] if name in lists else ()):
            benchmark.fields(f"{path}: {name}[{i}]", row, texts, ids)
    return content


def parse(text: str) -> str:
    """The objects it mentions, in order and as often as it does."""
    return ", ".join(coco_words.mentions(text))


def truthful(parsed: str, objects: Sequence[str]) -> float:
    """Whether every object that is mentioned is in the image."""
    return float(set(_listed(parsed)) <= set(objects))


def more(rows: Sequence[scoring.Row]) -> dict[str, scoring.Metric]:
    said, there = (lambda row: _listed(row["parsed"])), (lambda row: set(row.get("answers") or ()))
    return {
        "chair_s": scoring.mean(rows, "descriptions with a false object", lambda row: 1.0 - row["score"]),
        "chair_i": scoring.ratio(rows, lambda row: sum(name not in there(row) for name in said(row)), lambda row: len(said(row)), "false mentions"),
        "recall": scoring.ratio(rows, lambda row: len(there(row) & set(said(row))), lambda row: len(there(row)), "objects that are mentioned"),
        "words": scoring.mean(rows, "length", lambda row: len(row["prediction"].split()), "words"),
    }


def _listed(parsed: str) -> list[str]:
    return parsed.split(", ") if parsed else []


CHAIR = Task(name="chair", about="hallucination: do descriptions name objects that are not there (CHAIR); descriptions without any, CHAIRs, CHAIRi, recall, length", open=read, prior=None, parse=parse,
             parser="official: words of COCO's objects and their synonyms", score=truthful, metric="truthful", max_new_tokens=512, more=more, split="val2014", files="chair")
