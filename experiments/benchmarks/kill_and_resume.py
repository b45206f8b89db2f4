"""Does a run that is killed anywhere end bit for bit like one that is not?

Trains once undisturbed, then N times: the same command in a process group of its own, SIGKILL to the group from outside at a
time drawn uniformly over the whole run (start-up, saves, stage changes and evaluation included), then the same command again.
Every file that says what was learned or answered must be equal: parameters, optimizer state, results, predictions, metrics.

    python experiments/benchmarks/kill_and_resume.py --times=10 [--config=experiments/demo.py:tiny] [--seed=0]
    python experiments/benchmarks/kill_and_resume.py --mixture --times=50

--mixture: one stage over a weighted mixture of three sources, with and without images, packed several examples to a row, shuffled, made ahead by two
workers, over the ends of several epochs. metrics/ holds a checksum of the examples of every row of every step, so their sequence is compared, too.
"""
import argparse
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

_SOURCES = (("easy_vqa:train[:60]:questions", 1.0), ("easy_vqa:train[60:120]:captions", 1.5), ("easy_vqa:train[:20]:texts", 0.3))
MIXTURE = ("--config.run=('instruct',)", f"--config.stages.instruct.data={_SOURCES}".replace(" ", ""), "--config.stages.instruct.length=320", "--config.stages.instruct.images=3",
           "--config.stages.instruct.targets=64", "--config.stages.instruct.batch=4", "--config.stages.instruct.epochs=2.5", "--config.workers=2",
           "--config.evaluate.after.contrast=()", "--config.evaluate.after.align=()", "--config.evaluate.after.instruct=()", "--config.checkpoint.every=7")


def start(config: list[str], workdir: pathlib.Path, log: pathlib.Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "vlmjax", "train", *config, f"--workdir={workdir}"]
    return subprocess.Popen(command, stdout=log.open("a"), stderr=subprocess.STDOUT, start_new_session=True)


def finish(config: list[str], workdir: pathlib.Path, log: pathlib.Path) -> None:
    if start(config, workdir, log).wait():
        sys.exit(f"the run failed:\n{log.read_text()[-2000:]}")


def contents(workdir: pathlib.Path) -> dict[str, str]:
    """{what: hash} of everything a run learned or answered."""
    import jax
    import numpy as np
    import orbax.checkpoint as ocp

    from vlmjax.train import metrics, speed

    sha = lambda data: hashlib.sha256(data).hexdigest()
    out = {f.name: sha(f.read_bytes()) for f in [workdir / "model" / "model.safetensors", *sorted((workdir / "predictions").glob("*")), *sorted((workdir / "maps").glob("*")), *sorted((workdir / "quarantine").glob("*"))]}
    results = json.loads((workdir / "results.json").read_text()) if (workdir / "results.json").exists() else {}
    for entry in results.values():
        entry["provenance"].pop("commit")  # differs when someone commits beside the runs
    out["results.json"] = sha(json.dumps(results).encode())
    for stage in sorted(p for p in (workdir / "stages").iterdir()):
        step = max(stage.iterdir(), key=lambda p: int(p.name) if p.name.isdigit() else -1)
        for item in ("params", "rest"):
            tree = ocp.StandardCheckpointer().restore(step.absolute() / item)
            leaves = sorted((str(path), np.asarray(leaf)) for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0])
            out[f"{stage.name}/{step.name}/{item}"] = sha(b"".join(path.encode() + leaf.tobytes() for path, leaf in leaves))
        rows = [{k: v for k, v in row.items() if k not in speed.KEYS} for row in metrics.read(workdir, stage.name)]
        out[f"metrics/{stage.name}"] = sha(json.dumps(rows).encode())
    record = json.loads((workdir / "record.json").read_text())
    out["record"] = sha(json.dumps([{k: v for k, v in stage.items() if k not in ("seconds", *speed.KEYS)} for stage in record["stages"]]).encode())
    return out


def reached(workdir: pathlib.Path) -> str:
    """The newest checkpoint when the run was killed."""
    stages = workdir / "stages"
    if not stages.exists():
        return "before the first stage"
    stage = max(stages.iterdir(), key=lambda p: p.stat().st_ctime)
    return f"{stage.name} {max((int(p.name) for p in stage.iterdir() if p.name.isdigit()), default=0)}"


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--config", default="experiments/demo.py:tiny")
    flags.add_argument("--times", type=int, default=10)
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument("--mixture", action="store_true")
    args = flags.parse_args()
    config = [f"--config={args.config}", *(MIXTURE if args.mixture else ())]
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    root, draw, equal = pathlib.Path(tempfile.mkdtemp(prefix="kill_and_resume_")), random.Random(args.seed), 0
    finish(config, root / "warm", root / "log")  # fills the compilation cache, so that the timed run is as long as the killed ones
    began = time.monotonic()
    finish(config, root / "whole", root / "log")
    seconds = time.monotonic() - began
    whole, warm = contents(root / "whole"), contents(root / "warm")
    print(f"undisturbed: {seconds:.0f} s, two such runs {'equal' if whole == warm else 'DIFFER'}", flush=True)
    for n in range(args.times):
        workdir, after = root / f"killed{n}", draw.uniform(0, seconds)
        process = start(config, workdir, root / "log")
        try:
            process.wait(timeout=after)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        at = reached(workdir)
        finish(config, workdir, root / "log")
        got = contents(workdir)
        differ = [name for name in sorted({*whole, *got}) if whole.get(name) != got.get(name)]
        equal += not differ
        print(f"kill {n + 1}: after {after:5.1f} s, newest checkpoint {at}: {'equal' if not differ else 'DIFFERS in ' + ', '.join(differ)}", flush=True)
        shutil.rmtree(workdir)
    print(f"{equal} of {args.times} equal")
    shutil.rmtree(root)
    sys.exit(0 if equal == args.times and whole == warm else 1)


if __name__ == "__main__":
    main()
