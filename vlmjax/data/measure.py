"""The table of lengths of a source under one tokenizer and template; for a built data set it is made once and kept beside its shards."""
import dataclasses
import hashlib
import io
import json

import numpy as np
from etils import epath

from vlmjax import files
from vlmjax.data.example import Source
from vlmjax.data.lengths import LengthTable
from vlmjax.data.processor import Processor
from vlmjax.errors import UserError

# Goes up when a change of conversation.py or processor.py gives the same turns other tokens.
VERSION = 1
_COLUMNS = ("head", "tail", "supervised", "images", "group")


def table(source: Source, processor: Processor, objective: str, length: int) -> LengthTable:
    """What the examples of a source cost in the rows of an objective; `length`: places of a caption's row."""
    if objective == "contrastive":
        return processor.measure_captions(source.examples, length)
    if source.part is None:
        return processor.measure(source.examples)
    path = source.part.directory / "lengths" / f"{fingerprint(processor)}.npz"
    if path.exists():
        return _part(_load(path, processor), source.part.rows)
    measured = processor.measure(source.examples)
    if len(source.examples) == source.part.total:
        _save(path, measured, processor)
    return measured


def fingerprint(processor: Processor) -> str:
    """What token counts depend on, in 16 hexadecimal digits: the tokenizer and the template, not the size of an image."""
    parts = [VERSION, processor.tokenizer.digest(), dataclasses.asdict(processor.template), processor.layout is not None]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _save(path: epath.Path, measured: LengthTable, processor: Processor) -> None:
    """Image tokens are taken out of the heads, so that one table serves every encoder."""
    columns = {name: getattr(measured, name) for name in _COLUMNS}
    columns["head"] = measured.head - measured.images * processor.tokens_per_image
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **columns, faults=np.array(list(measured.faults), np.int64), reasons=np.array(list(measured.faults.values()), str))
    try:
        files.write(path, buffer.getvalue())
    except UserError:
        pass  # a directory that is only read: the table is made again next time


def _load(path: epath.Path, processor: Processor) -> LengthTable:
    held = files.read_npz(path)
    columns = {name: held[name] for name in _COLUMNS}
    columns["head"] = held["head"] + held["images"] * processor.tokens_per_image
    return LengthTable(**columns, faults=dict(zip(held["faults"].tolist(), held["reasons"].tolist())))


def _part(whole: LengthTable, part: range) -> LengthTable:
    if len(part) == len(whole):
        return whole
    cut = {name: getattr(whole, name)[part.start : part.stop] for name in _COLUMNS}
    return LengthTable(**cut, faults={i - part.start: reason for i, reason in whole.faults.items() if i in part})
