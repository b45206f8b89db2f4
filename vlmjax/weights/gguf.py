"""GGUF, llama.cpp's format of one file: metadata (sizes, vocabulary) and tensors, quantised or not.

The layout is read here (ggml/docs/gguf.md), because the package's own reader trusts every length in the file and takes seconds for a
vocabulary; the package undoes the quantisation.
"""
import dataclasses
import functools
import math
import struct
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
from etils import epath
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize

from vlmjax.errors import UserError, did_you_mean
from vlmjax.weights import store
from vlmjax.weights.family import Config
from vlmjax.weights.table import Deferred

SUFFIX, MAGIC = ".gguf", b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = 32
ARCHITECTURES = ("llama", "qwen2")
_STRING, _ARRAY = 8, 9
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}  # gguf_metadata_value_type → struct
_PLAIN = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
_QUANTISED = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS")
# Keys under the architecture's name that say nothing about the computation, or that `config` reads.
_KNOWN = ("vocab_size", "context_length", "block_count", "embedding_length", "feed_forward_length", "attention.head_count", "attention.head_count_kv", "attention.key_length",
          "attention.value_length", "attention.layer_norm_rms_epsilon", "rope.freq_base", "rope.dimension_count", "tensor_data_layout")
# Those that may stand there with the value that changes nothing.
_ONLY = {"rope.scaling.type": "none", "rope.scaling.factor": 1.0, "rope.scale_linear": 1.0, "expert_count": 0, "expert_used_count": 0, "attention.causal": True,
         "attention.sliding_window": 0}
_OF_SCALING = ("rope.scaling.original_context_length", "rope.scaling.finetuned")  # of the scaling that `type` says there is none of


@dataclasses.dataclass(frozen=True)
class File:
    """metadata: {key: int, float, bool, str, or a list of one of them}. tensors: {name: view of the file, or Deferred f32 if it is quantised}, in
    numpy's order of axes (the file has the last one first)."""

    path: epath.Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, np.ndarray | Deferred]


def claims(path: epath.Path) -> bool:
    """Is it, by its name or its first bytes, a GGUF file?"""
    if path.suffix == SUFFIX:
        return not path.is_dir()
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read(path: epath.Path) -> File:
    """A GGUF file of version 2 or 3; no tensor is read yet. UserError for anything that is not one, or not all of one."""
    if not path.exists():
        raise UserError(f"{path}: there is no such file")
    if path.stat().length < len(MAGIC) or (data := store.view(path))[: len(MAGIC)].tobytes() != MAGIC:
        raise UserError(f"{path}: is not a GGUF file, it does not begin with {MAGIC.decode()}")
    reader = _Reader(data, str(path))
    reader.take(len(MAGIC))
    if (version := reader.number("I")) not in VERSIONS:
        hint = "it is big-endian" if version >> 24 in VERSIONS else "write it anew with a current llama.cpp" if version < min(VERSIONS) else "it is newer, or damaged"
        raise UserError(f"{path}: is GGUF of version {version}, and vlmjax reads {' and '.join(map(str, VERSIONS))}: {hint}")
    tensors, keys = reader.number("Q"), reader.number("Q")
    metadata: dict[str, Any] = {}
    for _ in range(keys):
        key = reader.name()
        metadata[key] = reader.value(reader.number("I"), key)
    infos = {}
    for _ in range(tensors):
        name = reader.name()
        if name in infos:
            raise UserError(f"{path}: has two tensors {name!r}")
        axes = reader.number("I")
        infos[name] = (tuple(reader.number("Q") for _ in range(axes))[::-1] if axes <= 4 else None, reader.number("I"), reader.number("Q"))
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 8 or alignment % 8:
        raise UserError(f"{path}: general.alignment is {alignment!r}, not a multiple of 8")
    start = -(-reader.at // alignment) * alignment
    return File(path, metadata, {name: _tensor(data, start, name, *info, str(path)) for name, info in infos.items()})


def _tensor(data: np.ndarray, start: int, name: str, shape: tuple[int, ...] | None, kind: int, offset: int, where: str) -> np.ndarray | Deferred:
    """One tensor; start: where the file's data begin; offset: from there."""
    known = {GGMLQuantizationType[kind].value: kind for kind in (*_PLAIN, *_QUANTISED)}
    if kind not in known:
        names = {t.value: t.name for t in GGMLQuantizationType}
        raise UserError(f"{where}: {name} is quantised as {names.get(kind, f'type {kind}')}, and vlmjax reads {', '.join(known.values())}")
    block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    if not shape or shape[-1] % block:
        raise UserError(f"{where}: {name} has the shape {list(shape or ())}, which does not make {known[kind]}, in blocks of {block}")
    begin, count = start + offset, math.prod(shape)  # Python's integers: no length in the file can make them wrap around
    end = begin + count // block * size
    if end > data.size:
        raise UserError(f"{where}: {name} ends at byte {end}, and the file has {data.size}; was it copied completely?")
    own = data[begin:end]
    if known[kind] in _PLAIN:
        return np.frombuffer(own, _PLAIN[known[kind]]).reshape(shape)
    rows = own.reshape(*shape[:-1], shape[-1] // block * size)
    return Deferred(shape, functools.partial(dequantize, rows, GGMLQuantizationType(kind)))


class _Reader:
    """Goes forward through a file's header. Every length is checked against the bytes that are left."""

    def __init__(self, data: np.ndarray, where: str):
        self.data, self.where, self.at = memoryview(data), where, 0

    def take(self, size: int) -> memoryview:
        if size > len(self.data) - self.at:
            raise UserError(f"{self.where}: the file ends inside its header ({len(self.data)} bytes); was it copied completely?")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, kind: str) -> Any:
        return struct.unpack("<" + kind, self.take(struct.calcsize("<" + kind)))[0]

    def text(self) -> str:
        try:
            return str(self.take(self.number("Q")), "utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{self.where}: holds a text that is not UTF-8, before byte {self.at}: {error.reason}; is the file damaged?") from None

    def name(self) -> str:
        """A text that can stand in a message of one line."""
        found = self.text()
        if not found.isprintable() or len(found) > 200:
            raise UserError(f"{self.where}: holds {found[:20]!r} for a name, before byte {self.at}; is the file damaged?")
        return found

    def value(self, kind: int, key: str) -> Any:
        if kind == _STRING:
            return self.text()
        if kind in _NUMBERS:
            return self.number(_NUMBERS[kind])
        if kind != _ARRAY:
            raise UserError(f"{self.where}: {key} has the type {kind}, which is not one of GGUF's; is the file damaged?")
        kind, count = self.number("I"), self.number("Q")
        if kind == _STRING:
            if count * 8 > len(self.data) - self.at:  # each has a length of 8 bytes
                self.take(count * 8)
            return [self.text() for _ in range(count)]
        if kind not in _NUMBERS:
            raise UserError(f"{self.where}: {key} is an array of type {kind}, which vlmjax does not read")
        dtype = np.dtype("<" + _NUMBERS[kind])
        return np.frombuffer(self.take(count * dtype.itemsize), dtype).tolist()


def config(file: File) -> dict[str, Any]:
    """The file's sizes as its config.json would say them (transformers' keys). UserError for what is missing and for what vlmjax does not compute."""
    where, tensors = str(file.path), file.tensors
    top = Config(file.metadata, where)
    name = top("general.architecture")
    if name not in ARCHITECTURES:
        raise UserError(f"{where}: its architecture {repr(name)[:60]} is not known; known: {', '.join(ARCHITECTURES)}{did_you_mean(str(name)[:60], ARCHITECTURES)}")
    if (parts := file.metadata.get("split.count", 1)) not in (0, 1):
        raise UserError(f"{where}: is one of {parts} parts of a model; join them with llama-gguf-split --merge")
    only = {"general.type": "model", **{f"{name}.{key}": value for key, value in _ONLY.items()}}
    for key, value in file.metadata.items():
        if key in only and value != only[key]:
            raise UserError(f"{where}: {key} is {repr(value)[:60]}, and vlmjax computes only {only[key]!r}")
        own = key.removeprefix(f"{name}.")
        if own != key and own not in (*_KNOWN, *_ONLY, *_OF_SCALING):
            raise UserError(f"{where}: {key} is {repr(value)[:60]}, which vlmjax does not know and which may change what the model computes")

    def count(key: str, default: int | None = None) -> int:
        value = file.metadata.get(f"{name}.{key}", default) if default is not None else top(f"{name}.{key}")
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f"{where}: {name}.{key} is {repr(value)[:60]}, not a positive whole number for all layers")
        return value

    def real(key: str, default: float | None = None) -> float:
        value = file.metadata.get(f"{name}.{key}", default) if default is not None else top(f"{name}.{key}")
        if not isinstance(value, (int, float)) or not 0 < value < math.inf:
            raise UserError(f"{where}: {name}.{key} is {repr(value)[:60]}, not a positive number")
        return float(str(np.float32(value)))  # the file has float32: 1e-5 there is 1e-5, not 9.999999747378752e-06

    if "rope_freqs.weight" in tensors:
        raise UserError(f"{where}: rope_freqs.weight scales the rotary angles by frequency (Llama 3.1 and later), which vlmjax does not compute")
    if (embed := tensors.get("token_embd.weight")) is None or embed.ndim != 2:
        raise UserError(f"{where}: holds no token_embd.weight with two axes{did_you_mean('token_embd.weight', tensors)}")
    vocabulary, layers, width, heads = embed.shape[0], count("block_count"), count("embedding_length"), count("attention.head_count")
    # Before anything is built of these numbers.
    if (held := len({part[1] for tensor in tensors if len(part := tensor.split(".")) > 2 and part[0] == "blk"})) != layers:
        raise UserError(f"{where}: {name}.block_count is {layers}, and the file holds {held} blocks; was it copied completely?")
    kv_heads, head = count("attention.head_count_kv", heads), count("attention.key_length", max(width // heads, 1))
    for key, value, want in (("rope.dimension_count", head, head), ("attention.value_length", head, head), ("vocab_size", vocabulary, vocabulary)):
        if (value := count(key, value)) != want:
            raise UserError(f"{where}: {name}.{key} is {value}, and vlmjax computes only {want} beside the other sizes")
    if heads % kv_heads or head % 2 or (f"{name}.attention.key_length" not in file.metadata and width % heads):
        raise UserError(f"{where}: {heads} heads, {kv_heads} of keys, and a width of {width} (heads of {head}) do not fit together")
    if isinstance(tokens := file.metadata.get("tokenizer.ggml.tokens"), list) and len(tokens) > vocabulary:
        raise UserError(f"{where}: tokenizer.ggml.tokens has {len(tokens)} tokens, and token_embd.weight {vocabulary} rows")
    return {"model_type": name, "vocab_size": vocabulary, "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
            "head_dim": head, "intermediate_size": count("feed_forward_length"), "rms_norm_eps": real("attention.layer_norm_rms_epsilon"), "hidden_act": "silu",
            "tie_word_embeddings": "output.weight" not in tensors, "rope_parameters": {"rope_type": "default", "rope_theta": real("rope.freq_base", 1e4)}}
