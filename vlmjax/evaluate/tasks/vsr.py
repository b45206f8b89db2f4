"""Visual Spatial Reasoning (Liu et al., arXiv:2205.00363): is a statement about where two things are true of the image. cambridgeltl/visual-spatial-reasoning, whose data/ is vsr/ here.

    vsr/splits/zeroshot/test.jsonl      zeroshot: 1,222 statements about 715 images, about things that its training split has not
    vsr/splits/random/test.jsonl        random: 2,195 about 1,874 images
    vsr/images                          those of COCO that it uses

Kinds are the publisher's groups of relations. Asked as TRI-ML/vlm-evaluation asks LLaVA 1.5, which was not published on VSR; that program takes the likelier one of "True" and "False", here an answer is read.
"""
import re

from vlmjax.data.example import Source
from vlmjax.evaluate import benchmark
from vlmjax.evaluate.task import Item, Task, exact_match

SPLITS = {"zeroshot": "vsr/splits/zeroshot/test.jsonl", "random": "vsr/splits/random/test.jsonl"}
# analysis_scripts/rel_meta_category_dict.txt there, Apache 2.0; "among" also stands under topological there, of which its program takes the last.
RELATIONS = {
    "adjacency": "adjacent to, alongside, at the side of, at the right side of, at the left side of, attached to, at the back of, ahead of, against, at the edge of",
    "directional": "off, past, toward, down, deep down, up, away from, along, around, from, into, to, across, across from, through, down from",
    "orientation": "facing, facing away from, parallel to, perpendicular to",
    "projective": "on top of, beneath, beside, behind, left of, right of, under, in front of, below, above, over, in the middle of",
    "proximity": "by, close to, near, far from, far away from",
    "topological": "connected to, detached from, has as a part, part of, contains, within, at, on, in, with, surrounding, consists of, out of, between, inside, outside, touching",
    "unallocated": "beyond, next to, opposite to, after, among, enclosed by",
}  # fmt: skip
GROUP = {relation: group for group, relations in RELATIONS.items() for relation in relations.split(", ")}


def read(data_dir: str, split: str) -> tuple[Source, list[Item]]:
    items = []
    for where, row in benchmark.rows(data_dir, benchmark.splits("vsr", split, SPLITS), ("image", "caption"), need=("label", "relation")):
        label = "True" if benchmark.one_of(where, row["label"], (0, 1)) else "False"
        group = GROUP[benchmark.one_of(where, row["relation"], tuple(GROUP))]
        question = f'Based on the image, is this statement "True" or "False"? {row["caption"]}'
        items.append(Item(str(len(items)), row["image"], benchmark.ask(question, 'Respond with "True" or "False" directly.'), label, group))
    return benchmark.images("vsr", data_dir, "vsr/images"), items


def parse(text: str) -> str | None:
    """True or False, in whatever case, where only one of them is among the words."""
    found = {word.capitalize() for word in re.findall(r"\b(true|false)\b", text, re.IGNORECASE)}
    return found.pop() if len(found) == 1 else None


VSR = Task(name="vsr", about="is a statement about where two things are true (VSR); accuracy, by the kind of relation", open=read, prior=None, parse=parse, parser="the only one of the words True and False", score=exact_match, metric="accuracy",
           max_new_tokens=16, split="zeroshot", files="vsr")
