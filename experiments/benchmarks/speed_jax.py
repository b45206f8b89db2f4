"""Our side of speed.py, and what both sides read: `speed_jax.py DIRECTORY prepare`, `speed_jax.py DIRECTORY CELL`."""
import dataclasses
import json
import pathlib
import resource
import sys
import time

import speed
from vlmjax.__main__ import keep_freed_memory

keep_freed_memory()  # as every command of ours does, before imports of weight

import jax
import jax.numpy as jnp
import numpy as np
import optax

import vlmjax
from vlmjax import bundle, export, optim, param_rules, pretrained, sharding, stacks
from vlmjax.commands import common
from vlmjax.data import batch as batches
from vlmjax.data.conversation import RAW
from vlmjax.data.tokenizer import word_level
from vlmjax.layout import ImageLayout
from vlmjax.models import init_params, projector
from vlmjax.models.decoder import DecoderConfig
from vlmjax.models.patch_embed import normalise
from vlmjax.models.vit import ViTConfig
from vlmjax.train import build, loop, record
from vlmjax.train.truth import Truth
from vlmjax.weights import FAMILIES
from vlmjax.weights.family import CARRIED

BETA = 0.9


def prepare(directory: pathlib.Path, case: dict) -> None:
    """Writes the model and the batches, and prints the commit."""
    sizes = {"encoder": ViTConfig(**case["encoder"]), "decoder": DecoderConfig(**case["decoder"]), "projector": projector.VARIANTS["mlp2x"]}
    parts, flat = pretrained.modules(sizes, jnp.float32, "speed"), {}
    for i, (name, module) in enumerate(parts.items()):
        flat |= param_rules.flatten({name: jax.jit(lambda key, module=module: init_params(module, key))(jax.random.key(i))})
    encoder = sizes["encoder"]
    norm = {f"{CARRIED}vision_norm/{leaf}": np.full(encoder.width, value, np.float32) for leaf, value in (("scale", 1), ("bias", 0))}
    made = bundle.make(parts, stacks.expand(flat), word_level(["a model without words"]), RAW, ImageLayout(encoder.size, encoder.patch))
    export.write(dataclasses.replace(made, carried=norm), directory / "model", "llava")
    image = json.loads((directory / "model" / "config.json").read_text())["image_token_index"]
    for name, (_, rows, _) in speed.CELLS.items():
        training = not isinstance(rows, int)
        shape = batches.BatchShape(case["rows"], case["length"], 1, case["targets"], encoder.size) if training else batches.BatchShape(rows, case["prompt"], 1, 1, encoder.size)
        batch = batches.fake("next_token", shape, sizes["decoder"].vocab, encoder.tokens_per_image)
        # No text token may look like an image to the other side.
        batch["tokens"] = np.where(batch["tokens"] <= image, image + 1, batch["tokens"])
        last = shape.length - 1
        batch["target_positions"][:] = np.arange(last - shape.targets, last) if training else last
        batch["targets"][:] = np.take_along_axis(batch["tokens"], batch["target_positions"] + 1, axis=1) if training else 0
        batch["weights"][:] = 1
        pixels = normalise(jnp.asarray(batch["pixels"][:, 0]), encoder.mean, encoder.std)
        np.savez(directory / f"{name}.npz", ids=np.where(batch["image_slots"] >= 0, image, batch["tokens"]).astype(np.int64), pixel_values=np.moveaxis(np.asarray(pixels, np.float32), -1, 1),
                 **{f"batch/{key}": value for key, value in batch.items()})
    print(json.dumps({"commit": record.git_commit() or "unknown"}))


class Training:
    """The step of a stage, as `vlmjax train` makes it with every layer unrolled."""

    def __init__(self, directory: pathlib.Path, name: str, case: dict, batch: dict):
        model = str(directory / "model")
        checkpoints = dict.fromkeys(("encoder", "projector", "decoder"), pretrained.find(model))
        config = build.ModelConfig(**{part: build.Component(weights=model) for part in checkpoints})
        vocabulary = case["decoder"]["vocab"]
        modules = build.modules(config, vocabulary, "float32", build.CompileConfig(unroll=0), {part: checkpoint.sizes for part, checkpoint in checkpoints.items()})
        learns = speed.CELLS[name][1]
        settings = build.StageConfig("next_token", (*((f"{part}/.*", part in learns) for part in checkpoints),), (), case["rows"], case["length"], targets=case["targets"], steps=1000,
                                     optimizer=optim.OptimizerConfig(lr=speed.LEARNING_RATE, schedule="constant", warmup=0.0, betas=(BETA, 0.999)))
        mesh = sharding.make_mesh(sharding.MeshConfig())
        stage = build.stage(name, settings, modules, build.Precision(compute="float32"), mesh, settings.steps)
        truth = Truth(directory, modules, {name: stage}, 0, mesh, common.parameter_sources(checkpoints)).load(stage.components, ())
        held = loop.start_state(stage, truth)
        self._learned, self._frozen, self._step = held.learned, held.frozen, stage.compile()
        self._batch = jax.device_put(batch, sharding.batch(mesh))
        out = {"loss": np.asarray(self._once()["loss"])}
        # After one step the first moment is (1 − β₁) times the gradient: what is compared comes out of the program that is timed.
        moment = stacks.expand(param_rules.flatten(optax.tree.get(self._learned.opt_state, "mu")))
        names = FAMILIES["llava"].write({path: np.asarray(leaf) / (1 - BETA) for path, leaf in moment.items() if isinstance(leaf, jax.Array)})
        wanted = [key.format(last=case["decoder"]["layers"] - 1) for key in speed.GRADIENTS[name]]
        out |= {f"gradient/{key}": names[key] for key in wanted}
        for _ in range(speed.UPDATES):
            out["later"] = np.asarray(self._once()["loss"])
        np.savez(directory / f"{name}-ours.npz", **out)

    def _once(self) -> dict[str, jax.Array]:
        self._learned, metrics = jax.block_until_ready(self._step(self._learned, self._frozen, self._batch))
        return metrics

    def run(self) -> dict[str, float]:
        began = time.perf_counter()
        self._once()
        return {"step": time.perf_counter() - began}


class Answering:
    """What `vlmjax.load(…).answer` does."""

    def __init__(self, directory: pathlib.Path, name: str, case: dict, batch: dict):
        self._model, self._batch = vlmjax.load(directory / "model"), batch
        self._answer(1)
        np.savez(directory / f"{name}-ours.npz", tokens=self._answer(1 + speed.NEW_TOKENS)[:, 0])

    def _answer(self, count: int) -> np.ndarray:
        return self._model.answer(self._batch, count)

    def run(self) -> dict[str, float]:
        out = {}
        for what, count in (("first", 1), ("whole", 1 + speed.NEW_TOKENS)):
            began = time.perf_counter()
            self._answer(count)
            out[what] = time.perf_counter() - began
        return out


def main(directory: pathlib.Path, name: str) -> None:
    common.set_up_jax()
    jax.config.update("jax_enable_compilation_cache", False)
    case = json.loads((directory / "case.json").read_text())
    if name == "prepare":
        return prepare(directory, case)
    answers, sys.stdout = sys.stdout, sys.stderr
    stored = np.load(directory / f"{name}.npz")
    batch = {key.removeprefix("batch/"): stored[key] for key in stored if key.startswith("batch/")}
    side = (Training if name in speed.GRADIENTS else Answering)(directory, name, case, batch)
    print(json.dumps({"jax": jax.__version__}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "stop" in request:
            print(json.dumps({"peak_MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}), file=answers, flush=True)
            return
        print(json.dumps({"runs": [side.run() for _ in range(request["times"])]}), file=answers, flush=True)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), sys.argv[2])
