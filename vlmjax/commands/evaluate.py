"""`vlmjax evaluate`: scores a model on tasks, beside the controls that tell seeing from guessing."""
import dataclasses
import time
from collections.abc import Sequence

import jax
from etils import epath

from vlmjax import bundle as bundles
from vlmjax import pretrained, sharding
from vlmjax.bundle import Bundle
from vlmjax.commands import common
from vlmjax.errors import Stopped, UserError, did_you_mean
from vlmjax.evaluate import dependence, runner, scoring, uploads
from vlmjax.evaluate.answers import Answers
from vlmjax.evaluate.controls import CONTROLS
from vlmjax.evaluate.tasks import TASKS
from vlmjax.hosts import TERMINATED, Job
from vlmjax.train.metrics import say


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """split: of each task's data set, "" for the one that the task means. after: {stage: tasks scored with the model as that stage leaves it}. rows: of a batch. sample: so many items of each
    task, of images drawn by seed, 0 for all. maps: heat maps of so many wrong and so many right answers of each task, 0 for none.
    mesh: on which the model answers, as `replica:8,tensor:8`; empty: that of training. With parameters split over `fsdp` each token gathers all of them (launch/README.md)."""

    split: str = ""
    controls: tuple[str, ...] = CONTROLS
    after: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    rows: int = 50
    sample: int = 0
    seed: int = 0
    maps: int = 4
    mesh: str = ""


def main(argv: list[str]) -> None:
    flags = common.Flags("evaluate", "Scores a model with controls; writes results.json and predictions/TASK.jsonl, and uploads/ for benchmarks whose answers a server has.").data_dir()
    flags.add_argument("--model", required=True, help="a run's directory, or its model/")
    flags.add_argument("--tasks", required=True, help=f"of {', '.join(TASKS)}; several with commas")
    flags.add_argument("--control", default=",".join(CONTROLS), help="of %(default)s (all by default)")
    flags.add_argument("--split", default="", help="of the tasks' data sets (default: the one that each task means)")
    flags.add_argument("--limit", type=int, help="only the first so many items")
    flags.add_argument("--sample", type=int, default=0, help="so many items, of images drawn by a fixed seed")
    flags.add_argument("--rows", type=int, default=EvaluateConfig.rows, help="rows of a batch")
    flags.add_argument("--maps", type=int, default=EvaluateConfig.maps, help="heat maps of the image tokens that so many wrong and so many right answers depended on (%(default)s, 0: none)")
    flags.add_argument("--dtype", default="float32")
    flags.add_argument("--mesh", default="", help="for example replica:8,fsdp:1,tensor:8 (default: all devices on fsdp, where each token gathers all weights; vlmjax plan --answers compares)")
    flags.add_argument("--adapters", default="on", choices=bundles.ADAPTERS, help="LoRA's: as trained, left out, or merged into the weights")
    flags.add_argument("--output", help="where results go (default: the model's directory)")
    flags.add_argument("--rescore", action="store_true", help="score stored predictions again, without a model")
    args = flags.read(argv)
    tasks = args.tasks.split(",")
    for task in tasks:
        if task not in TASKS:
            raise UserError(f"--tasks: no task {task!r}{did_you_mean(task, TASKS)}")
    output = common.run_directory(args.output or args.model)
    if output.is_file():
        raise UserError(f"--output: say where results go, since {output} is a file")
    job = common.set_up_jax()
    if args.rescore:
        for task in tasks:
            predictions = runner.read_predictions(output, task)
            kept = {k: v for k, v in runner.read_results(output).get(task, {}).items() if k == "provenance"}
            split = kept.get("provenance", {}).get("split", args.split)
            if args.split not in ("", split):
                raise UserError(f"--split: {task} was asked of {split}, not of {args.split}")
            runner.write(output, task, {**scoring.rescore(predictions, TASKS[task]), **kept}, predictions, uploads=uploads.make(TASKS[task], args.data_dir, split, predictions))
    else:
        job.catch_termination()
        mesh = sharding.make_mesh(common.parse_mesh(args.mesh))
        with job.agreed():
            for task in tasks:  # a file of questions that the last one lacks is named before a model is read and the first one asked; images are looked for when they are shown
                TASKS[task].read(args.data_dir, args.split)
            model = pretrained.load(common.expand(args.model), args.dtype, mesh)
        model = model.with_adapters(args.adapters)
        config = EvaluateConfig(args.split, tuple(args.control.split(",")), {}, args.rows, args.sample, maps=args.maps)
        score_all(model, tasks, config, args.data_dir, output, job, args.limit)
    job.barrier()
    say(scoring.table({task: runner.read_results(output)[task] for task in tasks}))


def score_all(model: Bundle, tasks: Sequence[str], config: EvaluateConfig, data_dir: str, output: epath.Path, job: Job, limit: int | None = None) -> None:
    """One task after the other. What they answered is kept until all are done, so that a command which is interrupted in the last asks nothing twice."""
    for kept in [score(model, task, config, data_dir, output, job, limit, last=False) for task in tasks]:
        kept.clear()


def score(model: Bundle, task: str, config: EvaluateConfig, data_dir: str, output: epath.Path, job: Job, limit: int | None = None, last: bool = True) -> Answers:
    """One task under its controls and the heat maps of some answers, written to `output`. Interrupted, it has kept its answers up to there. last: else they are kept further, for who gets them back to clear."""
    if config.maps < 0:
        raise UserError(f"maps: {config.maps} is less than 0")
    began = time.monotonic()
    kept = Answers(output, task, job.index == 0, job.share)
    progress = progress_of(task, "answers are kept, and the same command goes on from there", job, kept)
    results, predictions = runner.evaluate(model, TASKS[task], data_dir, config.split, config.controls, config.rows, limit, config.sample or None, config.seed, progress=progress, kept=kept)
    maps = None
    if config.maps and "real" in config.controls:
        source, items = TASKS[task].read(data_dir, config.split)
        mapped = progress_of(f"{task}: heat maps", "rows of heat maps are computed; all answers are kept, and the same command goes on from there", job, kept)
        maps = dependence.measure(model, TASKS[task], source, items, predictions, config.maps, config.rows, config.seed, mapped)
    if jax.process_index() == 0:
        dependence.write(output, task, maps)
        runner.write(output, task, results, predictions, kept if last else None, uploads.make(TASKS[task], data_dir, config.split, predictions))
    if not last:
        kept.flush()
    scores = ", ".join(f"{control} {100 * results[control][TASKS[task].metric]['value']:.1f} %" for control in config.controls if control in results) or f"for its server, in {output / 'uploads'}"
    say(f"{task}: {scores} ({time.monotonic() - began:.0f} s)")
    return kept


def progress_of(what: str, kept_line: str, job: Job, kept: Answers) -> runner.Progress:
    """→ progress(done, total): a line every ten seconds with the time left; asked to stop, it stops."""
    began = said = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal said
        if time.monotonic() - said > 10:
            said = time.monotonic()
            say(f"{what}: {done}/{total}, {(said - began) / done * (total - done):.0f} s left")
        if reason := job.stops():
            kept.flush()
            raise Stopped(f"{what}: {reason}; {done} of {total} {kept_line}", TERMINATED)

    return progress
