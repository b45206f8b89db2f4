"""`vlmjax diagnose`: asks a model about drawn scenes what vision-language models get wrong, with controls, and draws where it fails."""
from vlmjax import bundle as bundles
from vlmjax import files, pretrained, sharding
from vlmjax.commands import common
from vlmjax.commands.evaluate import EvaluateConfig, score_all
from vlmjax.commands.report import image_reader
from vlmjax.data.datasets import scenes
from vlmjax.errors import UserError, did_you_mean
from vlmjax.evaluate import diagnose, runner, scoring
from vlmjax.evaluate.tasks.scenes import ALL
from vlmjax.report import diagnosis
from vlmjax.train.metrics import say
from vlmjax.weights import hub

CONTROLS = ("real", "blind", "shuffled")


def main(argv: list[str]) -> None:
    flags = common.Flags("diagnose", "Asks what is there, how many, where, and about small things; writes diagnosis.html, diagnosis.json, results.json and predictions/.").data_dir()
    flags.add_argument("--model", required=True, help="a run's directory, a published checkpoint's, a GGUF file or hf://org/name")
    flags.add_argument("--suites", default=",".join(scenes.SUITES), help="of %(default)s (all by default)")
    flags.add_argument("--split", default="test", help="test, or comp: colors on shapes that no other scene has (%(default)s)")
    flags.add_argument("--sample", type=int, default=0, help="so many scenes of each suite, drawn by a fixed seed (default: all)")
    flags.add_argument("--rows", type=int, default=EvaluateConfig.rows, help="rows of a batch")
    flags.add_argument("--dtype", default="float32")
    flags.add_argument("--mesh", default="", help="for example replica:8,fsdp:1,tensor:8 (default: all devices on fsdp, where each token gathers all weights; vlmjax plan --answers compares)")
    flags.add_argument("--adapters", default="on", choices=bundles.ADAPTERS, help="LoRA's: as trained, left out, or merged into the weights")
    flags.add_argument("--output", help="where results go (default: the model's directory, and comp/ in it for the split comp)")
    flags.add_argument("--rescore", action="store_true", help="from stored predictions, without a model")
    args = flags.read(argv)
    known = {diagnose.suite_of(task): task for task in ALL}
    suites = [name for name in args.suites.split(",") if name]
    for name in suites:
        if name not in known:
            raise UserError(f"--suites: no suite {name!r}{did_you_mean(name, known)}")
    if args.split not in ("test", "comp"):
        raise UserError(f"--split: {args.split!r} is neither test nor comp")
    suites = [name for name in suites if scenes.SETS[args.split][name]]
    if not suites:
        raise UserError(f"--suites: the split {args.split} has none of {args.suites}")
    output = common.run_directory(args.output or args.model)
    if args.model.startswith(hub.HUB) and not args.output or output.is_file():
        raise UserError("--output: say where results go, since --model is no directory that can hold them")
    if not args.output and args.split == "comp":
        output = output / "comp"
    job = common.set_up_jax()
    if not args.rescore:
        job.catch_termination()
        with job.agreed():
            model = pretrained.load(common.expand(args.model), args.dtype, sharding.make_mesh(common.parse_mesh(args.mesh)))
        model = model.with_adapters(args.adapters)
        config = EvaluateConfig(args.split, CONTROLS, {}, args.rows, args.sample, maps=0)
        score_all(model, [known[name].name for name in suites], config, args.data_dir, output, job)
    job.barrier()
    if job.index == 0:
        split = lambda name: runner.read_results(output).get(known[name].name, {}).get("provenance", {}).get("split")
        if other := next((name for name in suites if split(name) not in (None, args.split)), None):
            raise UserError(f"{output}: its answers to {other} are of the split {split(other)}; say --split={split(other)}, or give another --output")
        suites = [name for name in scenes.SUITES if name in suites or split(name) == args.split]  # those of an earlier command stay on the page
        predictions = {known[name].name: runner.read_predictions(output, known[name].name) for name in suites}
        found = diagnose.diagnose(predictions)
        files.write_json(output / "diagnosis.json", found)
        read = image_reader(args.data_dir, output)
        html = diagnosis.page(output.name, found, {name: predictions[known[name].name] for name in suites}, read)
        files.write(output / "diagnosis.html", html)
        say(scoring.table({known[name].name: found[name]["scores"] for name in suites}))
        say(f"diagnosis: {output / 'diagnosis.html'}")
