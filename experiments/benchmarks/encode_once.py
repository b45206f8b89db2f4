"""Where does it pay to let a frozen encoder compute each image once (`encode_once`)?

Steps of a stage that encodes and of the same stage that reads features, in turn in one process, with random weights and batches; nothing is timed before
both give the same loss. Two stages: `instruct` of experiments/demo.py; and `align` (only the projector learns) of CLIP B/16 before a language model of
SmolLM2-135M's sizes. Beside them: what a pass over the images costs before the first step, what a feature costs to read, and, from shapes alone, the encoder's
share of the step and the size of features for recipes that do not run here.

    python experiments/benchmarks/encode_once.py [--repetitions=5] [--steps=2] [--output=FILE]

Seconds of the process on all its cores, so that what else runs there does not count; then `python experiments/tables.py encode_once`.
"""
import argparse
import dataclasses
import datetime
import json
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from vlmjax import config as configs
from vlmjax import optim, param_rules, sharding, stacks
from vlmjax.commands import common
from vlmjax.commands.prepare import RunConfig
from vlmjax.data import batch as batches
from vlmjax.data.datasets import catalogue
from vlmjax.data.features import Cache
from vlmjax.models import vlm
from vlmjax.train import build, floor, loop, record
from vlmjax.train.truth import Truth

VOCABULARY = 64  # of the demo's words, about
TOLERANCE = 1e-6
ALIGN = build.StageConfig("next_token", (("projector/.*", True), (".*", False)), (), batch=2, length=224, images=1, targets=16, steps=100, optimizer=optim.OptimizerConfig(lr=1e-3))
SMALL = build.ModelConfig(decoder=build.Component("smollm2-135m"), encoder=build.Component("clip-b16"), projector=build.Component("mlp2x"))
# Recipes of which only the sizes are looked at: (config, stage).
LARGE = (("llava_1_5.py:vicuna-7b", "align"), ("llava_1_5.py:vicuna-7b", "instruct"))


def made(config: build.StageConfig, modules: Mapping[str, Any], precision: build.Precision, once: bool) -> build.Stage:
    config = dataclasses.replace(config, encode_once=once, steps=1000, epochs=None)
    return build.stage("stage", config, modules, precision, sharding.make_mesh(sharding.MeshConfig(), jax.devices()[:1]), config.steps)


def recipe(spec: str) -> RunConfig:
    return configs.build(RunConfig, configs.read(f"experiments/{spec}")[0])


def cases() -> dict[str, tuple[build.StageConfig, dict[str, Any], build.Precision]]:
    demo = recipe("demo.py")
    float32 = build.Precision(compute="float32")
    return {"demo, `instruct`": (demo.stages["instruct"], build.modules(demo.model, VOCABULARY, "float32", demo.compile), demo.precision),
            "CLIP B/16 and SmolLM2-135M's sizes, `align`": (ALIGN, build.modules(SMALL, VOCABULARY, "float32"), float32)}


def share(stage: build.Stage) -> float:
    """Of the encoder in the FLOPs of a step."""
    found = floor.stage(stage)
    return (found["matrices"]["encoder"] + found["attention"]["encoder"]) / floor.useful(found)


def seconds(work: Callable[[], Any], times: int) -> float:
    began = time.process_time()
    for _ in range(times):
        jax.block_until_ready(work())
    return (time.process_time() - began) / times


def run(config: build.StageConfig, modules: dict[str, Any], precision: build.Precision, repetitions: int, steps: int) -> dict[str, Any]:
    """Seconds of each repetition: a step that encodes, one that reads features, a pass over the images of a batch."""
    sides = {once: made(config, modules, precision, once) for once in (False, True)}
    plain, apart = sides[False], sides[True]
    truth = Truth("unused", modules, {}, 0, plain.mesh).load(plain.components, ())
    own = param_rules.unflatten(stacks.place(truth, apart.encoder.params))["encoder"]
    batch = batches.fake("next_token", plain.shape, VOCABULARY, plain.model.encoder.config.tokens_per_image // plain.model.projector.config.shuffle**2)
    pixels = jax.device_put(batch["pixels"].reshape(-1, *batch["pixels"].shape[2:]))
    with build.context(plain.mesh):
        encode = jax.jit(lambda own, pixels: vlm.features(apart.encoder.module, own, pixels)).lower(own, pixels).compile()
    features = np.asarray(encode(own, pixels)).reshape(apart.shape.images_spec()[1])
    given = {False: batch, True: {key: value for key, value in batch.items() if key != "pixels"} | {"features": features}}
    states, losses, compiled = {}, {}, {once: stage.compile() for once, stage in sides.items()}
    for once, stage in sides.items():
        given[once] = jax.device_put(given[once], sharding.batch(stage.mesh))
        states[once], values = loop.advance(compiled[once], loop.start_state(stage, truth), given[once])
        losses[once] = float(values["loss"])
    if abs(losses[True] - losses[False]) > TOLERANCE * abs(losses[False]):
        raise SystemExit(f"the losses differ: {losses}")

    def step(once: bool) -> jax.Array:
        states[once], values = loop.advance(compiled[once], states[once], given[once])
        return values["loss"]

    times: dict[str, list[float]] = {"plain": [], "once": [], "encode": []}
    for _ in range(repetitions):
        times["plain"].append(seconds(lambda: step(False), steps))
        times["once"].append(seconds(lambda: step(True), steps))
        times["encode"].append(seconds(lambda: encode(own, pixels), steps))
    images = len(pixels)
    return {"seconds": times, "images": images, "share": share(plain), "bytes": apart.shape.features.nbytes, "read": read_seconds(features.reshape(images, *features.shape[2:]), apart.shape.features),
            "loss": losses[False], "difference": losses[True] - losses[False]}


def read_seconds(features: np.ndarray, of: batches.Features) -> float:
    """Of one image, from a file that the machine still holds in memory."""
    with tempfile.TemporaryDirectory(prefix="encode_once_") as folder:
        cache = Cache(pathlib.Path(folder), of, {})
        cache.write((str(n), features[n % len(features)]) for n in range(64))
        cache.read("0")
        return seconds(lambda: [cache.read(str(n)) for n in range(64)], 3) / 64


def large(spec: str, name: str) -> dict[str, Any]:
    config = recipe(spec)
    stage = made(config.stages[name], build.modules(config.model, 32000, config.precision.compute), config.precision, False)
    encoder = stage.model.encoder
    size = batches.Features(encoder.config.tokens_per_image, encoder.config.width, np.dtype(encoder.dtype)).nbytes
    return {"share": share(stage), "bytes": size, "examples": sum(catalogue.published(source) for source, _ in config.stages[name].data)}


def markdown(result: Mapping[str, Any]) -> list[str]:
    """A result as a table, and what it was measured on."""
    lines = ["| stage | encoder's share of the FLOPs | a step, ms of a core | with `encode_once` | time saved | of each repetition | to encode an image, ms | to read it, ms | pays when an image is shown |",
             "|---|---:|---:|---:|---:|---:|---:|---:|---:|"]
    for name, cell in result["cells"].items():
        median = {key: statistics.median(values) for key, values in cell["seconds"].items()}
        each = [1 - b / a for a, b in zip(cell["seconds"]["plain"], cell["seconds"]["once"])]
        saved, encode = (median["plain"] - median["once"]) / cell["images"], median["encode"] / cell["images"]
        pays = f"{encode / saved:.1f} times" if saved > 0 else "never"
        lines.append(f"| {name} | {100 * cell['share']:.0f} % | {1e3 * median['plain']:,.0f} | {1e3 * median['once']:,.0f} | **{100 * (1 - median['once'] / median['plain']):.0f} %** "
                     f"| {100 * min(each):.0f} to {100 * max(each):.0f} % | {1e3 * encode:.1f} | {1e3 * cell['read']:.2f} | {pays} |")
    lines += ["", "From shapes alone:", "", "| stage | encoder's share of the FLOPs | features of an image | of as many images as published examples |", "|---|---:|---:|---:|"]
    for name, cell in {**result["cells"], **result["large"]}.items():
        whole = f"{cell['bytes'] * cell['examples'] / 1e9:,.0f} GB for {cell['examples']:,}" if cell.get("examples") else ""
        lines.append(f"| {name} | {100 * cell['share']:.1f} % | {cell['bytes'] / 1e3:,.0f} KB | {whole} |")
    return lines + ["", f"Medians of {result['repetitions']} repetitions in turn, float32, {result['cores']} cores, load {min(result['loads']):.1f} to {max(result['loads']):.1f}; losses of both agree to {TOLERANCE:g}. "
                    f"jax {result['jax']}; commit {result['commit'][:10]}{'+' * result['commit'].endswith('+')}, {result['date']}."]


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--repetitions", type=int, default=5)
    flags.add_argument("--steps", type=int, default=2, help="in a turn; ten times as many of the demo's")
    flags.add_argument("--output", type=pathlib.Path, default=pathlib.Path(__file__).with_suffix(".json"))
    args = flags.parse_args()
    common.set_up_jax()
    result: dict[str, Any] = {"repetitions": args.repetitions, "cores": len(os.sched_getaffinity(0)), "loads": [], "cells": {}}
    for name, case in cases().items():
        result["loads"].append(os.getloadavg()[0])
        result["cells"][name] = run(*case, args.repetitions, args.steps * (10 if name.startswith("demo") else 1))
        result["loads"].append(os.getloadavg()[0])
    result["large"] = {f"{spec.partition('.')[0]}, `{name}`": large(spec, name) for spec, name in LARGE}
    result |= {"date": str(datetime.date.today()), "commit": record.git_commit() or "unknown", "jax": jax.__version__}
    args.output.write_text(json.dumps(result, indent=1) + "\n")
    print("\n".join(markdown(result)))


if __name__ == "__main__":
    main()
