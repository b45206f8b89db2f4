"""cc_sbu_align, MiniGPT-4's second stage, as published: filter_cap.json {"annotations": [{"image_id", "caption"}]} beside image/ID.jpg.

`minigpt4:FILE:FOLDER`: one example per annotation. Captions stay as they are (Vision-CAIR/MiniGPT-4 at d94738a, CCSBUAlignDataset in
minigpt4/datasets/datasets/cc_sbu_dataset.py). The instruction is one of the four of prompts/alignment.txt, without the <Img> and </Img> around its
image, which belong to the model. MiniGPT-4 draws one for each batch; here it follows from the example's id alone, so that every run, order and host
shows the same.
"""
import functools
import hashlib
import os

from vlmjax.data.datasets import published
from vlmjax.data.datasets.published import PublishedSource
from vlmjax.data.example import IMAGE_MARK, Example, Turn
from vlmjax.data.files_at import File, shown
from vlmjax.errors import UserError

NAME = "minigpt4"
INSTRUCTIONS = (
    "Describe this image in detail.",
    "Take a look at this image and describe what you notice.",
    "Please provide a detailed description of the picture.",
    "Could you describe the contents of this image for me?",
)


def build(data_dir: str | os.PathLike) -> None:
    raise UserError(f"{NAME}: its annotations are read as they are published; there is nothing to build")


def open_source(data_dir: str | os.PathLike, split: str, view: str) -> PublishedSource:
    """split: the annotations; view: the folder of the images."""
    return _open(*published.paths(data_dir, split, view))


def instruction(id_: str) -> str:
    """The instruction of an example."""
    return INSTRUCTIONS[hashlib.sha256(id_.encode()).digest()[0] % len(INSTRUCTIONS)]


@functools.lru_cache(4)
def _open(path: str, folder: str) -> PublishedSource:
    file = File(path)
    content = published.read_json(file)
    if not isinstance(content, dict) or not isinstance(content.get("annotations"), list):
        raise UserError(f"{shown(path)}: has no list 'annotations', as cc_sbu_align has")
    notes, examples = published.Notes(), []
    for i, annotation in enumerate(content["annotations"]):
        notes.rows += 1
        try:
            if not isinstance(annotation, dict) or not isinstance(annotation.get("image_id"), (str, int)):
                raise ValueError("has no 'image_id'")
            image = published.text(str(annotation["image_id"]))
            published.answer(annotation.get("caption"))
        except ValueError as error:
            notes.fault(f"{file.name}[{i}]", error)
            continue
        id_ = f"{NAME}/{published.numbered(image, notes.copy(image))}"
        examples.append(Example(id_, (f"{image}.jpg",), (Turn("user", f"{IMAGE_MARK} {instruction(id_)}"), Turn("assistant", annotation["caption"]))))
    return published.source(NAME, file, notes, examples, folder)
