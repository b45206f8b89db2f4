"""`vlmjax train`: config → preflight → data → model → stages → record → evaluate → report. Run it again and it resumes, bit for bit."""
import dataclasses
import time
from collections.abc import Iterable, Sequence
from typing import Any

import jax
from etils import epath

from vlmjax import bundle as bundles
from vlmjax import config as configs
from vlmjax import files, pretrained, report
from vlmjax.commands import common, preflight
from vlmjax.commands.evaluate import score
from vlmjax.commands.prepare import RunConfig, prepare
from vlmjax.commands.progress import Bar
from vlmjax.commands.report import image_reader
from vlmjax.data.pipeline import Pipeline
from vlmjax.errors import UserError
from vlmjax.evaluate import runner, scoring
from vlmjax.hosts import Job
from vlmjax.train import build, encode, loop, metrics, record, speed
from vlmjax.train.checkpoint import Checkpoints
from vlmjax.train.claim import claim
from vlmjax.train.metrics import say
from vlmjax.train.quarantine import Quarantine
from vlmjax.train.truth import Truth

# Groups of a config that say how a run is computed and not what: it may go on with others.
OF_THE_MACHINE = ("mesh", "compile")


def main(argv: list[str]) -> None:
    flags = common.Flags("train", "Trains all stages of a config; run it again to resume. Override any key: --config.stages.align.optimizer.lr=1e-3").data_dir()
    flags.add_argument("--config", required=True, help="FILE.py or FILE.py:ARG")
    flags.add_argument("--workdir", required=True, help="where the run goes")
    overrides = [a for a in argv if a.startswith("--config.")]
    args = flags.read([a for a in argv if not a.startswith("--config.")])
    node, changed = configs.read(args.config, overrides, RunConfig)
    train(node, changed, args.workdir, args.data_dir)


def train(node: Any, changed: dict[str, list], workdir: str, data_dir: str) -> None:
    """Everything `vlmjax train` does, from a resolved config."""
    began = time.time()
    config = configs.build(RunConfig, node)
    job = common.set_up_jax()
    job.catch_termination(config.checkpoint.grace)
    workdir = common.run_directory(workdir)
    if len(set(job.gather(configs.fingerprint(node)))) > 1:
        raise UserError("the processes of this job were started with different configs; start the same command on all hosts")
    seen, known = None, []
    with job.agreed():  # what is wrong on one host is said on all, and none waits for it
        mine, moved = check_workdir(workdir, node, changed)
        if job.index == 0:
            claim(workdir)
        made = prepare(config, data_dir)
        log = record.read(workdir) or record.start(configs.fingerprint(node), made.mesh)
        if set(config.run) - record.finished(log).keys():
            seen = preflight.check(made, data_dir, known.append)
        stages = made.stages
    same_rows(job, made.data)
    mesh, tokenizer, checkpoints, modules, templates, data = made.mesh, made.tokenizer, made.checkpoints, made.modules, made.templates, made.data
    encoder, projector = made.sizes
    used = [name for name in modules if any(name in stage.reads for stage in stages.values())]
    truth = Truth(workdir, modules, stages, config.seed, mesh, common.parameter_sources(checkpoints))
    if jax.process_index() == 0:
        files.write_json(workdir / "config.json", mine)
        if seen is not None:
            files.write_json(workdir / preflight.FILE, seen)

    same_machine(log, mesh, moved)
    log["fingerprint"] = mine["fingerprint"]
    if "wall_seconds" not in log:
        log |= {"began": log.get("began", round(began, 1)), "starts": log.get("starts", 0) + 1}
        record.write(workdir, log)
    say(plan(config, stages, data, mesh))
    for line in known:
        say(line)
    for line in beginnings(config.model, modules, checkpoints):
        say(line)
    for position, name in enumerate(config.run):
        if name not in record.finished(log):
            saved = Checkpoints(workdir, name, config.checkpoint.keep, config.checkpoint.keep_every)
            say(f"{name}: {'starts' if saved.latest() is None else f'resumes at step {saved.latest()}'}")
            owners = truth.owners(stages[name].reads, record.finished(log))
            about, encoded = {"fingerprint": log["fingerprint"], "config": mine["config"], "from": owners_by_component(owners), "lengths": data[name].table.digest()}, {}
            if stages[name].encoder:
                encoded = {"encoded_once": encode_once(stages[name], truth, record.finished(log), data[name])}
                about["encoder_sha256"] = encoded["encoded_once"]["encoder_sha256"]
            outcome = loop.run(stages[name], truth.load(stages[name].components, record.finished(log)), data[name], saved,
                               metrics.Writer(workdir, name, config.logging), Quarantine(workdir, name), about, config.logging, config.checkpoint, config.prefetch, stops=job.stops)
            log["stages"].append({**outcome.record, **encoded, **job.share(lambda: of_metrics(metrics.read(workdir, name)))})
            record.write(workdir, log)
            say(stage_line(log["stages"][-1]))
        finished = config.run[:position + 1]
        missing = job.share(lambda: [task for task in config.evaluate.after.get(name, ()) if task not in runner.read_results(workdir)])
        if missing or position + 1 == len(config.run) and not job.share((workdir / "model" / "config.json").exists):
            flat = truth.load(used, finished)
            stage = config.stages[name]
            model = bundles.make(modules, flat, tokenizer, templates[name], common.layout(encoder, projector, stage.resize, stage.tiles), made.answering)
            for task in missing:
                score(model, task, config.evaluate, data_dir, workdir, job)
            if position + 1 == len(config.run):
                pretrained.save(dataclasses.replace(model, carried=common.carried(checkpoints, used)), workdir / "model")
    if "wall_seconds" not in log:
        log["wall_seconds"] = round(time.time() - log["began"], 1)
        log["goodput"] = job.share(lambda: goodput(workdir, config.run, log["wall_seconds"]))
    record.write(workdir, log)
    if jax.process_index() == 0:
        say(scoring.table(runner.read_results(workdir) or {}))
        say(f"report: {report.write(workdir, image_reader(data_dir, workdir))}")


def same_rows(job: Job, data: dict[str, Pipeline]) -> None:
    """Every host plans for itself; what it has read, sizes of images for their tiles among it, has to be what the others have."""
    for name, pipeline in data.items():
        if len(set(job.gather(pipeline.table.digest()))) > 1:
            raise UserError(f"stages.{name}.data: hosts found examples or images of different sizes, as when a file is missing on one of them; see that all read the same files, "
                            "or build the set once: vlmjax data build")


def encode_once(stage: build.Stage, truth: Truth, finished: Iterable[str], data: Pipeline) -> dict[str, Any]:
    """The features of a stage that reads them. → what its record says of it."""
    with Bar(f"{stage.name}: encode", "image") as bar:
        return encode.once(stage, truth.load(("encoder",), finished), data, common.expand(common.FEATURES), say, bar.update)


def of_metrics(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What the record of a stage takes from its metrics."""
    return {**speed.summary(rows), "loss": {"first": rows[0]["loss"], "last": rows[-1]["loss"]}}


def goodput(workdir: epath.Path, names: Sequence[str], wall: float) -> float:
    """The share of the time since the run's first start that went into steps that count; saves, compiling, evaluation, repeated steps and the time
    in which no machine was there are the rest."""
    return round(sum(row["step_seconds"] for name in names for row in metrics.read(workdir, name)) / max(wall, 1e-9), 4)


def check_workdir(workdir: epath.Path, node: Any, changed: dict[str, list]) -> tuple[dict[str, Any], dict[str, tuple]]:
    """→ config.json of this run and {key: (before, now)} of what is otherwise about its machine, if the directory is free or this run's own; another's is left as it is. Nothing is written yet,
    so a mistake that is found later leaves the directory free. A run may go on on another mesh, or compiled otherwise: it is another fingerprint and the same run."""
    files.check_writable(workdir)
    held = files.read_json(workdir / "config.json")
    mine = {"fingerprint": configs.fingerprint(node), "config": configs.plain(node), "differences": changed}
    if held is None:
        if any(not path.name.startswith(".") for path in workdir.iterdir()):
            raise UserError(f"{workdir}: is not empty and holds no run; give another --workdir")
        return mine, {}
    return mine, moved(workdir, held, node)


def moved(workdir: epath.Path, held: dict[str, Any], node: Any) -> dict[str, tuple]:
    """{key: (before, now)} of what a run with this config changes of its machine where it goes on with a config.json; UserError where that is another run's."""
    differ = configs.differences(configs.in_fingerprint(held["config"]), configs.in_fingerprint(node)) if held["fingerprint"] != configs.fingerprint(node) else {}
    if all(key.split(".")[0] in OF_THE_MACHINE for key in differ):
        return differ
    shown = "; ".join(f"{key} was {a!r}, is {b!r}" for key, (a, b) in list(differ.items())[:5])
    raise UserError(f"{workdir}: belongs to another config: {shown}{f'; and {len(differ) - 5} more' if len(differ) > 5 else ''}; give another --workdir")


def same_machine(log: dict[str, Any], mesh: jax.sharding.Mesh, moved: dict[str, tuple]) -> None:
    """Bit for bit is promised on the same versions, devices, mesh and compile settings; where they changed, the log says so."""
    now = record.start(log["fingerprint"], mesh)
    differ = configs.differences({k: log[k] for k in ("versions", "devices", "mesh")}, {k: now[k] for k in ("versions", "devices", "mesh")})
    if differ := {**differ, **{key: values for key, values in moved.items() if not key.startswith("mesh.")}}:
        say("resuming on another machine: the same examples in each batch, losses equal up to reduction order; changed: "
            + "; ".join(f"{key} {a} → {b}" for key, (a, b) in differ.items()))


def plan(config: RunConfig, stages: dict[str, build.Stage], data: dict[str, loop.Data], mesh: jax.sharding.Mesh) -> str:
    """The first line of a run."""
    parts = [f"{name} {stage.steps} steps x {stage.config.batch} rows ({data[name].examples(0)} examples)" for name, stage in stages.items()]
    time_left = f"; about {config.expected_seconds // 60} min {config.expected_seconds % 60} s on 2 CPU cores" if config.expected_seconds else ""
    return f"plan: {' → '.join(parts)} → evaluate, on {jax.device_count()} {jax.devices()[0].device_kind} device(s){time_left}"


def beginnings(config: build.ModelConfig, modules: dict[str, Any], checkpoints: dict[str, pretrained.Checkpoint]) -> list[str]:
    """Where each component's parameters come from, and which of them are new."""
    lines = []
    for name, checkpoint in checkpoints.items():
        held, asked = getattr(checkpoint.sizes[name], "lora", None), getattr(modules[name].config, "lora", None)
        new = f"; new: adapters of rank {asked.rank} beside {', '.join(p for p in modules[name].config.projections if asked.adapts(p))}" if asked and not held else ""
        new += "; new: linear_0, as its language model is another" if name == "projector" and "decoder" not in checkpoint.sizes else ""
        lines.append(f"{name}: from {getattr(config, name).weights}{new}")
    new = [name for name in modules if name not in checkpoints and not (name == "contrast_head" and "text_tower" in checkpoints)]
    return lines + ([f"new, at random: {', '.join(new)}"] if new else [])


def owners_by_component(owners: dict[str, str]) -> dict[str, list[str]]:
    """{component: where its parameters come from}, for the references in a checkpoint."""
    out: dict[str, set[str]] = {}
    for path, owner in owners.items():
        out.setdefault(path.split("/")[0], set()).add(owner)
    return {name: sorted(where) for name, where in out.items()}


def stage_line(stage: dict[str, Any]) -> str:
    """What a finished stage did, in one line."""
    proof = f"frozen {', '.join(stage['frozen'])}: bitwise unchanged ({stage['frozen_sha256']['after'][:12]})" if stage["frozen"] else "nothing frozen"
    if once := stage.get("encoded_once"):
        proof += f"; encoder {once['encoder_sha256'][:12]} read from its features of {once['images']:,} images ({once['hits']:,} were there, {once['encoded']:,} encoded in {once['seconds']:.0f} s)"
    broken = f" ({stage['quarantined']} of them broken: quarantine/{stage['name']}.json)" if stage["quarantined"] else ""
    return (f"{stage['name']}: {stage['steps']} steps, {stage['examples']:,} examples{broken}, loss {stage['loss']['first']:.4f} → {stage['loss']['last']:.4f}, "
            f"{stage['seconds']:.0f} s; trained {', '.join(stage['trainable'])}; {proof}")
