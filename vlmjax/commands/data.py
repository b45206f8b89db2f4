"""`vlmjax data sources · build · verify`: what published data sets need; data sets as ArrayRecord shards with a manifest."""
import os

from vlmjax.commands import common
from vlmjax.commands.common import Flags
from vlmjax.commands.progress import Bar
from vlmjax.data import measure, shards
from vlmjax.data.datasets import DATASETS, built, catalogue
from vlmjax.data.processor import Processor
from vlmjax.errors import UserError, did_you_mean


def main(argv: list[str]) -> None:
    flags = Flags("data", "sources [NAME]: published data sets, what each needs, from where, and what is there. "
                  "build easy_vqa: a data set that comes with a package. build SPEC --name=NAME: any other, read as a stage reads SPEC, "
                  "which stages then name as built:NAME:all; run it again to resume. verify NAME: checks every file against its manifest").data_dir()
    flags.add_argument("verb", choices=["sources", "build", "verify"])
    flags.add_argument("what", nargs="?", help="a data set that comes with a package, a SPEC such as llava:FILE.json:FOLDER, or the NAME of a built set")
    flags.add_argument("--name", help="of the set that is built")
    flags.add_argument("--workers", type=int, default=os.cpu_count(), help="processes that read and check images (default: one per core)")
    flags.add_argument("--tokenizer", help="a checkpoint or tokenizer.json: measures the examples for it now, instead of when a run first asks")
    flags.add_argument("--template", default="vicuna_v1", help="the template to measure with (default: %(default)s)")
    args = flags.read(argv)
    if args.verb == "sources":
        print(catalogue.describe(args.what, args.data_dir) if args.what else catalogue.listing(args.data_dir))
    elif args.what is None:
        raise UserError(f"data: {args.verb} needs the name of a data set")
    elif args.verb == "verify":
        verify(args.what, args.data_dir)
    elif args.what in DATASETS:
        DATASETS[args.what].build(args.data_dir)
        print(f"{args.what}: built in {args.data_dir}")
    else:
        build(args)


def build(args) -> None:
    if not args.name or "/" in args.name or args.name.startswith("."):
        raise UserError(f"data: give the set a --name, a plain word, not {args.name!r}" if args.name else
                        f"data: no data set {args.what!r} comes with a package (to build from a SPEC give --name=NAME){did_you_mean(args.what, DATASETS)}")
    source = common.open_source(args.what, args.data_dir, "data")
    directory = os.path.join(args.data_dir, args.name)
    with Bar(f"data build {args.name}", "shard") as bar:
        manifest = shards.build(source, directory, args.what, args.workers, progress=bar.update)
    print("\n".join(summary(args.name, manifest)))
    if args.tokenizer:
        tokenizer = common.tokenizer(args.tokenizer, None)
        processor = Processor(tokenizer, common.template(args.template, args.tokenizer), common.ANY_IMAGE)
        table = measure.table(built.open_source(args.data_dir, args.name, "all"), processor, "next_token", 0)
        print(f"{args.name}: {int(table.tail.sum() + table.head.sum() - table.images.sum()):,} tokens of text, {int(table.supervised.sum()):,} supervised, with {args.template} of {args.tokenizer}"
              + (f"; {len(table.faults)} examples cannot be used, such as {next(iter(table.faults.values()))}" if table.faults else ""))


def summary(name: str, manifest: dict) -> list[str]:
    """What a built set holds, and what of its source it does not."""
    size = sum(entry["bytes"] for entry in manifest["files"])
    lines = [f"{name}: {manifest['examples']:,} examples, {manifest['images']:,} images, {size / 1e6:,.1f} MB in {len(manifest['files'])} files; stages name it built:{name}:all"]
    if manifest["image_sides"]:
        lines.append(f"{name}: images of {' · '.join(f'{w}x{h} ({which})' for which, (w, h) in manifest['image_sides'].items())} pixels")
    for key, what in (("unreadable_images", "images are missing or broken (their examples keep their place, and a run quarantines them)"), ("left_out", "entries of the source left out")):
        if held := manifest[key]:
            lines.append(f"{name}: {len(held):,} {what}: {'; '.join(f'{k}: {v}' for k, v in list(held.items())[:3])}{f'; and {len(held) - 3:,} more in manifest.json' if len(held) > 3 else ''}")
    return lines + [f"{name}: {what}: {count:,}" for what, count in manifest["altered"].items()]


def verify(name: str, data_dir: str) -> None:
    directory = os.path.join(data_dir, name)
    with Bar(f"data verify {name}", "file") as bar:
        wrong = shards.verify(directory, bar.update)
    if wrong:
        raise UserError(f"data: {wrong[0]}{f'; and {len(wrong) - 1} more' if wrong[1:] else ''}; build {name} again")
    manifest = shards.read_manifest(directory)
    print(f"{name}: all {len(manifest['files']) + 1} files are as they were built ({manifest['examples']:,} examples, {manifest['images']:,} images)")
