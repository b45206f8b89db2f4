"""The truth of every parameter: the masters of the last stage that trained it, or its source if none has.

A stage, an evaluation and an export all start from here and read from disk, so a run that was interrupted and one that was
not go the same way.
"""
import dataclasses
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh

from vlmjax import param_rules, sharding, stacks
from vlmjax.errors import UserError
from vlmjax.models import init_params, lora, param_shapes
from vlmjax.train import once
from vlmjax.train.build import Stage
from vlmjax.train.checkpoint import Checkpoints


# Leaves of added tokens: the table they extend, and the axis of its tokens.
ADDED = {"decoder/added_embed": ("decoder/embed", 0), "decoder/added_head": ("decoder/head", 1)}

# Of a Q-Former, what leads to the language model: a checkpoint with one of another kind is read without it (weights/blip2.py).
LEADS = "projector/linear_0/"


@dataclasses.dataclass(frozen=True)
class Truth:
    """`modules`: every component of the model, whole. `stages`: the run's stages in order. `sources`: {component: reads the checkpoint it
    starts from, {path by layer: array}}; the others start at random."""

    workdir: epath.PathLike
    modules: Mapping[str, nn.Module]
    stages: Mapping[str, Stage]
    seed: int
    mesh: Mesh
    sources: Mapping[str, Callable[[], Mapping[str, Any]]] = dataclasses.field(default_factory=dict)

    def owners(self, components: Iterable[str], finished: Iterable[str]) -> dict[str, str]:
        """{path by layer: the finished stage that holds its truth, or `init`} for all parameters of these components."""
        out = {path: "init" for name in components for path in stacks.expand(_abstract(self.modules[name], name))}
        for name, stage in self.stages.items():
            if name in set(finished):
                out.update({path: name for path, label in stage.labels.items() if label.trainable and path in out})
        return out

    def load(self, components: Iterable[str], finished: Iterable[str]) -> dict[str, Any]:
        """{path by layer: leaf}: what a stage trained and what is random in float32 on the mesh, or as views where that is this process's memory; of a checkpoint,
        views of its file, in its own type: each device then reads its part (`stacks.place`), and no process holds the whole."""
        owners = self.owners(components, finished)
        leaves = {}
        for name in sorted({path.split("/")[0] for path, owner in owners.items() if owner == "init"}):
            leaves.update(self._initial(name))
        for name in dict.fromkeys(owner for owner in owners.values() if owner != "init"):
            checkpoints = Checkpoints(self.workdir, name)
            trained = _expand(checkpoints.restore_params(self.stages[name].abstract.learned))
            checkpoints.close()
            leaves.update({path: leaf for path, leaf in trained.items() if owners.get(path) == name})
        return {path: leaves[path] for path in owners}

    def _initial(self, name: str) -> dict[str, Any]:
        """A component as it begins: its checkpoint, or a pure function of (seed, name), the same on every mesh. Adapters, added
        tokens and the map to another language model that the checkpoint lacks are new."""
        like = stacks.expand(_abstract(self.modules[name], name))
        if name not in self.sources:
            return self._random(name, like)
        read = self.sources[name]()
        new = {path: leaf for path, leaf in like.items() if (lora.is_adapter(path) or path in ADDED or path.startswith(LEADS)) and path not in read}
        stored = {path: leaf for path, leaf in like.items() if path not in new}
        if wrong := [path for path, leaf in stored.items() if path not in read or read[path].shape != leaf.shape]:
            raise UserError(f"model.{name}.weights: {wrong[0]} is not there in the shape {list(like[wrong[0]].shape)} that the config asks for")
        # Rows of added tokens begin as the mean row, as LLaVA's do (llava/model/llava_arch.py: initialize_vision_tokenizer).
        means = {path: np.repeat(np.asarray(read[table]).mean(axis, np.float64, keepdims=True).astype(np.float32), like[path].shape[axis], axis)
                 for path, (table, axis) in ADDED.items() if path in new}
        random = {path: leaf for path, leaf in new.items() if path not in means}
        return {path: read[path] for path in stored} | means | (self._random(name, random) if random else {})

    def _random(self, name: str, like: Mapping[str, Any]) -> dict[str, Any]:
        """These leaves of a component, {path by layer: abstract}; the others are not computed."""
        module, key = self.modules[name], jax.random.fold_in(jax.random.key(self.seed), zlib.crc32(name.encode()))

        def draw(key):
            flat = stacks.expand(param_rules.flatten({name: init_params(module, key)}))
            return {path: flat[path] for path in like}

        return {path: stacks.host_view(leaf) for path, leaf in once.run(draw, key, out_shardings=sharding.parameters(like, self.mesh)).items()}


def _expand(flat: Mapping[str, jax.Array]) -> dict[str, Any]:
    """`stacks.expand`: of leaves that lie in this process's memory without a program."""
    seen = {path: stacks.host_view(leaf) for path, leaf in flat.items()}
    away = {path: leaf for path, leaf in seen.items() if isinstance(leaf, jax.Array)}
    return stacks.expand({path: leaf for path, leaf in seen.items() if path not in away}) | (once.run(stacks.expand, away) if away else {})


def _abstract(module: nn.Module, name: str) -> dict[str, Any]:
    return param_rules.flatten({name: param_shapes(module)})
