"""COCO captions (Chen et al., arXiv:1504.00325): describe the image in one sentence, beside what five people wrote. Compared as pycocoevalcap does (evaluate/texts/captions.py).

    coco/dataset_coco.json                        the split of Karpathy and Fei-Fei (arXiv:1412.2306): 5,000 images of its `test`, which is what papers report (split `karpathy`)
    coco/annotations/captions_val2014.json        or all 40,504 images of val2014 (split `val2014`)
    coco/val2014                                  COCO's images

The score of an item is its ROUGE-L; CIDEr and BLEU are of all captions together. Asked as LLaVA 1.5 was for captions in training (arXiv:2310.03744, table 7), which reports none.
"""
from collections.abc import Sequence
from typing import Any

from vlmjax.data.datasets.published import CAPTION_PROMPT, read_json
from vlmjax.data.example import IMAGE_MARK, Source, Turn
from vlmjax.data.files_at import File, join
from vlmjax.errors import UserError
from vlmjax.evaluate import benchmark
from vlmjax.evaluate.task import Item, Task
from vlmjax.evaluate.texts import captions

SPLITS = {"karpathy": "coco/dataset_coco.json", "val2014": "coco/annotations/captions_val2014.json"}
QUESTION = (Turn("user", f"{IMAGE_MARK}\n{CAPTION_PROMPT}"),)
UNREAD = ("tokens", "sentids")  # of dataset_coco.json: most of its 616,767 sentences' memory


def read(data_dir: str, split: str) -> tuple[Source, list[Item]]:
    path = benchmark.splits("coco_captions", split, SPLITS)
    content = read_json(File(join(data_dir, path)), lambda pairs: {key: value for key, value in pairs if key not in UNREAD})
    items = (_karpathy if split == "karpathy" else _published)(path, content)
    return benchmark.images("coco_captions", data_dir, "coco"), items


def _karpathy(path: str, content: Any) -> list[Item]:
    items = []
    for where, row in _listed(path, content, "images", need=("split",)):
        if row["split"] == "test":
            benchmark.fields(where, row, ("filepath", "filename"), ("cocoid",), ("sentences",))
            if not isinstance(row["sentences"], list):
                raise UserError(f"{where}: sentences is {row['sentences']!r:.80}, not a list")
            said = tuple(benchmark.fields(f"{where}.sentences[{k}]", sentence, ("raw",))["raw"] for k, sentence in enumerate(row["sentences"]))
            items.append(_item(where, row["cocoid"], f"{row['filepath']}/{row['filename']}", said))
    return items


def _published(path: str, content: Any) -> list[Item]:
    said: dict[Any, list[str]] = {}
    for _, row in _listed(path, content, "annotations", ("caption",), ("image_id",)):
        said.setdefault(row["image_id"], []).append(row["caption"])
    return [_item(where, row["id"], f"val2014/{row['file_name']}", tuple(said.get(row["id"], ()))) for where, row in _listed(path, content, "images", ("file_name",), ("id",))]


def _listed(path: str, content: Any, key: str, texts: Sequence[str] = (), ids: Sequence[str] = (), need: Sequence[str] = ()) -> list[tuple[str, dict[str, Any]]]:
    """(where it stands, row) of a list in an object."""
    rows = benchmark.fields(path, content, need=(key,))[key]
    if not isinstance(rows, list):
        raise UserError(f"{path}: its {key} are {rows!r:.80}, not a list")
    return [(f"{path}: {key}[{i}]", benchmark.fields(f"{path}: {key}[{i}]", row, texts, ids, need)) for i, row in enumerate(rows)]


def _item(where: str, id_: Any, image: str, said: tuple[str, ...]) -> Item:
    if not said or not all(isinstance(caption, str) for caption in said):
        raise UserError(f"{where}: has no captions" if not said else f"{where}: a caption of it is no text")
    return Item(str(id_), image, QUESTION, said[0], answers=said)


def parse(text: str) -> str | None:
    """The text on one line; None where there is none."""
    return " ".join(text.split()) or None


COCO_CAPTIONS = Task(name="coco_captions", about="captions beside those of five people (COCO, Karpathy's test split); ROUGE-L, CIDEr-D, BLEU", open=read, prior=None, parse=parse,
                     parser="the whole answer as one line", score=captions.rouge_l, metric="rouge_l", max_new_tokens=64, more=captions.more, split="karpathy", files="coco_captions")
