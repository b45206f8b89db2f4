"""Writes the tables of the documentation.

    python experiments/tables.py demo [--workdir=runs/demo]      after launch/demo.sh: the demo's scores, in README.md
    python experiments/tables.py parity                          against tests/golden: errors per family and stage, in vlmjax/weights/README.md
"""
import argparse
import datetime
import json
import pathlib
import re
import subprocess

TOP = pathlib.Path(__file__).parent.parent
CONTROLS = ("real", "blind", "shuffled", "prior")


def demo(workdir: pathlib.Path) -> str:
    """The demo's scores and stages as Markdown, with the commit they were made by."""
    results, record = (json.loads((workdir / name).read_text()) for name in ("results.json", "record.json"))
    lines = ["| easy-VQA test | questions | " + " | ".join(CONTROLS) + " |", "|---|---:|" + "---:|" * len(CONTROLS)]
    scores = results["easy_vqa"]
    for metric in scores["real"]:
        name = metric.partition("/")[2] or "**all, exact match**"
        cells = (f"{100 * scores[c][metric]['value']:.1f} ± {100 * scores[c][metric]['stderr']:.1f}" for c in CONTROLS)
        lines.append(f"| {name} | {scores['real'][metric]['n']:,} | " + " | ".join(cells) + " |")
    seconds = " + ".join(f"{stage['name']} {stage['seconds']:.0f}" for stage in record["stages"])
    zero_shot, captions = (100 * results[task]["real"][metric]["value"] for task, metric in (("easy_vqa_zero_shot", "accuracy"), ("easy_vqa_caption", "exact_match")))
    lines += ["", f"Per cent ± one standard error (clustered by image). After `contrast`, zero-shot accuracy over 24 captions {zero_shot:.1f} %; after `align`, captions exactly "
              f"right {captions:.1f} %. Seconds: {seconds}; {record['wall_seconds']:.0f} with the evaluations, on {record['devices']['count']} {record['devices']['kind']} device of a 2-core machine. "
              f"Commit {(record['git_commit'] or 'unknown')[:10]}, {datetime.date.today()}."]
    return "\n".join(lines)


def put(path: pathlib.Path, name: str, text: str) -> None:
    """Replaces what stands between the two marks of a table."""
    old = path.read_text()
    new, times = re.subn(rf"(<!-- {name}:[^>]*-->\n).*?(<!-- /{name} -->)", lambda m: m[1] + text + "\n" + m[2], old, flags=re.DOTALL)
    if times != 1:
        raise SystemExit(f"{path}: has no place for {name}")
    path.write_text(new)


def parity() -> str:
    """The errors of every family with a golden file, stage by stage."""
    from vlmjax.parity import golden, table

    families = sorted(path.parent.name for path in (TOP / "tests" / "golden").glob("*/reference.npz"))
    lines = [line for family in families for line in table.markdown(family, golden.compare(TOP / "tests" / "golden" / family))]
    commit = subprocess.run(["git", "-C", str(TOP), "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True).stdout.strip() or "unknown"
    return "\n".join([*table.MARKDOWN_HEADER, *lines, "", f"Made after commit {commit}, {datetime.date.today()}, on a CPU."])


if __name__ == "__main__":
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("table", choices=("demo", "parity"))
    flags.add_argument("--workdir", type=pathlib.Path, default=TOP / "runs" / "demo")
    args = flags.parse_args()
    if args.table == "demo":
        put(TOP / "README.md", "demo-table", demo(args.workdir))
    else:
        put(TOP / "vlmjax" / "weights" / "README.md", "parity-table", parity())
