"""Writes the tables of the documentation from the run directories they report.

    python experiments/tables.py [--workdir=runs/demo]      after launch/demo.sh: the demo's table in README.md
"""
import argparse
import datetime
import json
import pathlib
import re

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


if __name__ == "__main__":
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--workdir", type=pathlib.Path, default=TOP / "runs" / "demo")
    put(TOP / "README.md", "demo-table", demo(flags.parse_args().workdir))
