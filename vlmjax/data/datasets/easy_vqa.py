"""easy-VQA: 5,000 images of one coloured shape, 64x64, with 48,248 questions of a closed vocabulary (MIT; PyPI package `easy-vqa`).

One record per image, in the package's order and official split. Read as `questions`, `captions` or `texts` (see VIEWS).
"""
import collections
import contextlib
import dataclasses
import functools
import importlib.resources
import io
import itertools
import json
import os
import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from vlmjax.data import facts
from vlmjax.data.example import IMAGE_MARK, Example, Source, Turn
from vlmjax.errors import UserError, did_you_mean

NAME, VERSION = "easy_vqa", "1.0.0"
SHAPES = ("circle", "rectangle", "triangle")
COLORS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
KINDS = ("presence", "absence", "shape", "color")
CAPTION_PROMPT = f"{IMAGE_MARK}describe the image"
CAPTIONS = tuple(f"a {color} {shape}" for color in COLORS for shape in SHAPES)

_SPLIT = re.compile(r"(train|test)(\[(\d+%?)?:(\d+%?)?\])?")


class EasyVqa(tfds.core.GeneratorBasedBuilder):
    """Writes the files of the installed package as ArrayRecord shards."""

    name = NAME
    VERSION = tfds.core.Version(VERSION)
    # Nothing is downloaded. Left to itself TFDS looks for a file of checksums, with a package (importlib_resources) it does not require.
    url_infos = {}

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(64, 64, 3), encoding_format="png"),
            "image_id": np.int64,
            "questions": tfds.features.Sequence({"question": tfds.features.Text(), "answer": tfds.features.Text()}),
        }
        homepage = "https://github.com/vzhou842/easy-VQA"
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), homepage=homepage, license="MIT", disable_shuffling=True
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in ("train", "test")}

    def _generate_examples(self, split):
        folder = importlib.resources.files("easy_vqa") / "data" / split
        questions = json.loads((folder / "questions.json").read_text())  # [question, answer, image], sorted by image
        for image, rows in itertools.groupby(questions, key=lambda row: row[2]):
            texts, answers, _ = zip(*rows)
            png = (folder / "images" / f"{image}.png").read_bytes()
            yield image, {"image": png, "image_id": image, "questions": {"question": texts, "answer": answers}}


def build(data_dir: str | os.PathLike) -> None:
    """Writes `data_dir/easy_vqa/1.0.0` and what is known of its images unless they are there; each file appears only when complete."""
    if not _is_built(data_dir):
        _prepare(data_dir)
    for split in ("train", "test"):
        path = _facts_path(data_dir, split)
        if not path.exists():
            records = _records(os.fspath(data_dir), split)
            facts.save(path, facts.gather(list(records.images), records.images.__getitem__))


def _prepare(data_dir: str | os.PathLike) -> None:
    try:
        importlib.resources.files("easy_vqa")
    except ModuleNotFoundError:
        raise UserError("easy_vqa: its images come with the package easy-vqa; run: pip install 'vlmjax[demo]'") from None
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):
        EasyVqa(data_dir=os.fspath(data_dir), file_format="array_record").download_and_prepare()


@dataclasses.dataclass(frozen=True)
class EasyVqaSource(Source):
    """A view of a split. `undetermined` counts the images left out because their questions do not fix a caption."""

    name: str
    examples: list[Example]
    read: Callable[[str], bytes]
    known: Callable[[], facts.ImageFacts]
    undetermined: int = 0

    def read_image(self, key: str) -> bytes:
        return self.read(key)

    @functools.cached_property
    def facts(self) -> facts.ImageFacts:
        return self.known()

    @property
    def faults(self) -> dict[str, str]:
        return {}

    @property
    def altered(self) -> dict[str, int]:
        return {"images left out because their questions do not fix a caption": self.undetermined} if self.undetermined else {}


def open_source(data_dir: str | os.PathLike, split: str, view: str) -> EasyVqaSource:
    """`split`: train, test, or a part by images as in `train[:3600]`. Image keys are `train/17`, the ids of examples begin with
    `easy_vqa/train/17/`."""
    if view not in VIEWS:
        raise UserError(f"easy_vqa: {view!r} is not one of its views {', '.join(VIEWS)}{did_you_mean(view, VIEWS)}")
    return _open(os.fspath(data_dir), split, view)


@functools.lru_cache(maxsize=8)  # a run opens a view for its stages, its preflight, its evaluation and its report
def _open(data_dir: str, split: str, view: str) -> EasyVqaSource:
    records = _records(data_dir, split)
    examples = [example for (key, pairs), text in zip(records.pairs, records.captions) for example in VIEWS[view](key, pairs, text)]
    undetermined = 0 if view == "questions" else records.captions.count(None)
    return EasyVqaSource(f"{NAME}/{split}/{view}", examples, records.images.__getitem__, functools.partial(_facts, data_dir, split), undetermined)


def _facts(data_dir: str, split: str) -> facts.ImageFacts:
    """Of the images of a part of a split."""
    path = _facts_path(data_dir, split.partition("[")[0])
    if not path.exists():
        raise UserError(f"{path}: is missing; run: vlmjax data build easy_vqa --data_dir={data_dir}")
    whole = facts.load(path)
    wanted = _records(data_dir, split).images
    return whole if len(wanted) == len(whole) else whole.part([i for i, key in enumerate(whole.keys) if key in wanted])


def _facts_path(data_dir: str | os.PathLike, split: str) -> epath.Path:
    return epath.Path(data_dir) / NAME / VERSION / f"images-{split}.npz"


def prior(data_dir: str | os.PathLike, split: str = "train") -> dict[str, str]:
    """question → its most frequent answer in the split (of equals the first in the alphabet): what is known without any image."""
    counts = collections.defaultdict(collections.Counter)
    for _, pairs in _records(os.fspath(data_dir), split).pairs:
        for question, answer in pairs:
            counts[question][answer] += 1
    return {question: min(answers, key=lambda answer: (-answers[answer], answer)) for question, answers in counts.items()}


def kind(question: str, answer: str) -> str:
    """presence and absence (yes or no; absence asks with `not` or `no`), shape, color."""
    if answer in SHAPES:
        return "shape"
    if answer in COLORS:
        return "color"
    if answer not in ("yes", "no"):
        raise UserError(f"easy_vqa: {answer!r} is not an answer of this data set")
    return "absence" if {"no", "not"} & set(question.split()) else "presence"


def caption(pairs: Iterable[tuple[str, str]]) -> str | None:
    """`a red circle`, from what the questions and answers about one image affirm and rule out; None where that leaves more than one."""
    shapes, colors = set(SHAPES), set(COLORS)
    for question, answer in pairs:
        what = kind(question, answer)
        named = {word for word in question.rstrip("?").split() if word in SHAPES or word in COLORS}
        # A question for the colour of the circle takes the circle for granted.
        affirmed = named | {answer} if what in ("shape", "color") else named if (answer == "yes") == (what == "presence") else set()
        for left in (shapes, colors):
            if affirmed & left:
                left &= affirmed
            left -= named - affirmed
    return f"a {colors.pop()} {shapes.pop()}" if len(shapes) == len(colors) == 1 else None


def _questions(key: str, pairs: Sequence[tuple[str, str]], caption: str | None) -> list[Example]:
    return [
        Example(f"{NAME}/{key}/{i}", (key,), (Turn("user", IMAGE_MARK + question), Turn("assistant", answer)))
        for i, (question, answer) in enumerate(pairs)
    ]


def _captions(key: str, pairs: Sequence[tuple[str, str]], caption: str | None) -> list[Example]:
    return [Example(f"{NAME}/{key}/caption", (key,), (Turn("user", CAPTION_PROMPT), Turn("assistant", caption)))] if caption else []


def _texts(key: str, pairs: Sequence[tuple[str, str]], caption: str | None) -> list[Example]:
    """Questions without their answers: a language model that has learned to answer without an image goes on guessing with one."""
    texts = [(f"{i}/text", question) for i, (question, _) in enumerate(pairs)]
    if caption:
        texts.append(("caption/text", caption))
    return [Example(f"{NAME}/{key}/{suffix}", (), (Turn("assistant", text),)) for suffix, text in texts]


# questions: image and question → answer. captions: image → "a red circle". texts: questions and captions as language, without an image.
VIEWS = {"questions": _questions, "captions": _captions, "texts": _texts}


@dataclasses.dataclass(frozen=True)
class _Records:
    """A split in memory, as it is 3 MB: (image key, [(question, answer)]) of each record, and {image key: PNG}."""

    pairs: list[tuple[str, list[tuple[str, str]]]]
    images: dict[str, bytes]

    @functools.cached_property
    def captions(self) -> list[str | None]:
        return [caption(pairs) for _, pairs in self.pairs]


def _is_built(data_dir: str | os.PathLike) -> bool:
    return (epath.Path(data_dir) / NAME / VERSION / "dataset_info.json").exists()


@functools.lru_cache(maxsize=8)
def _records(data_dir: str, split: str) -> _Records:
    if not _is_built(data_dir):
        raise UserError(f"easy_vqa: {data_dir}: not built; run: vlmjax data build easy_vqa --data_dir={data_dir}")
    match = _SPLIT.fullmatch(split)
    if not match:
        raise UserError(f"easy_vqa: the split {split!r} is not train, test or a part of them such as train[:3600]")
    builder = tfds.builder_from_directory(epath.Path(data_dir) / NAME / VERSION)
    try:
        source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    except ValueError as error:
        raise UserError(f"easy_vqa: the split {split!r}: {' '.join(str(error).split())}") from None
    records = _Records([], {})
    for record in source:
        key = f"{match[1]}/{record['image_id']}"
        texts, answers = record["questions"]["question"], record["questions"]["answer"]
        records.pairs.append((key, [(q.decode(), a.decode()) for q, a in zip(texts, answers)]))
        records.images[key] = record["image"]
    return records
