"""A model small enough to compile in a second, and data that is a function of the step, for tests of the train room."""
import dataclasses

import jax
import numpy as np

from vlmjax import optim, sharding
from vlmjax.data import batch as batches
from vlmjax.models import clip, decoder, projector, qformer, vit
from vlmjax.train import build, loop, metrics
from vlmjax.train.checkpoint import Checkpoints
from vlmjax.train.quarantine import Quarantine
from vlmjax.train.truth import Truth

vit.VARIANTS["test"] = vit.ViTConfig(size=16, patch=8, width=16, layers=3, heads=2, mlp=32)
decoder.VARIANTS["test"] = decoder.DecoderConfig(vocab=48, width=16, layers=2, heads=2, kv_heads=2, head_dim=8, mlp=32, tied=True)
clip.VARIANTS["test"] = clip.TextConfig(vocab=48, length=8, width=16, layers=1, heads=2, mlp=32, joint=16)
projector.VARIANTS["test-qformer"] = qformer.QFormerConfig(queries=3, width=24, layers=4, heads=2, mlp=40)
MODEL = build.ModelConfig(decoder=build.Component("test"), encoder=build.Component("test"), projector=build.Component("mlp2x"), text_tower=build.Component("test"))
ALIGN = (("projector/.*", True), (".*", False))


def modules(compute="float32", **more):
    """more: components in place of those of MODEL."""
    return build.modules(dataclasses.replace(MODEL, **more), 48, compute)


def config(trainable=ALIGN, objective="next_token", steps=5, images=1, batch=8, **more):
    optimizer = optim.OptimizerConfig(lr=1e-2, decay=0.1, clip=1.0, **more.pop("optimizer", {}))
    return build.StageConfig(objective=objective, trainable=trainable, data=(), batch=batch, length=more.pop("length", 8 if objective == "contrastive" else 12),
                             images=images, targets=more.pop("targets", 4), steps=steps, optimizer=optimizer, **more)


def stage(name="align", mesh=None, precision=build.Precision(compute="float32"), parts=None, seed=0, **kwargs):
    settings = config(**kwargs)
    return build.stage(name, settings, parts or modules(), precision, mesh or one_device(), settings.steps, seed)


def one_device():
    return sharding.make_mesh(sharding.MeshConfig(), jax.devices()[:1])


@dataclasses.dataclass
class FakeData:
    """Step s has the batch of seed s; `spoil(step, batch)` may damage it. broken: {step: its faults}."""

    stage: build.Stage
    spoil: object = None
    broken: dict = dataclasses.field(default_factory=dict)
    total: int = 1000

    def batch(self, step):
        vit_config = vit.VARIANTS["test"]
        out = batches.fake(self.stage.config.objective, self.stage.shape, 48, vit_config.tokens_per_image, seed=step)
        if self.spoil:
            self.spoil(step, out)
        return out

    def ids(self, step):
        return [[f"fake/{step}/{row}"] for row in range(self.stage.shape.rows)]

    def digest(self, step):
        return step

    def examples(self, step):
        return self.stage.shape.rows

    def supervised(self, step):
        return self.stage.shape.rows * self.stage.shape.targets

    def faults(self, step):
        return self.broken.get(step, [])

    def iterator(self, start, stop, prefetch, rows=None):
        return FakeIterator(self, start)


class FakeIterator:
    def __init__(self, data, step):
        self.data, self.step = data, step

    def __next__(self):
        self.step += 1
        return self.data.batch(self.step - 1)

    def get_state(self):
        return {"next": self.step}

    def set_state(self, state):
        self.step = state["next"]


_initial = {}  # {(component, mesh): its parameters}: drawing them takes a second, and nothing changes them


def truth(stage):
    """Whatever the modules compute in, parameters are float32."""
    out = {}
    for name in stage.components:
        if (name, stage.mesh) not in _initial:
            _initial[name, stage.mesh] = Truth("unused", modules(), {}, 0, stage.mesh).load((name,), ())
        out.update(_initial[name, stage.mesh])
    return out


def run(stage, workdir, data=None, compiled=None, every=100, start=None, checkpoints=None, stops=lambda: "", about={}, **log):
    """The loop with its writers in `workdir`. about: more for its checkpoints; log: keys of its LoggingConfig."""
    logging = metrics.LoggingConfig(**{"every": 2, "tensorboard": False, **log})
    return loop.run(stage, start if start is not None else truth(stage), data or FakeData(stage), checkpoints or Checkpoints(workdir, stage.name),
                    metrics.Writer(workdir, stage.name, logging), Quarantine(workdir, stage.name), {"fingerprint": "f", **about}, logging, loop.CheckpointConfig(every=every), 0, compiled, stops)


def leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
