"""GQA: answers as LLaVA converts them, and what a copy of GQA's program prints of them. The environment variable LLAVA names a checkout of haotian-liu/LLaVA."""
import json
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile

from tests.golden.scorers import open_answers

CODE = "TRI-ML/vlm-evaluation, vlm_eval/util/evaluation/gqa/eval.py (after LLaVA's scripts/convert_gqa_for_eval.py)"
KINDS = ("choose", "compare", "logical", "query", "verify")


def make(checkout: pathlib.Path) -> dict:
    rng = random.Random(0)
    cases = []
    for _ in range(300):
        gold = rng.choice(("yes", "no", "left", "right", "man", "red", "fire hydrant", "t-shirt", "2", "caf\u00e9"))
        said = rng.choice((gold, gold.capitalize() + ".", gold.upper(), gold + "...", f"The {gold}", gold + ",", f" {gold}", gold.replace(" ", "  "), rng.choice(open_answers.PLAIN), "yes"))
        cases.append((said.strip(), gold, rng.choice(KINDS)))
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        said = place / "said.jsonl"
        said.write_text("".join(json.dumps({"question_id": str(i), "text": text}) + "\n" for i, (text, _, _) in enumerate(cases)))
        questions = {str(i): {"question": "Is it?", "answer": gold, "isBalanced": True, "types": {"structural": kind, "semantic": "obj", "detailed": "existC"}, "groups": {"global": "g"}, "semantic": []} for i, (_, gold, kind) in enumerate(cases)}
        (place / "t_all_questions.json").write_text(json.dumps(questions))
        run(sys.executable, f"{os.environ['LLAVA']}/scripts/convert_gqa_for_eval.py", "--src", "said.jsonl", "--dst", "t_predictions.json", cwd=folder)
        printed = run(sys.executable, checkout.resolve() / "vlm_eval/util/evaluation/gqa/eval.py", "--tier", "t", cwd=folder)
        converted = [row["prediction"] for row in json.loads((place / "t_predictions.json").read_text())]
    numbers = {name.lower(): float(value) for name, value in re.findall(r"^ *(\w+): ([\d.]+)%", printed, re.MULTILINE)}
    return {"answers": [case[0] for case in cases], "labels": [case[1] for case in cases], "kinds": [case[2] for case in cases], "read as": converted,
            "numbers": {name: numbers[name] for name in ("accuracy", "binary", "open", *KINDS)}}


def run(*command, cwd: str) -> str:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True, cwd=cwd).stdout
