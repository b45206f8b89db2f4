"""How fast is a training step, and an answer, beside transformers and PyTorch on the same CPU cores?

One model of LLaVA's shape with random weights, written once in transformers' layout and read by both sides; the same tokens and pixels, float32, AdamW
without decay, two threads. Each side is a process of its own (speed_jax.py, speed_torch.py), and the two take turns: ours, theirs, ours, … Four cells:

    stage1    a training step in which only the projector learns
    stage2    one in which the projector and the language model learn, the encoder is frozen
    answer1   greedy answers of 64 tokens about an image, end tokens switched off, one at a time
    answer8   eight at a time

Nothing is timed before both sides agree on the loss, on three gradients and on the loss three updates later, or on every token. The reference is
measured in variants: logits at all places or at the supervised ones; a cache that grows or one of fixed size. A ratio is their seconds over ours,
above 1 we are faster; what counts is the one to the variant that is faster. Seconds of the first step count from the start of a process, compilation included, with nothing kept from before.

    python experiments/benchmarks/speed.py --torch_python=PYTHON [--case=cpu] [--cells=stage1,answer8] [--repetitions=3] [--output=FILE]

PYTHON has torch and transformers 5 (`pip install torch transformers`). Then `python experiments/tables.py speed`. Exits with 1 when the sides disagree.
"""
import argparse
import datetime
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

HERE = pathlib.Path(__file__).parent
NEW_TOKENS, LEARNING_RATE, UPDATES = 64, 1e-4, 3

# Sizes: of the encoder (vit.ViTConfig), the language model (decoder.DecoderConfig), and of batches: rows, T, S supervised places at a row's end; T of a prompt.
CASES = {
    "cpu": {
        "encoder": {"size": 224, "patch": 16, "width": 384, "layers": 12, "heads": 6, "mlp": 1536},
        "decoder": {"vocab": 32000, "width": 512, "layers": 8, "heads": 8, "kv_heads": 8, "head_dim": 64, "mlp": 1376},
        "rows": 4, "length": 320, "targets": 64, "prompt": 256, "steps": 5, "answers": 3,
    },
    "tiny": {
        "encoder": {"size": 32, "patch": 8, "width": 32, "layers": 3, "heads": 2, "mlp": 64},
        "decoder": {"vocab": 256, "width": 32, "layers": 2, "heads": 2, "kv_heads": 1, "head_dim": 16, "mlp": 48},
        "rows": 2, "length": 32, "targets": 8, "prompt": 24, "steps": 2, "answers": 2,
    },
}
# {cell: (variants of the reference, what learns or how many rows, least ratio asked for)}
CELLS = {
    "stage1": (("logits everywhere", "logits where supervised"), ("projector",), 0.90),
    "stage2": (("logits everywhere", "logits where supervised"), ("projector", "decoder"), 0.75),
    "answer1": (("growing cache", "fixed cache"), 1, 1.0),
    "answer8": (("growing cache", "fixed cache"), 8, 0.8),
}
# The gradients that are compared, by the names of the checkpoint.
GRADIENTS = {
    "stage1": ("multi_modal_projector.linear_1.weight", "multi_modal_projector.linear_1.bias", "multi_modal_projector.linear_2.weight"),
    "stage2": ("multi_modal_projector.linear_1.weight", "language_model.model.layers.0.self_attn.q_proj.weight", "language_model.model.layers.{last}.mlp.down_proj.weight"),
}
# Largest difference, relative to the reference's norm; of tokens, how many may differ.
BOUNDS = {"loss": 1e-4, "gradient": 1e-3, "later": 1e-3, "tokens": 0}
OURS = "vlmjax"


def compare(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Everything that theirs has (`loss`, `later`, `gradient/NAME`, `tokens`) against ours, key by key. What ours lacks, or what is not finite, does not agree."""
    out = []
    for key, theirs_ in theirs.items():
        bound, mine = BOUNDS[key.split("/")[0]], ours.get(key)
        if mine is None or mine.shape != theirs_.shape:
            difference = None
        elif key == "tokens":
            difference = int((mine != theirs_).sum())
        else:
            difference = float(np.linalg.norm(np.float64(mine) - theirs_) / np.linalg.norm(np.float64(theirs_)))
        out.append({"what": key, "difference": difference, "bound": bound, "agrees": difference is not None and difference <= bound})
    return out


def seconds_of(runs: Sequence[Mapping[str, float]], what: str) -> float:
    """The median of one repetition. what: `step`; `first`, an answer of one token; `whole`; `token`, each of the others."""
    value = {"token": lambda run: (run["whole"] - run["first"]) / NEW_TOKENS}.get(what, lambda run: run[what])
    return statistics.median(value(run) for run in runs)


def summary(cell: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Medians over repetitions in seconds, by side and variant; the ratio to each variant, and to the faster one also of each repetition."""
    by_turn: dict[str, list[float]] = {}
    for turn in cell["turns"]:
        by_turn.setdefault(turn["who"], []).append(seconds_of(turn["runs"], what))
    medians = {who: statistics.median(values) for who, values in by_turn.items()}
    ratios = {who: seconds / medians[OURS] for who, seconds in medians.items() if who != OURS}
    fastest = min(ratios, key=ratios.get)
    each = [theirs / ours for ours, theirs in zip(by_turn[OURS], by_turn[fastest])]
    return {"seconds": medians, "ratios": ratios, "ratio": ratios[fastest], "least": min(each), "most": max(each)}


MEASURES = {  # {measure: (what it is called, its unit in seconds, digits)}
    "step": ("a step, s", 1, 3),
    "token": ("a further token of all rows, ms", 1e-3, 1),
    "first": ("encoder, prompt and first token, ms", 1e-3, 0),
}


def markdown(result: Mapping[str, Any]) -> list[str]:
    """A result as a table, one line per cell and measure, and what it was measured on."""
    lines = ["| cell | measure | vlmjax | transformers | ratio | of each repetition | floor |", "|---|---|---:|---|---:|---:|---:|"]
    timed = {name: cell for name, cell in result["cells"].items() if cell["turns"]}
    for name, cell in result["cells"].items():
        if name not in timed:
            lines.append(f"| {name} | not timed: {cell['refused']} | | | | | |")
            continue
        for measure in ("step",) if name in GRADIENTS else ("token", "first"):
            made, floor = summary(cell, measure), CELLS[name][2]
            what, unit, digits = MEASURES[measure]
            theirs = ", ".join(f"{made['seconds'][who] / unit:.{digits}f} ({who}, {ratio:.2f})" for who, ratio in made["ratios"].items())
            verdict = "" if measure == "first" else f"{floor:.2f} {'kept' if made['ratio'] >= floor else 'MISSED'}"
            lines.append(f"| {name} | {what} | {made['seconds'][OURS] / unit:.{digits}f} | {theirs} "
                         f"| **{made['ratio']:.2f}** | {made['least']:.2f} to {made['most']:.2f} | {verdict} |")
    turns = [turn for cell in timed.values() for turn in cell["turns"]]
    case, checks = result["case"], [check for cell in result["cells"].values() for check in cell["checks"]]
    e, d = case["encoder"], case["decoder"]
    lines += ["", f"Encoder {e['layers']} x {e['width']}, {e['size']}/{e['patch']}; language model {d['layers']} x {d['width']}, vocabulary {d['vocab']:,}; steps of {case['rows']} rows of {case['length']} tokens, "
              f"{case['targets']} of each supervised; prompts of {case['prompt']} tokens, an image in them, and {NEW_TOKENS} tokens after the first. float32, {case['threads']} thread{'s' * (case['threads'] > 1)} a side. "
              f"{len(checks)} checks, {sum(not check['agrees'] for check in checks)} failed."]
    if turns:
        pairs = lambda key, form: "; ".join(f"{name} {cell[key][OURS]:{form}} and {cell[key]['transformers']:{form}}" for name, cell in timed.items())
        others, loads = [turn["others"] for turn in turns], [turn[key] for turn in turns for key in ("load_before", "load_after")]
        lines[-1] += (f" From the start of a process to the end of its first step or answer, s: {pairs('first_seconds', '.0f')}. Most memory, MiB: {pairs('peak_MiB', ',.0f')}. "
                      f"{result['repetitions']} repetitions in turn; meanwhile other processes used {min(others):.1f} to {max(others):.1f} cores (median {statistics.median(others):.1f}), load {min(loads):.1f} to {max(loads):.1f}.")
    made_by = f"commit {result['commit'][:10]}{'+' * result['commit'].endswith('+')}, {result['date']}"
    lines[-1] += f" {result['machine']['cpu']}, {result['machine']['cores']} cores; {', '.join(f'{name} {version}' for name, version in result['versions'].items())}; {made_by}."
    return lines


class Side:
    """One process. It answers each line on its standard input, a request in JSON, with one line."""

    def __init__(self, who: str, command: Sequence[str], environment: Mapping[str, str]):
        self.who, began = who, time.monotonic()
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})
        self.about = self._read()
        self.first_seconds = time.monotonic() - began

    def ask(self, **request: Any) -> dict[str, Any]:
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{self.who}: ended with {self._process.wait()}")
        return json.loads(line)

    def close(self) -> float:
        """→ the most memory it held, in MiB."""
        peak = self.ask(stop=True)["peak_MiB"]
        self._process.communicate()
        return peak

    def processor_seconds(self) -> float:
        fields = pathlib.Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def busy_seconds() -> float:
    """What all processors have worked since they were started: everything but idle and waiting."""
    user, nice, system, _, _, irq, softirq, steal, *_ = map(int, pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def turn(side: Side, others: Sequence[Side], variant: str, times: int) -> dict[str, Any]:
    """One repetition of one side, with the load before and after and how many cores processes other than the two sides used."""
    sides = (side, *others)
    spent = lambda: (time.monotonic(), busy_seconds(), sum(s.processor_seconds() for s in sides))
    load, before = os.getloadavg()[0], spent()
    runs = side.ask(variant=variant, times=times)["runs"]
    wall, busy, own = (b - a for a, b in zip(before, spent()))
    return {"who": variant or OURS, "runs": runs, "load_before": load, "load_after": os.getloadavg()[0], "others": max(0.0, (busy - own) / wall)}


def run_cell(name: str, case: Mapping[str, Any], directory: pathlib.Path, torch_python: str, repetitions: int) -> dict[str, Any]:
    threads = str(case["threads"])
    environment = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1", "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "2"}
    ours = Side(OURS, [sys.executable, str(HERE / "speed_jax.py"), str(directory), name], environment)
    theirs = Side("transformers", [torch_python, str(HERE / "speed_torch.py"), str(directory), name], environment)
    sides, variants = (ours, theirs), CELLS[name][0]
    load = lambda side, variant: dict(np.load(directory / f"{name}-{side}{variant}.npz"))
    checks = [{"variant": variant, **check} for i, variant in enumerate(variants) for check in compare(load("ours", ""), load("theirs", i))]
    cell = {"checks": checks, "turns": [], "versions": {**ours.about, **theirs.about}, "first_seconds": {side.who: side.first_seconds for side in sides}}
    if wrong := [check for check in checks if not check["agrees"]]:
        cell["refused"] = "; ".join(f"{check['what']} differs by {check['difference']} with {check['variant']}, bound {check['bound']}" for check in wrong)
    else:
        times = case["steps"] if name.startswith("stage") else case["answers"]
        for _ in range(repetitions):
            for side, variant in ((ours, ""), *((theirs, variant) for variant in variants)):
                cell["turns"].append(turn(side, [s for s in sides if s is not side], variant, times))
    cell["peak_MiB"] = {side.who: side.close() for side in sides}
    return cell


def main() -> int:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--torch_python", required=True, help="a Python that has torch and transformers 5")
    flags.add_argument("--case", choices=CASES, default="cpu")
    flags.add_argument("--cells", default=",".join(CELLS))
    flags.add_argument("--threads", type=int, default=2)
    flags.add_argument("--repetitions", type=int, default=3)
    flags.add_argument("--output", type=pathlib.Path, default=HERE / "speed.json")
    args = flags.parse_args()
    case = {**CASES[args.case], "threads": args.threads}
    cores = sorted(os.sched_getaffinity(0))[: args.threads]  # XLA has as many threads as it may use cores
    os.sched_setaffinity(0, cores)
    directory = pathlib.Path(tempfile.mkdtemp(prefix="speed_"))
    try:
        (directory / "case.json").write_text(json.dumps(case))
        made = subprocess.run([sys.executable, str(HERE / "speed_jax.py"), str(directory), "prepare"], check=True, stdout=subprocess.PIPE, text=True)
        cpu = next((line.partition(":")[2].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "unknown")
        result = {"date": str(datetime.date.today()), "commit": json.loads(made.stdout)["commit"], "machine": {"cpu": cpu, "cores": os.cpu_count()}, "case": case, "repetitions": args.repetitions, "cells": {}}
        for name in args.cells.split(","):
            cell = run_cell(name, case, directory, args.torch_python, args.repetitions)
            result["versions"] = cell.pop("versions")
            result["cells"][name] = cell
            args.output.write_text(json.dumps(result, indent=1) + "\n")
            print("\n".join(markdown({**result, "cells": {name: cell}})), flush=True)
    finally:
        shutil.rmtree(directory)
    return 0 if all(check["agrees"] for cell in result["cells"].values() for check in cell["checks"]) else 1


if __name__ == "__main__":
    sys.exit(main())
