"""A run's config → everything the run is made of, before anything is trained: what `train` and `preflight` share."""
import dataclasses
import functools
from typing import Any

import jax
from flax import linen as nn

from vlmjax import pretrained, sharding
from vlmjax.commands import common
from vlmjax.commands.evaluate import EvaluateConfig
from vlmjax.data.conversation import Template
from vlmjax.data.pipeline import Pipeline
from vlmjax.data.preflight import PreflightConfig
from vlmjax.data.processor import Processor
from vlmjax.data.tokenizer import Tokenizer
from vlmjax.errors import UserError, at_least, did_you_mean
from vlmjax.evaluate.tasks import TASKS
from vlmjax.layout import ImageLayout
from vlmjax.train import build, loop, metrics


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """The keys of a config file; what is inside each group is said by its own room. added_tokens: special tokens that the run adds to its tokenizer; their
    rows, decoder/added_embed and decoder/added_head, learn by rules of their own. prefetch: batches made ahead, 0 for none; workers: threads that make them."""

    run: tuple[str, ...]
    stages: dict[str, build.StageConfig]
    model: build.ModelConfig
    tokenizer: str
    template: str
    added_tokens: tuple[str, ...] = ()
    seed: int = 0
    precision: build.Precision = build.Precision()
    compile: build.CompileConfig = build.CompileConfig()
    mesh: sharding.MeshConfig = sharding.MeshConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    checkpoint: loop.CheckpointConfig = loop.CheckpointConfig()
    logging: metrics.LoggingConfig = metrics.LoggingConfig()
    preflight: PreflightConfig = PreflightConfig()
    prefetch: int = 2
    workers: int = 1
    expected_seconds: int = 0

    def __post_init__(self):
        at_least("", self, prefetch=0, workers=1)
        if not self.run:
            raise UserError("run: names no stage")
        for name in self.run:
            if name not in self.stages:
                raise UserError(f"run: no stage {name!r}{did_you_mean(name, self.stages)}")
        if len(set(self.run)) < len(self.run):
            raise UserError("run: a stage is named twice")
        for name, tasks in self.evaluate.after.items():
            if name not in self.stages:
                raise UserError(f"evaluate.after.{name}: no such stage{did_you_mean(name, self.stages)}")
            for task in tasks:
                if task not in TASKS:
                    raise UserError(f"evaluate.after.{name}: no task {task!r}{did_you_mean(task, TASKS)}")


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What a run is made of. answering: the mesh that evaluations run on. templates, layouts, data: by stage. The pipelines leave out what cannot be used, whatever its
    share: preflight decides on it."""

    config: RunConfig
    mesh: jax.sharding.Mesh
    answering: jax.sharding.Mesh
    sources: common.Sources
    tokenizer: Tokenizer
    checkpoints: dict[str, pretrained.Checkpoint]
    modules: dict[str, nn.Module]
    templates: dict[str, Template]
    layouts: dict[str, ImageLayout | None]
    data: dict[str, Pipeline]

    @property
    def sizes(self) -> tuple[Any, Any]:
        """The configs of encoder and projector, None where there is none."""
        return tuple(self.modules[name].config if name in self.modules else None for name in ("encoder", "projector"))

    @functools.cached_property
    def stages(self) -> dict[str, build.Stage]:
        """Counting steps plans every epoch, so this is asked for when the data is known to be good."""
        out = {}
        for name in self.config.run:
            stage = self.config.stages[name]
            out[name] = build.stage(name, stage, self.modules, self.config.precision, self.mesh, stage.steps or self.data[name].steps(stage.epochs), self.config.seed)
        return out


def prepare(config: RunConfig, data_dir: str) -> Prepared:
    mesh = sharding.make_mesh(config.mesh)
    answering = sharding.make_mesh(common.parse_mesh(config.evaluate.mesh, "evaluate.mesh"), where="evaluate.mesh") if config.evaluate.mesh else mesh
    sources = common.Sources({name: config.stages[name] for name in config.run}, data_dir)
    known = common.tokenizer(config.tokenizer, sources)
    tokenizer = known.with_tokens(config.added_tokens) if config.added_tokens else known
    templates = {name: common.template(config.stages[name].template or config.template, config.tokenizer) for name in config.run}
    checkpoints = {name: pretrained.find(part.weights) for name, part in vars(config.model).items() if part and part.weights}
    modules = build.modules(config.model, tokenizer.vocabulary, config.precision.compute, config.compile, {name: c.sizes for name, c in checkpoints.items()},
                            (known.vocabulary, len(config.added_tokens)) if config.added_tokens else None)
    made = Prepared(config, mesh, answering, sources, tokenizer, checkpoints, modules, templates, {}, {})
    encoder, projector = made.sizes
    for name in config.run:
        stage = config.stages[name]
        stage.check(f"stages.{name}", mesh)
        made.layouts[name] = common.layout(encoder if stage.images else None, projector, stage.resize, stage.tiles)
        processor = Processor(tokenizer, templates[name], made.layouts[name])
        made.data[name] = common.pipeline(name, stage, sources.by_stage[name], processor, build.batch_shape(stage, encoder), config.seed, config.workers)
    return made
