"""Writes the tables of the documentation.

    python experiments/tables.py demo [--workdir=runs/demo]      after launch/demo.sh: the demo's scores, in README.md
    python experiments/tables.py smollm2 [--workdir=runs/smollm2] after launch/demo.sh smollm2: its scores and text ability, in experiments/README.md
    python experiments/tables.py ablation [--workdir=runs/ablations/stages] after vlmjax ablate: which stages the demo needs, in README.md
    python experiments/tables.py scenes [--workdir=runs/scenes]   after vlmjax diagnose: where the model of experiments/scenes.py fails, in README.md
    python experiments/tables.py plans                           after vlmjax plan --output=launch/plans: what slices cost, in launch/README.md
    python experiments/tables.py speed                           after experiments/benchmarks/speed.py: beside transformers, in experiments/README.md
    python experiments/tables.py loader                          after experiments/benchmarks/loader.py: beside Pillow alone, in experiments/README.md
    python experiments/tables.py encode_once                     after experiments/benchmarks/encode_once.py: where a frozen encoder pays to be computed once, in experiments/README.md
    python experiments/tables.py benchmarks                      what vlmjax evaluate asks, and the programs that its scores are held to, in vlmjax/evaluate/README.md
    python experiments/tables.py parity                          against tests/golden: errors per family and stage, in vlmjax/weights/README.md
"""
import argparse
import datetime
import importlib
import json
import pathlib
import re
import subprocess

TOP = pathlib.Path(__file__).parent.parent
MEASURED = ("speed", "loader", "encode_once")
CONTROLS = ("real", "blind", "shuffled", "prior")
PUBLISHED = {  # of LLaVA-1.5-7B, by its authors (haotian-liu/LLaVA, docs/MODEL_ZOO.md)
    "vqav2_upload": "78.5", "gqa": "62.0", "vizwiz": "50.0 (test, by its server)", "textvqa_ocr": "58.2", "scienceqa": "66.8 (`accuracy/image`)", "pope": "85.9 (`f1`)", "mme": "1510.7 (`perception`)",
    "mmbench": "64.3 (`sets`, answers read by GPT where a rule cannot)"}


def scores_of(results: dict) -> list[str]:
    """The scores of easy-VQA under every control, by kind of question."""
    lines = ["| easy-VQA test | questions | " + " | ".join(CONTROLS) + " |", "|---|---:|" + "---:|" * len(CONTROLS)]
    scores = results["easy_vqa"]
    for metric in scores["real"]:
        name = metric.partition("/")[2] or "**all, exact match**"
        cells = (f"{100 * scores[c][metric]['value']:.1f} ± {100 * scores[c][metric]['stderr']:.1f}" for c in CONTROLS)
        lines.append(f"| {name} | {scores['real'][metric]['n']:,} | " + " | ".join(cells) + " |")
    return lines


def seconds_of(record: dict) -> str:
    return " + ".join(f"{stage['name']} {stage['seconds']:.0f}" for stage in record["stages"])


def made_by(record: dict) -> str:
    return f"Commit {(record['git_commit'] or 'unknown')[:10]}, {datetime.date.today()}."


def demo(workdir: pathlib.Path) -> str:
    """The demo's scores and stages as Markdown, with the commit they were made by."""
    results, record = (json.loads((workdir / name).read_text()) for name in ("results.json", "record.json"))
    lines = scores_of(results)
    zero_shot, captions = (100 * results[task]["real"][metric]["value"] for task, metric in (("easy_vqa_zero_shot", "accuracy"), ("easy_vqa_caption", "exact_match")))
    lines += ["", f"Per cent ± one standard error (clustered by image). After `contrast`, zero-shot accuracy over 24 captions {zero_shot:.1f} %; after `align`, captions exactly "
              f"right {captions:.1f} %. Seconds: {seconds_of(record)}; {record['wall_seconds']:.0f} with the evaluations, on {record['devices']['count']} {record['devices']['kind']} device of a 2-core machine. "
              + made_by(record)]
    return "\n".join(lines)


def ablation(workdir: pathlib.Path) -> str:
    """The table that `vlmjax ablate` wrote of the demo's last task, with the commit its runs were made by."""
    found = json.loads((workdir / "ablation.json").read_text())
    runs = [run for row in found["rows"].values() for run in row["runs"].values()]
    (part,) = [part for part in ("\n\n" + (workdir / "ablation.md").read_text()).split("\n\n**") if part.startswith("easy_vqa**")]
    notes = "".join(f" {note}." for note in found["notes"])
    hours = sum(run["seconds"] for run in runs) / 3600
    return f"**{part.split(chr(10) * 2 + 'not in')[0].rstrip()}\n\n{len(runs)} runs, {hours:.1f} hours of a 2-core machine with other work on it.{notes} " + made_by(runs[0])


def scenes(workdir: pathlib.Path) -> str:
    """What a diagnosis found in scenes like those of the training, and (comp) in scenes that ask for colors on shapes nothing else has."""
    found, comp, record = (json.loads((workdir / name).read_text()) for name in ("diagnosis.json", "comp/diagnosis.json", "record.json"))
    lines = ["| suite | right | chance | grey image | wrong image | whole sets | new pairs of color and shape | hardest level | easiest level |", "|---|---:|---:|---:|---:|---:|---:|---:|---:|"]
    cell = lambda score: f"{100 * score['value']:.1f} ± {100 * score['stderr']:.1f}"
    for name, entry in found.items():
        scores = entry["scores"]
        levels = sorted((score["value"], metric.split("/")[1]) for metric, score in scores["real"].items() if "/" in metric)
        held = cell(comp[name]["scores"]["real"]["exact_match"]) if name in comp else "–"
        lines.append(f"| {name} | {cell(scores['real']['exact_match'])} | {100 * entry['chance']:.1f} | {cell(scores['blind']['exact_match'])} | {cell(scores['shuffled']['exact_match'])} | "
                     f"{cell(scores['real']['sets'])} | {held} | {levels[0][1]}: {100 * levels[0][0]:.0f} | {levels[-1][1]}: {100 * levels[-1][0]:.0f} |")
    lines += ["", f"Per cent ± one standard error (scenes of a set depend on each other). It says yes to {100 * found['exists']['yes']:.0f} % of the questions for what is there; its numbers are off by {found['count']['error']:.2f} in the mean. "
              f"Seconds: {seconds_of(record)}, on 2 cores with other work on them. " + made_by(record)]
    return "\n".join(lines)


def smollm2(workdir: pathlib.Path) -> str:
    """What SmolLM2 answers about images, and whether it still talks."""
    results, record, text = (json.loads((workdir / name).read_text()) for name in ("results.json", "record.json", "text_ability.json"))
    lines = [*scores_of(results), "", "| model | perplexity | What is the capital of France? |", "|---|---:|---|"]
    lines += [f"| {name} | {row['perplexity']:.3f} | {row['answer']} |" for name, row in text["rows"].items()]
    trained = "; ".join(f"{stage['name']}: {stage['steps']} steps, {stage['examples']:,} examples, trained {', '.join(f'{n:,} of {c}' for c, n in stage['trainable'].items())}" for stage in record["stages"])
    lines += ["", f"Per cent ± one standard error (clustered by image), of a fixed sample of {results['easy_vqa']['provenance']['sample']:,} questions. {trained}. Perplexity of {text['rows']['original']['tokens']:,} tokens of Python "
              f"{text['python']}'s help topics. Without adapters the language model is {'bit for bit the original' if text['off_is_the_original'] else 'NOT the original'}. "
              f"Seconds: {seconds_of(record)}; {record['wall_seconds']:.0f} with the evaluation. " + made_by(record)]
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

    families = sorted(path.parent.name for path in (TOP / "tests" / "golden").glob("*/reference.npz") if (path.parent / "model").is_dir())
    lines = [line for family in families for line in table.markdown(family, golden.compare(TOP / "tests" / "golden" / family))]
    commit = subprocess.run(["git", "-C", str(TOP), "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True).stdout.strip() or "unknown"
    return "\n".join([*table.MARKDOWN_HEADER, *lines, "", f"Made after commit {commit}, {datetime.date.today()}, on a CPU."])


def benchmarks() -> str:
    """Every task that a published benchmark is, with the program whose verdicts its tests hold."""
    from vlmjax.evaluate.tasks import TASKS

    lines = ["| task | asks | split | files | held to | LLaVA-1.5-7B publishes |", "|---|---|---|---|---|---:|"]
    for task in TASKS.values():
        if task.files:
            golden = next((path for name in (task.name, task.files) if (path := TOP / "tests" / "golden" / "scorers" / f"{name}.json").exists()), None)
            of = json.loads(golden.read_text())["of"] if golden else "its description"
            lines.append(f"| `{task.name}` | {task.about} | {task.split} | `{task.files}` | {of} | {PUBLISHED.get(task.name, '')} |")
    return "\n".join(lines)


def commit(made: dict) -> str:
    """Shortened; `+` when files differed from it."""
    whole = made["git_commit"] or "unknown"
    return whole[:10] + "+" * whole.endswith("+")


def plans() -> str:
    """Every saved plan, by config and slice; then those with as many rows as chips, `weak-scaling/` among them; then those of answering, `answers/`."""
    from vlmjax.plan import table

    def saved(pattern: str) -> list[dict]:
        return sorted((json.loads(path.read_text()) for path in (TOP / "launch" / "plans").glob(pattern)), key=lambda plan: (plan["topology"][:3], plan["chips"]))

    def compiled(made: list[dict]) -> str:
        by_code: dict[str, list[str]] = {}
        for plan in made:
            by_code.setdefault(f"on {plan['date']} at {commit(plan)} with jax {plan['versions']['jax']}, libtpu {plan['versions']['libtpu']}", []).append(plan["topology"])
        return f"Compiled {'; '.join(f'{how}: ' + ', '.join(dict.fromkeys(slices)) for how, slices in by_code.items())}."

    made, lines = saved("*.json"), []
    for config in sorted({plan["config"] for plan in made}, key=lambda text: (len(text.split(" ")[0]), text)):  # 7b before 13b
        own = [plan for plan in made if plan["config"] == config]
        lines += [f"`{config}`, times at an assumed {100 * own[0]['share']:.0f} % of the bf16 peak, or the roofline's where that is longer:", "", *table.markdown(own), "", compiled(own), ""]
    lines += [table.NOTE, ""]
    more = saved("weak-scaling/*.json")
    if more:
        config = more[0]["config"].split(" ")[0]
        beside = [plan for plan in made if plan["config"] == config]
        lines += [f"What each chip receives in a step of `{config}` with as many rows as chips, the batch growing with the slice:", "", *table.weak_scaling(beside + more), "", f"Beside the batch of the recipe. {compiled(more)}", ""]
    asked = sorted(saved("answers/*.json"), key=lambda plan: (plan["topology"], plan["answers"]["mesh"]["tensor"]))
    if asked:
        config = asked[0]["config"].split(" ")[0]
        lines += [f"Answers of `{config}`, at the roofline:", "", *table.answers_markdown(asked), "", compiled(asked), ""]
    return "\n".join(lines).rstrip()


def measured(name: str) -> str:
    """What a benchmark that keeps its last result in NAME.json measured."""
    benchmark = importlib.import_module(f"benchmarks.{name}")
    return "\n".join(benchmark.markdown(json.loads((TOP / "experiments" / "benchmarks" / f"{name}.json").read_text())))


if __name__ == "__main__":
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("table", choices=("demo", "smollm2", "ablation", "scenes", "plans", *MEASURED, "benchmarks", "parity"))
    flags.add_argument("--workdir", type=pathlib.Path)
    args = flags.parse_args()
    if args.table == "demo":
        put(TOP / "README.md", "demo-table", demo(args.workdir or TOP / "runs" / "demo"))
    elif args.table == "smollm2":
        put(TOP / "experiments" / "README.md", "smollm2-table", smollm2(args.workdir or TOP / "runs" / "smollm2"))
    elif args.table == "ablation":
        put(TOP / "README.md", "ablation-table", ablation(args.workdir or TOP / "runs" / "ablations" / "stages"))
    elif args.table == "scenes":
        put(TOP / "README.md", "scenes-table", scenes(args.workdir or TOP / "runs" / "scenes"))
    elif args.table == "plans":
        put(TOP / "launch" / "README.md", "plan-table", plans())
    elif args.table == "benchmarks":
        put(TOP / "vlmjax" / "evaluate" / "README.md", "benchmarks-table", benchmarks())
    elif args.table in MEASURED:
        put(TOP / "experiments" / "README.md", f"{args.table}-table", measured(args.table))
    else:
        put(TOP / "vlmjax" / "weights" / "README.md", "parity-table", parity())
