"""How much slower is the whole loader than Pillow alone? Images a second of one core: decode + resize + tokenise + pack, against decode + resize.

Draws photographs of 640x480 (noise at several scales, 50 to 100 KB as JPEG) with conversations in LLaVA's layout, builds them into shards, and takes turns on
one core over the same images: Pillow alone, on bytes that lie in memory (open, convert to RGB, the same resize rule, bicubic, to an array), and `Pipeline` with the rows
of LLaVA-1.5's second stage (2048 tokens, 2 images, 1472 targets; one worker), which reads shards, tokenises every conversation and has no pixel kept from before. Then
two workers against one on two cores, and where the time of a batch goes, by a profile.

    python experiments/benchmarks/loader.py [--images=512] [--repetitions=5] [--output=FILE]

Seconds of the process on its core, so that what else runs on it does not count; with two workers seconds of the clock. Then `python experiments/tables.py loader`.
"""
import argparse
import cProfile
import datetime
import io
import json
import os
import pathlib
import pstats
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import PIL
from PIL import Image

from vlmjax.commands import common
from vlmjax.data import shards
from vlmjax.data.batch import BatchShape
from vlmjax.data.conversation import TEMPLATES
from vlmjax.data.datasets import built, llava
from vlmjax.data.pipeline import Pipeline
from vlmjax.data.processor import Processor
from vlmjax.layout import RESIZE_RULES, ImageLayout
from vlmjax.train import record

TOKENIZER = "tests/golden/llama/model"
WIDTH, HEIGHT, SIZE, PATCH = 640, 480, 336, 14
TURN = 4  # steps before the other side's turn: what slows a core down slows both
LEAST = 0.8  # of Pillow's rate
WORDS = "what is the man in the red coat holding while he walks along the street and why does nobody look at him today".split()
# {part of the profile: functions whose time, with all they call, is that part}
PARTS = {"decode": ("decode",), "resize": ("fit",), "read": ("image_file",), "tokenise": ("encode",), "lay out": ("_lay_out",)}


def write(root: pathlib.Path, images: int) -> int:
    """chat.json, one conversation of 1 to 5 questions an image, about as long as LLaVA-1.5's by benchmarks/packing.py, and the photographs. → their mean size in bytes."""
    draw = np.random.default_rng(0)
    (root / "images").mkdir()
    rows, size = [], 0
    for n in range(images):
        scene = sum(weight * np.asarray(Image.fromarray(draw.integers(0, 256, (HEIGHT // scale, WIDTH // scale, 3), np.uint8)).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.float32)
                    for scale, weight in ((160, 0.5), (40, 0.25), (10, 0.15), (4, 0.1)))
        path = root / "images" / f"{n}.jpg"
        Image.fromarray((scene + draw.normal(0, 3, scene.shape)).clip(0, 255).astype(np.uint8)).save(path, quality=int(draw.integers(85, 91)))
        size += path.stat().st_size
        text = lambda most: " ".join(draw.choice(WORDS, int(draw.integers(3, most))))
        talk = [{"from": speaker, "value": "<image>\n" * (not k and speaker == "human") + text(most)} for k in range(int(draw.integers(1, 6))) for speaker, most in (("human", 10), ("gpt", 30))]
        rows.append({"id": str(n), "image": f"{n}.jpg", "conversations": talk})
    (root / "chat.json").write_text(json.dumps(rows))
    return size // images


def plain(data: bytes, rule: str, mean: Sequence[float]) -> np.ndarray:
    """What nobody can leave out: u8[336, 336, 3] by Pillow."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    if rule == "pad":
        side = max(image.size)
        square = Image.new("RGB", (side, side), tuple(int(255 * channel) for channel in mean))
        square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        image = square
    elif rule == "crop":
        image = image.resize((SIZE * image.width // image.height, SIZE), Image.Resampling.BICUBIC)
        left = (image.width - SIZE) // 2
        return np.asarray(image.crop((left, 0, left + SIZE, SIZE)))
    return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def pipeline(source: built.BuiltSource, rule: str, rows: int, workers: int) -> Pipeline:
    """One that has read and tokenised nothing; lengths lie beside the shards."""
    processor = Processor(common.tokenizer(TOKENIZER, None), TEMPLATES["vicuna_v1"], ImageLayout(SIZE, PATCH, rule))
    return Pipeline([(source, 1.0)], processor, "next_token", BatchShape(rows, 2048, 2, 1472, SIZE), 0, 1, workers=workers)


def drawn(made: Pipeline, start: int, stop: int) -> int:
    """Draws the batches of the steps start … stop−1. → images in them."""
    return sum(int(batch["image_mask"].sum()) for batch in made.iterator(start, stop, prefetch=2 * made.workers))


def in_turn(made: Pipeline, steps: int, files: Sequence[bytes], rule: str) -> tuple[float, float]:
    """(Pillow's, the pipeline's) images a second of the process over so many steps, a few of the one's and as many images of the other's in turn."""
    seconds, images, mean = [0.0, 0.0], 0, made.processor.layout.mean
    for start in range(0, steps, TURN):
        began = time.process_time()
        count = drawn(made, start, min(start + TURN, steps))
        seconds[1] += time.process_time() - began
        began = time.process_time()
        for data in files[images : images + count]:
            plain(data, rule, mean)
        seconds[0] += time.process_time() - began
        images += count
    return images / seconds[0], images / seconds[1]


def rate_of_clock(made: Pipeline, steps: int) -> float:
    """Images a second."""
    began = time.monotonic()
    return drawn(made, 0, steps) / (time.monotonic() - began)


def profile(made: Pipeline, steps: int) -> dict[str, float]:
    """Shares of the time of batches, made in this thread."""
    watch = cProfile.Profile()
    watch.runcall(lambda: [made.batch(step) for step in range(steps)])
    held = pstats.Stats(watch).stats
    whole = sum(own for _, _, own, _, _ in held.values())
    in_package = {key[2]: row[3] for key, row in held.items() if os.sep + os.path.join("vlmjax", "data") + os.sep in key[0]}
    shares = {part: sum(in_package.get(name, 0.0) for name in names) / whole for part, names in PARTS.items()}
    return shares | {"plan, pack and the rest": 1 - sum(shares.values())}


def measure(root: pathlib.Path, images: int, repetitions: int, rows: int) -> dict[str, Any]:
    size = write(root, images)
    shards.build(llava.open_source(root, "chat.json", "images"), root / "mine", "llava:chat.json:images", workers=1)
    source = built.open_source(root, "mine", "all")
    files = [path.read_bytes() for path in sorted((root / "images").iterdir())]
    drawn(pipeline(source, "pad", rows, 1), 0, 1)  # measures lengths and loads what is loaded once
    # Not the last batch of the epoch, which goes on with the next one.
    steps = {rule: len(pipeline(source, rule, rows, 1).rows(0)) // rows for rule in RESIZE_RULES}
    out: dict[str, Any] = {"images": images, "bytes": size, "rows": rows, "repetitions": repetitions, "steps": steps["pad"], "rates": {}, "loads": [], "workers": {1: [], 2: []}}
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:1])
    for rule in RESIZE_RULES:
        turns = []
        for _ in range(repetitions):
            turns.append(in_turn(pipeline(source, rule, rows, 1), steps[rule], files, rule))
            out["loads"].append(os.getloadavg()[0])
        out["rates"][rule] = dict(zip(("pillow", "pipeline"), zip(*turns)))
    out["profile"] = profile(pipeline(source, "pad", rows, 1), steps["pad"])
    made = pipeline(source, "pad", rows, 1)
    batch = made.batch(0)
    out["per_image"] = {"tokens": float((batch["segments"] > 0).sum() / batch["image_mask"].sum()), "supervised": float((batch["weights"] > 0).sum() / batch["image_mask"].sum())}
    if len(cores) > 1:
        os.sched_setaffinity(0, cores[:2])
        for _ in range(repetitions):
            for workers, rates in out["workers"].items():
                rates.append(rate_of_clock(pipeline(source, "pad", rows, workers), steps["pad"]))
                out["loads"].append(os.getloadavg()[0])
    return out


def markdown(result: Mapping[str, Any]) -> list[str]:
    """A result as a table, and what it was measured on."""
    lines = ["| resize rule | Pillow alone, images/s | pipeline, images/s | ratio | of each repetition | floor |", "|---|---:|---:|---:|---:|---:|"]
    for rule, rates in result["rates"].items():
        ours, theirs = (statistics.median(rates[who]) for who in ("pipeline", "pillow"))
        each = [a / b for a, b in zip(rates["pipeline"], rates["pillow"])]
        verdict = f"{LEAST} {'kept' if ours / theirs >= LEAST else 'MISSED'}"
        lines.append(f"| {rule}{' (LLaVA-1.5, stage 2)' if rule == 'pad' else ''} | {theirs:.0f} | {ours:.0f} | **{ours / theirs:.2f}** | {min(each):.2f} to {max(each):.2f} | {verdict} |")
    one, two = (result["workers"][str(n)] for n in (1, 2))
    by_two = f"Two workers on two cores, of the clock: {statistics.median(two):.0f} images/s, one worker {statistics.median(one):.0f}. " if one else ""
    per_image = result["per_image"]
    return lines + ["", f"Time of a batch (pad): {', '.join(f'{part} {100 * share:.0f} %' for part, share in result['profile'].items())}. {by_two}{result['images']} drawn photographs of {WIDTH}x{HEIGHT}, "
                    f"{result['bytes'] / 1000:.0f} KB each, to {SIZE}; {per_image['tokens']:.0f} tokens an image with its conversation, {per_image['supervised']:.0f} of them supervised. Medians of {result['repetitions']} repetitions in turn; "
                    f"load {min(result['loads']):.1f} to {max(result['loads']):.1f}. Pillow {result['pillow']}; commit {result['commit'][:10]}{'+' * result['commit'].endswith('+')}, {result['date']}."]


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--images", type=int, default=512)
    flags.add_argument("--rows", type=int, default=8, help="of a batch")
    flags.add_argument("--repetitions", type=int, default=5)
    flags.add_argument("--output", type=pathlib.Path, default=pathlib.Path(__file__).with_suffix(".json"))
    args = flags.parse_args()
    with tempfile.TemporaryDirectory(prefix="loader_") as folder:
        result = measure(pathlib.Path(folder), args.images, args.repetitions, args.rows)
    result |= {"date": str(datetime.date.today()), "commit": record.git_commit() or "unknown", "pillow": PIL.__version__}
    args.output.write_text(json.dumps(result, indent=1) + "\n")
    print("\n".join(markdown(json.loads(args.output.read_text()))))


if __name__ == "__main__":
    main()
