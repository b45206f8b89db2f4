"""COCO captions as published (captions_train2017.json): {"images": [{"id", "file_name"}], "annotations": [{"id", "image_id", "caption"}]}.

`coco:FILE:FOLDER`: one example per caption, in the order of the annotations; FOLDER, a folder or zip archive (`coco/train2017.zip/train2017`), holds
the images by their `file_name`. COCO has no questions: each one is `published.CAPTION_PROMPT`.
"""
import array
import dataclasses
import functools
import os

from vlmjax.data.datasets import published
from vlmjax.data.datasets.published import CAPTION_PROMPT, PublishedSource
from vlmjax.data.example import IMAGE_MARK, Example, Lazy, Turn
from vlmjax.data.files_at import File, shown
from vlmjax.errors import UserError

NAME = "coco"
QUESTION = Turn("user", f"{IMAGE_MARK}\n{CAPTION_PROMPT}")


def build(data_dir: str | os.PathLike) -> None:
    raise UserError(f"{NAME}: its annotations are read as they are published; there is nothing to build")


def open_source(data_dir: str | os.PathLike, split: str, view: str) -> PublishedSource:
    """split: the annotations; view: the folder of the images."""
    return _open(*published.paths(data_dir, split, view))


@functools.lru_cache(4)
def _open(path: str, folder: str) -> PublishedSource:
    file = File(path)
    content = published.read_json(file)
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in ("images", "annotations")):
        raise UserError(f"{shown(path)}: has no lists 'images' and 'annotations', as captions of COCO have")
    images = (image for image in content["images"] if isinstance(image, dict) and "id" in image and isinstance(image.get("file_name"), str))
    files = {image["id"]: image["file_name"] for image in images}
    notes, made = published.Notes(), _Examples([])
    for i, annotation in enumerate(content["annotations"]):
        notes.rows += 1
        try:
            if not isinstance(annotation, dict) or not {"image_id", "caption"} <= set(annotation):
                raise ValueError("has no 'image_id' and 'caption'")
            caption = published.answer(annotation["caption"])
            if annotation["image_id"] not in files:
                raise ValueError(f"its image {annotation['image_id']!r} is not among the file's images")
        except (ValueError, TypeError) as error:
            notes.fault(f"{file.name}[{i}]", error)
            continue
        if caption != annotation["caption"]:
            notes.altered[published.STRIPPED] += 1
        id_ = str(annotation.get("id", i))
        made.rows.append((published.numbered(id_, notes.copy(id_)), files[annotation["image_id"]], caption))
    return published.source(NAME, file, notes, Lazy(len(made.rows), made), folder)


@dataclasses.dataclass(frozen=True)
class _Examples:
    """Makes examples of (id, image, caption): 591,753 captions in about 150 MB."""

    rows: list[tuple[str, str, str]]

    def __call__(self, i: int) -> Example:
        id_, image, caption = self.rows[i]
        return Example(f"{NAME}/{id_}", (image,), (QUESTION, Turn("assistant", caption)))
