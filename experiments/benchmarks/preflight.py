"""How long does it take to know whether a run over 100,000 rows may start?

Writes a file of conversations in LLaVA's layout about drawn photographs of 336 pixels, builds it into shards and measures its lengths, then runs
`vlmjax preflight` on LLaVA-1.5's recipe at toy size, with everything a manifest knows and without one.

    python experiments/benchmarks/preflight.py [--rows=100000] [--images=4000]
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
from PIL import Image

TOKENIZER = "tests/golden/llama/model"
WORDS = "what is the man in the red coat holding while he walks along the street and why does nobody look at him today".split()


def write(root: pathlib.Path, rows: int, images: int) -> None:
    """chat.json of 1 to 8 turns, every 16th row without an image, and its photographs: smooth noise, as large as a photograph of that size."""
    draw = np.random.default_rng(0)
    (root / "images").mkdir()
    for n in range(images):
        clouds = Image.fromarray(draw.integers(0, 256, (24, 32, 3), np.uint8)).resize((336, 252), Image.Resampling.BICUBIC)
        clouds.save(root / "images" / f"{n}.jpg", quality=85)
    out = []
    for i in range(rows):
        talk = []
        for k in range(int(draw.integers(1, 5))):
            text = lambda most: " ".join(draw.choice(WORDS, int(draw.integers(3, most))))
            talk += [{"from": "human", "value": ("<image>\n" if not k and i % 16 else "") + text(12)}, {"from": "gpt", "value": text(40)}]
        out.append({"id": str(i), **({"image": f"{i % images}.jpg"} if i % 16 else {}), "conversations": talk})
    (root / "chat.json").write_text(json.dumps(out))


def timed(*arguments: str) -> float:
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "vlmjax", *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout[-500:] + done.stderr[-2000:])
    return time.monotonic() - began


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--rows", type=int, default=100_000)
    flags.add_argument("--images", type=int, default=4000)
    args = flags.parse_args()
    with tempfile.TemporaryDirectory(prefix="preflight_") as folder:
        root = pathlib.Path(folder)
        write(root, args.rows, args.images)
        file = "llava:chat.json:images"
        build = timed("data", "build", file, "--name=mine", f"--tokenizer={TOKENIZER}", f"--data_dir={root}")

        def preflight(spec: str) -> float:
            stages = [f'--config.stages.{name}.{key}' for name in ("align", "instruct") for key in (f'data=(("{spec}",1.0),)', "length=4096", "images=8", "targets=2048")]
            return timed("preflight", "--config=experiments/llava_1_5.py:tiny", f"--data_dir={root}", *stages)

        preflight("built:mine:all")  # measures the first stage's template, which keeps nothing but the image, once and for all
        print("| what | seconds |\n|---|---:|")
        print(f"| `data build`: {args.rows:,} rows, {args.images:,} images, with lengths for one template | {build:.0f} |")
        print(f"| `preflight` of two stages over the built set | {preflight('built:mine:all'):.0f} |")
        print(f"| the same over the JSON file, without a manifest: everything tokenised, 64 images decoded | {preflight(file):.0f} |")


if __name__ == "__main__":
    main()
