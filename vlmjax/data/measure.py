"""The table of lengths of a source under one tokenizer and template; for a built data set it is made once and kept beside its shards."""
import dataclasses
import hashlib
import io
import json

import numpy as np
from etils import epath

from vlmjax import files
from vlmjax.data.example import Source
from vlmjax.data.lengths import COLUMNS, LengthTable
from vlmjax.data.processor import Processor
from vlmjax.data.tiles import Tiles
from vlmjax.errors import UserError

# Goes up when a change of conversation.py or processor.py gives the same turns other tokens.
VERSION = 1
SHOWN = "images.npz"  # images: of each example; shown: which of the set's they are, one after the other


def table(source: Source, processor: Processor, objective: str, length: int, tiles: Tiles | None = None) -> LengthTable:
    """What the examples of a source cost in the rows of an objective; `length`: places of a caption's row. tiles: of the source's images."""
    if objective == "contrastive":
        return processor.measure_captions(source.examples, length)
    measured = _whole_images(source, processor)
    return measured if tiles is None else processor.cut(measured, _tiles(source, tiles))


def _whole_images(source: Source, processor: Processor) -> LengthTable:
    """The table when nothing is cut."""
    if source.part is None:
        return processor.measure(source.examples)
    path = source.part.directory / "lengths" / f"{fingerprint(processor)}.npz"
    if path.exists():
        return _part(_load(path, processor), source.part.rows)
    measured = processor.measure(source.examples)
    if len(source.examples) == source.part.total:
        _save(path, measured, processor)
    return measured


def _tiles(source: Source, tiles: Tiles) -> np.ndarray:
    """How many tiles the images of each example have together, i32[N]. Which images these are is kept beside the lengths, so that no example is read for it."""
    path = source.part.directory / "lengths" / SHOWN if source.part else None
    rows = range(len(source.examples))
    if path and path.exists():
        held, rows = files.read_npz(path), source.part.rows
        images, shown = held["images"], held["shown"]
    else:
        keys = [example.images for example in source.examples]
        images, shown = np.array(list(map(len, keys)), np.int32), np.array([tiles.place[key] for own in keys for key in own], np.int32)
        if path and len(rows) == source.part.total:
            _write(path, images=images, shown=shown)
    sums, ends = (np.concatenate([[0], np.cumsum(values)]) for values in (tiles.counts[shown], images))
    return np.diff(sums[ends]).astype(np.int32)[rows.start : rows.stop]


def fingerprint(processor: Processor) -> str:
    """What token counts depend on, in 16 hexadecimal digits: the tokenizer and the template, not the size of an image or its tiles."""
    parts = [VERSION, processor.tokenizer.digest(), dataclasses.asdict(processor.template), processor.layout is not None]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _save(path: epath.Path, measured: LengthTable, processor: Processor) -> None:
    """Image tokens are taken out of the heads, so that one table serves every encoder."""
    columns = {name: getattr(measured, name) for name in COLUMNS}
    columns["head"] = measured.head - measured.images * processor.tokens_per_image
    _write(path, **columns, faults=np.array(list(measured.faults), np.int64), reasons=np.array(list(measured.faults.values()), str))


def _write(path: epath.Path, **columns: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **columns)
    try:
        files.write(path, buffer.getvalue())
    except UserError:
        pass  # a directory that is only read: the table is made again next time


def _load(path: epath.Path, processor: Processor) -> LengthTable:
    held = files.read_npz(path)
    columns = {name: held[name] for name in COLUMNS}
    columns["head"] = held["head"] + held["images"] * processor.tokens_per_image
    return LengthTable(**columns, faults=dict(zip(held["faults"].tolist(), held["reasons"].tolist())))


def _part(whole: LengthTable, part: range) -> LengthTable:
    if len(part) == len(whole):
        return whole
    cut = {name: getattr(whole, name)[part.start : part.stop] for name in COLUMNS}
    return LengthTable(**cut, faults={i - part.start: reason for i, reason in whole.faults.items() if i in part})
