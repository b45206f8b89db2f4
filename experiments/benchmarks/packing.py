"""How full are the rows of a long-tailed mixture, and how long does it take to plan an epoch of it?

Lengths like those of LLaVA-1.5's 665,298 conversations, simulated, since the files are not at hand: 576 tokens an image, 35 of Vicuna's
prompt before it, numbers of conversations per source close to the published ones (they add up to the true total), and estimates of how long these are.

    python experiments/benchmarks/packing.py [--length=4096] [--images=M --targets=S] [--image=576] [--share=1.0] [--seed=0]

Budgets of images and supervised tokens are chosen where they are not given (experiments/llava_1_5.py: --length=2048 --images=2 --targets=1472;
experiments/internvl.py: --length=16384 --images=4 --targets=2560 --image=3330, an image of 13 tiles). What no row can hold is left out.
"""
import argparse
import resource
import sys
import time
from typing import NamedTuple

import numpy as np

from vlmjax.data import packing
from vlmjax.data.lengths import LengthTable

PROMPT, IMAGE = 35, 576
LONGEST = 2048  # text tokens of a conversation; what was longer was cut before it was published
COCO = 82_783  # images of train2014, which seven of the sources show
MARKS = 8  # "USER: … ASSISTANT:" and the end mark of a turn


class Part(NamedTuple):
    """Conversations; distinct images (of COCO's when there are fewer than conversations, else their own); turns on average and at most;
    tokens of a question and of an answer on average; how far lengths spread (sigma of their logarithm)."""

    conversations: int
    images: int
    turns: float
    most_turns: int
    question: float
    answer: float
    spread: float


# LLaVA-1.5 (arXiv:2310.03744), table 7. VQAv2: 443,757 questions, GQA: 943,000, OCR-VQA: 1,002,146 on 207,572 covers, so turns per image
# are known; A-OKVQA: 17,056 questions, once for each choice; RefCOCO and VG: at most 10 turns. Tokens of questions and answers are guesses.
PARTS = {
    "LLaVA conversation": Part(56_681, 56_000, 4.5, 10, 14, 35, 0.7),
    "LLaVA detail": Part(23_240, 23_000, 1, 1, 14, 130, 0.4),
    "LLaVA reasoning": Part(77_791, 77_000, 1, 1, 20, 130, 0.4),
    "VQAv2": Part(82_783, 82_783, 5.36, 30, 9, 2, 0.3),
    "OKVQA": Part(8_998, 8_990, 1, 1, 22, 2, 0.3),
    "A-OKVQA": Part(66_160, 17_056, 1, 1, 60, 2, 0.3),
    "RefCOCO": Part(48_447, 24_000, 7, 10, 30, 18, 0.4),
    "GQA": Part(72_140, 0, 13.07, 60, 11, 2, 0.3),
    "OCR-VQA": Part(80_000, 0, 4.83, 8, 13, 7, 0.6),
    "TextCaps": Part(21_953, 0, 1, 1, 90, 18, 0.6),
    "VG": Part(86_417, 0, 8, 10, 30, 18, 0.4),
}
SHAREGPT = 40_688  # conversations without images, a fifth of them as long as they may be


def mixture(share: float = 1.0, seed: int = 0, image: int = IMAGE) -> LengthTable:
    """The table of the mixture, or of a share of its conversations and images, in random order. image: tokens of one."""
    rng = np.random.default_rng(seed)
    scaled = lambda count: round(share * count)
    columns, own = [], scaled(COCO)
    for part in PARTS.values():
        n = scaled(part.conversations)
        turns = np.minimum(1 + rng.poisson(part.turns - 1, n), part.most_turns)
        first = np.cumsum(turns) - turns
        # Half of the spread is the conversation's, half the turn's.
        stretch = lambda: np.exp(part.spread * np.sqrt(0.5) * (np.repeat(rng.standard_normal(n), turns) + rng.standard_normal(turns.sum())) - part.spread**2 / 2)
        answers = np.add.reduceat(np.rint(part.answer * stretch()).astype(int) + 2, first)
        tail = np.add.reduceat(np.rint(part.question * stretch()).astype(int) + MARKS, first) + answers
        if part.images:
            group = np.resize(rng.permutation(scaled(COCO))[: scaled(part.images)], n)
        else:
            group, own = own + np.arange(n), own + n
        cut = np.minimum(LONGEST - PROMPT, tail) / tail
        columns.append((np.full(n, PROMPT + image), (tail * cut).astype(int), np.maximum(answers * cut, 1).astype(int), np.ones(n, int), group))
    n = scaled(SHAREGPT)
    text = np.minimum(LONGEST, PROMPT + 20 + np.rint(900 * np.exp(0.9 * rng.standard_normal(n)))).astype(int)
    columns.append((np.zeros(n, int), text, ((text - PROMPT) * rng.beta(9, 3, n)).astype(int) + 1, np.zeros(n, int), own + np.arange(n)))
    table = np.concatenate(columns, axis=1).astype(np.int32)
    return LengthTable(*table[:, rng.permutation(table.shape[1])])


def main() -> int:
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--length", type=int, default=4096)
    args.add_argument("--images", type=int)
    args.add_argument("--targets", type=int)
    args.add_argument("--image", type=int, default=IMAGE, help="tokens of an image")
    args.add_argument("--share", type=float, default=1.0)
    args.add_argument("--seed", type=int, default=0)
    args = args.parse_args()
    table = mixture(args.share, args.seed, args.image)
    tokens = table.head + table.tail
    drawn = np.flatnonzero((tokens <= args.length) & (table.supervised <= (args.targets or args.length)))
    print(f"{len(table):,} conversations, {len(np.unique(table.group[table.images > 0])):,} images, {(table.images == 0).sum():,} without; "
          f"tokens: mean {tokens.mean():.0f}, median {np.median(tokens):.0f}, 99 % below {np.quantile(tokens, 0.99):.0f}, most {tokens.max()}; left out {len(table) - len(drawn):,}\n")
    print("| rows | examples a head | T | M | S | rows | examples a row | tokens real | image slots real | supervised slots real | to choose M and S, s | to plan an epoch, s |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    alone = packing.Plan(drawn, np.arange(len(drawn) + 1), np.arange(len(drawn) + 1))
    line("one example each", 1, int(tokens[drawn].max()), packing.Budget(1, int(table.supervised[drawn].max())), alone, table, "", "")
    for per_group in (1, 8):
        start = time.process_time()
        budget = packing.Budget(args.images, args.targets) if args.images and args.targets else packing.choose(table, drawn, args.length, per_group)
        chosen = time.process_time()
        plan = packing.plan(table, drawn, args.length, *budget, per_group, args.seed, 0)
        line("packed", per_group, args.length, budget, plan, table, f"{chosen - start:.1f}", f"{time.process_time() - chosen:.1f}")
    print(f"\nSeconds of one core. Largest memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB, a plan "
          f"{sum(array.nbytes for array in (plan.examples, plan.pieces, plan.rows)) / 2**20:.1f} MiB.")
    return 0


def line(name: str, per_group: int, length: int, budget: packing.Budget, plan: packing.Plan, table: LengthTable, *seconds: str) -> None:
    share = packing.usage(plan, table, length, *budget)
    cells = (name, per_group, length, *budget, f"{share.rows:,}", f"{len(plan.examples) / len(plan):.2f}", *(f"{100 * x:.1f} %" for x in share[1:]), *seconds)
    print("| " + " | ".join(map(str, cells)) + " |")


if __name__ == "__main__":
    sys.exit(main())
