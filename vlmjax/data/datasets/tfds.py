"""Any data set that TensorFlow Datasets has prepared as ArrayRecord: `tfds:NAME[/CONFIG][:VERSION]:SPLIT:VIEW`, from DATA_DIR/NAME[/CONFIG]/VERSION.

    tfds:coco_captions/2014:1.1.0:train[:1000]:image=image,caption=captions/text
    tfds:my_vqa:train+test:image=image,question=qa/question,answer=qa/answer,id=image/filename

VIEW says which feature is what: `image` (one, or a sequence of them; none: text alone), then `question` and `answer`, or `caption`, an answer to
`published.CAPTION_PROMPT`; `id` names a record. A feature inside another is written with `/`. A sequence of answers gives one example each, with its
own question or the one they share. Class labels become their names, numbers are written out. Without VERSION the newest one that is there is read.

No TensorFlow: prepare with `download_and_prepare(file_format="array_record")`. Opening reads every record once, for its texts; images are read on
demand, never decoded here.
"""
import dataclasses
import functools
import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from vlmjax.data.datasets import published
from vlmjax.data.datasets.published import CAPTION_PROMPT, PublishedSource
from vlmjax.data.example import IMAGE_MARK, Example, Lazy, Turn
from vlmjax.errors import UserError, did_you_mean

NAME = "tfds"
PARTS = ("image", "question", "answer", "caption", "id")

_SPEC = re.compile(r"(?P<name>\w+)(?:/(?P<config>[^:/]+))?(?::(?P<version>\d+\.\d+\.\d+))?:(?P<split>[^:/]+(?:\[[^\]]*\].*)?)")


class _AsStored(tfds.decode.SkipDecoding):
    """A feature as its record holds it, also in a sequence, which SkipDecoding leaves out."""

    decode_batch_example_np = decode_ragged_example_np = tfds.decode.SkipDecoding.decode_example_np


@dataclasses.dataclass(frozen=True)
class _Images:
    """Reads images by key: SPLIT/RECORD, with /K for the K-th of several; records are counted in the whole split. ranges: (split, start, stop) of
    what is read."""

    records: Sequence[dict[str, Any]]
    ranges: tuple[tuple[str, int, int], ...]
    feature: str

    def __call__(self, key: str) -> bytes:
        split, record, *k = key.split("/")
        stored = _get(self.records[self._position(split, int(record))], self.feature)
        return stored if isinstance(stored, bytes) else stored[int(k[0])]

    def _position(self, split: str, record: int) -> int:
        before = 0
        for name, start, stop in self.ranges:
            if name == split and start <= record < stop:
                return before + record - start
            before += stop - start
        raise UserError(f"{NAME}: there is no record {split}/{record} in this source")


def build(data_dir: str | os.PathLike) -> None:
    raise UserError(f"{NAME}: prepare the data set with TensorFlow Datasets: download_and_prepare(file_format='array_record')")


@functools.lru_cache(8)
def open_source(data_dir: str | os.PathLike, split: str, view: str) -> PublishedSource:
    """split: NAME[/CONFIG][:VERSION]:SPLIT; view: which feature is what."""
    where = f"{NAME}:{split}"
    found = _SPEC.fullmatch(split)
    if not found:
        raise UserError(f"{where}: is not NAME[/CONFIG][:VERSION]:SPLIT")
    parts = _view(where, view)
    builder = _builder(where, epath.Path(data_dir) / found["name"] / (found["config"] or ""), found["version"])
    features = builder.info.features
    leaves = dict(_leaves(features))
    for part, path in parts.items():
        if path not in leaves:
            raise UserError(f"{where}: {part}={path}: no such feature{did_you_mean(path, leaves)}")
    if "image" in parts and not isinstance(leaves[parts["image"]], tfds.features.Image):
        raise UserError(f"{where}: image={parts['image']}: is not an image but {type(leaves[parts['image']]).__name__}")
    try:
        records = builder.as_data_source(found["split"], decoders=_decoders(features))
        read = tfds.core.ReadInstruction.from_spec(found["split"]).to_absolute(builder.info.splits)
    except NotImplementedError:
        raise UserError(f"{where}: is not prepared as ArrayRecord; prepare it with download_and_prepare(file_format='array_record')") from None
    except (ValueError, AssertionError) as error:
        raise UserError(f"{where}: {' '.join(str(error).split())}") from None
    ranges = tuple((r.splitname, r.from_ or 0, builder.info.splits[r.splitname].num_examples if r.to is None else r.to) for r in read)
    return _source(where, builder, found["split"], records, ranges, parts, leaves)


def _source(where: str, builder: Any, split: str, records: Sequence, ranges: tuple, parts: dict[str, str], leaves: dict[str, Any]) -> PublishedSource:
    name = "/".join(part for part in (builder.info.name, builder.info.config_name) if part)
    notes, rows = published.Notes(), []
    keys = (f"{part}/{i}" for part, start, stop in ranges for i in range(start, stop))
    for key, record in zip(keys, records, strict=True):
        notes.rows += 1
        try:
            images = _images(record, parts.get("image"), key)
            pairs = _pairs(record, parts, leaves)
            answers = [published.answer(answer) for _, answer in pairs]
            id_ = _text(_get(record, parts["id"]), leaves[parts["id"]]) if "id" in parts else key
            if not isinstance(id_, str):
                raise ValueError("its id is a sequence")
        except ValueError as error:
            notes.fault(key, error)
            continue
        for k, ((question, stored), answer) in enumerate(zip(pairs, answers)):
            full = f"{NAME}/{name}/{id_}/{k}" if len(pairs) > 1 else f"{NAME}/{name}/{id_}"
            if answer != stored:
                notes.altered[published.STRIPPED] += 1
            rows.append((published.numbered(full, notes.copy(full)), images, question, answer))
    notes.need(where, rows)
    reader = _Images(records, ranges, parts.get("image", ""))
    return PublishedSource(f"{NAME}/{name}/{split}", Lazy(len(rows), _Examples(rows)), reader, notes.faults, dict(notes.altered))


@dataclasses.dataclass(frozen=True)
class _Examples:
    """Makes examples of (id, images, question, answer)."""

    rows: list[tuple[str, tuple[str, ...], str, str]]

    def __call__(self, i: int) -> Example:
        id_, images, question, answer = self.rows[i]
        return Example(id_, images, (Turn("user", f"{IMAGE_MARK}\n" * len(images) + question), Turn("assistant", answer)))


def _view(where: str, view: str) -> dict[str, str]:
    parts = dict(part.split("=", 1) if "=" in part else (part, "") for part in view.split(","))
    for part, path in parts.items():
        if part not in PARTS or not path:
            raise UserError(f"{where}: {part!r} in its view is not PART=FEATURE with a part of {', '.join(PARTS)}")
    if {"question", "answer", "caption"} & set(parts) not in ({"question", "answer"}, {"caption"}) or "caption" in parts and "image" not in parts:
        raise UserError(f"{where}: the view {view!r} needs question= and answer=, or image= and caption=")
    return parts


def _builder(where: str, directory: epath.Path, version: str | None) -> Any:
    try:
        if version is None:
            there = [path.name for path in directory.iterdir() if re.fullmatch(r"\d+\.\d+\.\d+", path.name)]
            version = max(there, key=lambda name: tuple(map(int, name.split("."))))
        return tfds.builder_from_directory(directory / version)
    except (ValueError, OSError, tfds.core.dataset_info.DatasetInfoFileError):
        raise UserError(f"{where}: there is no prepared data set in {directory / (version or 'VERSION')}") from None


def _leaves(feature: Any, path: str = "") -> list[tuple[str, Any]]:
    """(path, feature) of what is no dict; a sequence has the path of what it repeats."""
    if isinstance(feature, tfds.features.Sequence):
        return _leaves(feature.feature, path)
    if isinstance(feature, tfds.features.FeaturesDict):
        return [leaf for name, inner in feature.items() for leaf in _leaves(inner, f"{path}/{name}" if path else name)]
    return [(path, feature)]


def _decoders(feature: Any) -> Any:
    if isinstance(feature, tfds.features.Sequence):
        return _decoders(feature.feature)
    return {name: _decoders(inner) for name, inner in feature.items()} if isinstance(feature, tfds.features.FeaturesDict) else _AsStored()


def _get(record: dict[str, Any], path: str) -> Any:
    for name in path.split("/"):
        record = record[name]
    return record


def _text(value: Any, feature: Any) -> str | list[str]:
    """What is stored, as text; a sequence as a list of texts."""
    if isinstance(value, (list, tuple, np.ndarray)) and np.ndim(value):
        texts = [_text(one, feature) for one in value]
        if not all(isinstance(one, str) for one in texts):
            raise ValueError("sequences of sequences are not read")
        return texts
    value = value.item() if isinstance(value, (np.generic, np.ndarray)) else value
    if isinstance(value, bytes):
        return value.decode()
    return feature.int2str(value) if isinstance(feature, tfds.features.ClassLabel) else str(value)


def _images(record: dict[str, Any], path: str | None, key: str) -> tuple[str, ...]:
    if path is None:
        return ()
    stored = _get(record, path)
    if isinstance(stored, bytes):
        return (key,)
    if not len(stored):
        raise ValueError("has no image")
    return tuple(f"{key}/{k}" for k in range(len(stored)))


def _pairs(record: dict[str, Any], parts: dict[str, str], leaves: dict[str, Any]) -> list[tuple[str, str]]:
    """(question, answer) of each example of a record."""
    said = {part: _text(_get(record, parts[part]), leaves[parts[part]]) for part in ("question", "answer", "caption") if part in parts}
    answers = said.get("answer", said.get("caption"))
    answers = [answers] if isinstance(answers, str) else answers
    questions = said.get("question", CAPTION_PROMPT)
    questions = [questions] * len(answers) if isinstance(questions, str) else questions
    if len(questions) != len(answers):
        raise ValueError(f"{len(questions)} questions, but {len(answers)} answers")
    if not answers:
        raise ValueError("has no answer")
    if any(IMAGE_MARK in question for question in questions):
        raise ValueError(f"a question holds {IMAGE_MARK}, the mark of an image's place")
    return list(zip(questions, answers))
