"""What commands share: flags, JAX's settings, and the meeting of data and models."""
import argparse
import os
import re
import zlib
from collections.abc import Callable, Sequence

import jax
import numpy as np
from etils import epath

from vlmjax import hosts, pretrained, sharding
from vlmjax.data import conversation
from vlmjax.data.batch import BatchShape
from vlmjax.data.datasets import DATASETS
from vlmjax.data.example import Source
from vlmjax.data.pipeline import Pipeline
from vlmjax.data.processor import Processor
from vlmjax.data.tokenizer import Tokenizer, word_level
from vlmjax.errors import UserError, did_you_mean
from vlmjax.layout import ImageLayout
from vlmjax.train import build
from vlmjax.weights.family import CARRIED

# Counts one token per image: for tables of lengths, which leave image tokens out.
ANY_IMAGE = ImageLayout(size=1, patch=1)

FEATURES = os.path.join("~", ".cache", "vlmjax", "features")  # of stages with encode_once; ArrayRecord reads files of a disk
DATA_DIR = os.path.join("~", ".cache", "vlmjax", "data")


class Flags(argparse.ArgumentParser):
    """Flags whose mistakes are one line like every other mistake."""

    def __init__(self, command: str, about: str):
        super().__init__(prog=f"vlmjax {command}", description=about, allow_abbrev=False)

    def error(self, message: str):
        raise UserError(f"{self.prog.split()[-1]}: {message}")

    def data_dir(self) -> "Flags":
        self.add_argument("--data_dir", default=DATA_DIR, help="where data sets are built (default: %(default)s)")
        return self

    def read(self, argv: Sequence[str]) -> argparse.Namespace:
        args = self.parse_args(argv)
        if getattr(args, "data_dir", None) is not None:
            args.data_dir = expand(args.data_dir)
        return args


def expand(path: str) -> str:
    return path if "://" in path else os.path.abspath(os.path.expanduser(path))


def set_up_jax() -> hosts.Job:
    """float32 means float32, also on TPUs and GPUs; compiled programs are kept for the next start. → this process's place among those of its job."""
    jax.config.update("jax_default_matmul_precision", "highest")
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", expand(os.path.join("~", ".cache", "vlmjax", "xla")))
    return hosts.connect()


def parse_sizes(where: str, text: str, names: Sequence[str]) -> dict[str, int]:
    """`NAME:SIZE,…` with names of these → {name: size}."""
    sizes = {}
    for part in filter(None, text.split(",")):
        name, _, size = part.partition(":")
        if name not in names or not re.fullmatch(r"-?\d+", size):
            raise UserError(f"{where}: {part!r} is not NAME:SIZE with a name of {', '.join(names)}")
        sizes[name] = int(size)
    return sizes


def parse_mesh(text: str, where: str = "--mesh") -> sharding.MeshConfig:
    """`replica:1,fsdp:8,tensor:4` → MeshConfig."""
    sizes = parse_sizes(where, text, sharding.AXES)
    return sharding.MeshConfig(**sizes)


def open_source(spec: str, data_dir: str, where: str) -> Source:
    """`NAME:SPLIT:VIEW` → a source of examples."""
    name, *rest = spec.split(":")
    if name not in DATASETS:
        raise UserError(f"{where}: no data set {name!r}{did_you_mean(name, DATASETS)}")
    if len(rest) < 2:
        raise UserError(f"{where}: {spec!r} is not NAME:SPLIT:VIEW")
    return DATASETS[name].open_source(data_dir, ":".join(rest[:-1]), rest[-1])


class Sources:
    """The sources that the stages of a run name, each opened once."""

    def __init__(self, stages: dict[str, build.StageConfig], data_dir: str):
        self._open: dict[str, Source] = {}
        self.by_stage: dict[str, list[tuple[Source, float]]] = {}
        for name, config in stages.items():
            self.by_stage[name] = []
            if not config.data:
                raise UserError(f"stages.{name}.data: names no data set")
            for i, entry in enumerate(config.data):
                where = f"stages.{name}.data[{i}]"
                if not (isinstance(entry, (tuple, list)) and len(entry) == 2 and isinstance(entry[0], str) and isinstance(entry[1], (int, float)) and entry[1] > 0):
                    raise UserError(f"{where}: {entry!r} is not (NAME:SPLIT:VIEW, {'passes per epoch' if config.mixture == 'passes' else 'weight'})")
                if entry[0] not in self._open:
                    self._open[entry[0]] = open_source(entry[0], data_dir, where)
                self.by_stage[name].append((self._open[entry[0]], float(entry[1])))

    def texts(self) -> list[str]:
        return [turn.text for source in self._open.values() for example in source.examples for turn in example.turns]


def tokenizer(spec: str, sources: Sources | None) -> Tokenizer:
    """`words`: the words of the run's own training texts; otherwise a checkpoint whose tokenizer it is, or a tokenizer.json."""
    if spec == "words" and sources:
        return word_level(sources.texts())
    return Tokenizer.load(expand(spec)) if spec.endswith(".json") else pretrained.find(spec).tokenizer()


def parameter_sources(checkpoints: dict[str, pretrained.Checkpoint]) -> dict[str, Callable]:
    """{component: reads its parameters from the checkpoint that its `weights` name}. A text tower brings its contrast head."""
    def reader(checkpoint, name):
        return lambda: {path: leaf for path, leaf in checkpoint.arrays().items() if path.startswith(f"{name}/")}

    sources = {name: reader(checkpoint, name) for name, checkpoint in checkpoints.items()}
    return sources | ({"contrast_head": reader(checkpoints["text_tower"], "contrast_head")} if "text_tower" in checkpoints else {})


def carried(checkpoints: dict[str, pretrained.Checkpoint], used: Sequence[str]) -> dict[str, np.ndarray]:
    """What the encoder's checkpoint holds beside the components of this run, kept for its export: the norm after a tower's last block."""
    if "encoder" not in checkpoints or "contrast_head" in used:
        return {}
    arrays, norm = checkpoints["encoder"].arrays(), "contrast_head/vision_norm/"
    return {path.replace(norm, f"{CARRIED}vision_norm/"): np.asarray(leaf) for path, leaf in arrays.items() if path.startswith((CARRIED, norm))}


def template(name: str, tokenizer: str) -> conversation.Template:
    """By name; `checkpoint`: the chat template of the checkpoint whose tokenizer the run has."""
    if name == "checkpoint":
        found = None if tokenizer == "words" or tokenizer.endswith(".json") else pretrained.find(tokenizer).chat_template()
        if found is None:
            raise UserError(f"template: {name}: {tokenizer} has no chat template; name one of {', '.join(conversation.TEMPLATES)}")
        return found
    if name not in conversation.TEMPLATES:
        raise UserError(f"template: {name!r} is not known{did_you_mean(name, conversation.TEMPLATES)}")
    return conversation.TEMPLATES[name]


def layout(encoder: object | None, projector: object | None, resize: str, tiles: int = 1) -> ImageLayout | None:
    """The image treatment that a stage and the configs of an encoder and a projector ask for."""
    return ImageLayout(encoder.size, encoder.patch, resize, encoder.mean, encoder.std, tiles=tiles, **(projector.places(encoder) if projector else {})) if encoder else None


def pipeline(name: str, config: build.StageConfig, sources: list[tuple[Source, float]], processor: Processor, shape: BatchShape, seed: int, workers: int) -> Pipeline:
    """Two stages over one source see it in different orders. What cannot be used is left out, and preflight decides whether that is too much."""
    return Pipeline(sources, processor, config.objective, shape, seed + zlib.crc32(name.encode()), config.per_group, 1.0, config.weighting, workers, config.mixture)


def run_directory(path: str) -> epath.Path:
    return epath.Path(expand(path))
