"""`vlmjax plan`: does a run fit on a slice of Cloud TPU, and what does it cost? Compiles its true steps here; needs no TPU, no data and no weights."""
from vlmjax.plan import environment

environment.prepare()  # before anything imports jax

import dataclasses
import importlib.metadata
import math
import time
from typing import Any

import jax
from etils import epath

from vlmjax import config as configs
from vlmjax import files, pretrained
from vlmjax.commands import common
from vlmjax.commands.prepare import RunConfig
from vlmjax.data import mixture
from vlmjax.data.datasets import catalogue
from vlmjax.errors import UserError
from vlmjax.plan import answers, changes, cost, measured, table, topologies
from vlmjax.sharding import MeshConfig
from vlmjax.train import build, record


def main(argv: list[str]) -> None:
    flags = common.Flags("plan", "Says whether the stages of a config fit on a slice and what they cost. Override any key: --config.stages.align.batch=128").data_dir()
    flags.add_argument("--config", required=True, help="FILE.py or FILE.py:ARG")
    flags.add_argument("--topology", required=True, help="a slice, as v4-64 or v5e-64 (vlmjax list topologies), or several, as 2xv5e-64")
    flags.add_argument("--share", type=float, default=0.5, help="of the bf16 peak that the run is assumed to reach, for times and chip-hours (default: %(default)s)")
    flags.add_argument("--examples", action="append", default=[], metavar="STAGE:N", help="how many examples a stage with `epochs` has, where its data is not built and not in the catalogue")
    flags.add_argument("--per_row", action="append", default=[], metavar="STAGE:N", help="how many examples share a row on average, as `vlmjax preflight` says for data that is there (default: one)")
    flags.add_argument("--stages", default="", help="only these, as align,instruct, or none (default: all that the config runs)")
    flags.add_argument("--answers", default="", metavar="rows:N,length:N[,new:64,images:1,questions:1]", help="also what answering costs: so many rows of prompts at once, in the config's compute dtype and on its evaluate.mesh, or its mesh")
    flags.add_argument("--changes", choices=("yes", "no"), default="yes", help="where a stage does not fit, look for settings that do (each is compiled)")
    flags.add_argument("--measured", metavar="FILE", help="compare with a run: its directory, or metrics/STAGE-000.jsonl in it")
    flags.add_argument("--output", help="a directory that the result goes to as JSON, or a file.json")
    overrides = [a for a in argv if a.startswith("--config.")]
    args = flags.read([a for a in argv if not a.startswith("--config.")])
    if not 0 < args.share <= 1:
        raise UserError(f"--share: {args.share} is not a share of the peak, above 0 and at most 1")
    only, asked = None if not args.stages else () if args.stages == "none" else tuple(args.stages.split(",")), questions(args.answers)
    if only == () and not asked:
        raise UserError("--stages: none, and no --answers: there is nothing to plan")
    topology = topologies.find(args.topology)
    topology.devices()  # fails early where libtpu is missing
    node, _ = configs.read(args.config, overrides, RunConfig)
    set_up()
    where = args.measured and common.expand(args.measured)
    if where:
        measured.check(where, node.run)
    examples, per_row = given("--examples", args.examples, int), given("--per_row", args.per_row, float)
    made = plan(node, " ".join([args.config, *overrides]), topology, args.share, examples, args.data_dir, only, args.changes == "yes", per_row, asked)
    if where:
        measured.add(made, where)
        print(measured.about(made, where))
    print("\n".join(table.lines(made)))
    if args.output:
        path = epath.Path(common.expand(args.output))
        path = path if path.suffix == ".json" else path / file_name(made)
        files.write_json(path, made)
        print(f"saved: {path}")


def set_up() -> None:
    """The settings that training compiles under; a program for a topology cannot be read back from the cache of compiled programs."""
    common.set_up_jax()
    jax.config.update("jax_enable_compilation_cache", False)


def file_name(made: dict[str, Any]) -> str:
    """By fingerprint, slice, versions, and the mesh of answers: another of any of them is another file."""
    versions = "-".join(f"{name}{made['versions'][name]}" for name in ("jax", "libtpu"))
    mesh = "".join(f"-{axis}{size}" for axis, size in made["answers"]["mesh"].items() if size > 1) if "answers" in made else ""
    return f"{made['topology']}-{made['fingerprint'][:12]}{mesh}-{versions}.json"


def questions(text: str) -> answers.Questions | None:
    """What --answers says; None where it says nothing."""
    if not text:
        return None
    names = [field.name for field in dataclasses.fields(answers.Questions)]
    sizes = common.parse_sizes("--answers", text, names)
    if missing := {"rows", "length"} - set(sizes):
        raise UserError(f"--answers: {text!r} lacks {' and '.join(sorted(missing))}: rows:N,length:N")
    made = answers.Questions(**sizes)
    made.check("--answers")
    return made


def given(flag: str, items: list[str], number: type) -> dict[str, Any]:
    """["STAGE:N", …] → {stage: N}."""
    out = {}
    for item in items:
        name, _, text = item.partition(":")
        try:
            out[name] = number(text)
        except ValueError:
            out[name] = 0
        if not 0 < out[name] < math.inf:
            raise UserError(f"{flag}: {item!r} is not STAGE:N")
    return out


def plan(node: Any, spec: str, topology: topologies.Topology, share: float, examples: dict[str, int], data_dir: str, only: tuple[str, ...] | None = None, change: bool = True,
         per_row: dict[str, float] = {}, asked: answers.Questions | None = None) -> dict[str, Any]:
    """→ the plan as it is saved; see plan/cost.py for what a stage's cost holds, plan/answers.py for what answering costs. only: these stages, None: all."""
    config = configs.build(RunConfig, node)
    for flag, named in (("stages", only or ()), ("examples", examples), ("per_row", per_row)):
        for name in set(named) - set(config.run):
            raise UserError(f"--{flag}: the config runs no stage {name!r}; it runs {', '.join(config.run)}")
    names = [name for name in config.run if only is None or name in only]
    available = modules(config, data_dir)
    mesh, note = cost.choose_mesh(config.mesh, topology.chips, {name: config.stages[name] for name in names})
    out = {"config": spec, "fingerprint": configs.fingerprint(node), "topology": topology.name, "chips": topology.chips, "share": share, "mesh_note": note, "versions": versions(),
           "git_commit": record.git_commit(), "date": time.strftime("%Y-%m-%d"), "stages": {}}
    for name in names:
        stage = config.stages[name]
        shared = per_row.get(name, 1.0)
        steps, origin = count_steps(name, stage, examples, data_dir, shared)
        print(f"{name} on {topology.name}: compiling", flush=True)
        entry: dict[str, Any] = {"examples_from": origin, "per_row": shared, "cost": cost.stage(name, stage, available, config.precision, mesh, topology, steps)}
        if entry["cost"]["fits"]:
            entry["run"] = cost.run_time(entry["cost"], topology, share, shared)
        elif change:
            find_change(entry, name, stage, available, config, mesh, topology, steps, share)
        out["stages"][name] = entry
    if asked:
        print(f"answers on {topology.name}: compiling", flush=True)
        answering = common.parse_mesh(config.evaluate.mesh, "evaluate.mesh") if config.evaluate.mesh else mesh
        out["answers"] = answers.plan(asked, available, config.precision.compute, answering, topology, "--answers")
    return out


def find_change(entry: dict[str, Any], name: str, stage: build.StageConfig, available: dict[str, Any], config: RunConfig, mesh: MeshConfig, topology: topologies.Topology, steps: int, share: float) -> None:
    if found := changes.first_that_fits(name, stage, available, config.precision, mesh, topology, steps):
        entry["change"] = {**found, "run": cost.run_time(found["cost"], topology, share, entry["per_row"])}
        if len(config.run) > 1 and any(flag.startswith("--config.mesh.") for flag in found["flags"]):
            entry["change"]["note"] = "the mesh is that of all stages: plan the run again with it"
    elif bigger := changes.smallest_slice(name, stage, available, config.precision, config.mesh, topology, steps):
        entry["smallest"] = bigger
    entry["tried"] = "remat full, accumulate and tensor on this slice, and every larger one as configured"


def versions() -> dict[str, str]:
    """Of what can change a plan; the command has made sure that libtpu is there."""
    installed = {dist.metadata["Name"]: dist.version for dist in importlib.metadata.distributions()}
    return {name: installed.get(name, "none") for name in ("vlmjax", "jax", "jaxlib", "libtpu", "flax", "optax")}


def modules(config: RunConfig, data_dir: str) -> dict[str, Any]:
    """All components from sizes alone. A component with a variant is taken to have that variant's sizes, whatever its weights; without one its weights
    must be on this machine. The tokenizer is read only where a vocabulary hangs on it."""
    checkpoints = {}
    for where, part in vars(config.model).items():
        if part and part.weights and not part.variant:
            if part.weights.startswith("hf://"):
                raise UserError(f"model.{where}: a plan reads nothing from the hub; name the variant that {part.weights} is: --config.model.{where}.variant=NAME")
            checkpoints[where] = pretrained.find(part.weights).sizes
    asks = config.added_tokens or any(part and part.vocab == -1 for part in vars(config.model).values())
    vocabulary, added = 0, None
    if asks:
        if config.tokenizer.startswith("hf://"):
            raise UserError(f"tokenizer: a plan reads nothing from the hub, and the vocabulary hangs on {config.tokenizer}; give its directory: --config.tokenizer=DIR")
        sources = common.Sources({name: config.stages[name] for name in config.run}, data_dir) if config.tokenizer == "words" else None
        known = common.tokenizer(config.tokenizer, sources)
        vocabulary, added = known.vocabulary + len(config.added_tokens), (known.vocabulary, len(config.added_tokens)) if config.added_tokens else None
    return build.modules(config.model, vocabulary, config.precision.compute, config.compile, checkpoints, added)


def count_steps(name: str, stage: build.StageConfig, examples: dict[str, int], data_dir: str, per_row: float = 1.0) -> tuple[int, str]:
    """→ (steps, where the number comes from). per_row: examples that share a row, which nothing but the lengths of the data can tell."""
    if stage.steps is not None:
        return stage.steps, "the config's steps"
    if name in examples:
        count, origin = examples[name], "given"
    else:
        found = [count_examples(name, spec, data_dir) for spec, _ in stage.data]
        numbers, where = [number for number, _ in found], dict.fromkeys(where for _, where in found)
        count = sum(number * times for number, times in zip(numbers, mixture.passes([n for _, n in stage.data], numbers, stage.mixture)))
        origin = " and ".join(where)
    return max(1, math.ceil(count * stage.epochs / (stage.batch * per_row))), f"{count:,.0f} examples, {origin}; {'one per row' if per_row == 1 else f'{per_row:g} per row, given'}"


def count_examples(name: str, spec: str, data_dir: str) -> tuple[int, str]:
    try:
        return len(common.open_source(spec, data_dir, f"stages.{name}.data").examples), "in the data"
    except UserError as error:
        if published := catalogue.published(spec):
            return published, "as published"
        raise UserError(f"{error}; or say how many examples it has: --examples={name}:N") from None
