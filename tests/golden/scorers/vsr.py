"""VSR: the publisher's accuracy by groups of relations, for answers whose meaning is beyond doubt; what they are read as stands here, as the publisher has no program that reads text."""
import json
import pathlib
import random
import subprocess
import sys
import tempfile

CODE = "cambridgeltl/visual-spatial-reasoning, analysis_scripts/eval_compute_acc_by_rel_meta_cat.py"
ANSWERS = {"True": True, "true.": True, " TRUE\n": True, '"True"': True, "It is true that it is.": True, "True, it's left": True, "(true)": True, "**True**": True, "Answer: True": True, "False": False, "false": False, "FALSE!": False, "The statement is false.": False,
           "'False'": False, "False. The cat is on it.": False, "答案：False": False}
NEITHER = ("", " ", "yes", "no", "True or False", "truely", "untrue", "I cannot say", "True? No, false.", "Falsehood", "1", "…", "trùe", "T", "The cat is left of the dog.")


def make(checkout: pathlib.Path) -> dict:
    rng = random.Random(0)
    lines = (checkout / "data/splits/random/test.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in rng.sample(lines, 240)]
    answers = [rng.choice(list(ANSWERS) if rng.random() < 0.85 else NEITHER) for _ in rows]
    right = [int(answer in ANSWERS and ANSWERS[answer] == bool(row["label"])) for row, answer in zip(rows, answers)]
    with tempfile.TemporaryDirectory() as held:
        base, table = pathlib.Path(held), checkout / "analysis_scripts/rel_meta_category_dict.txt"
        (base / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (base / "preds.txt").write_text("".join(f"{row['label'] if ok else 1 - row['label']}\n" for row, ok in zip(rows, right)))  # 0 or 1: what is neither gets the wrong one
        printed = subprocess.run([sys.executable, str(checkout / "analysis_scripts/eval_compute_acc_by_rel_meta_cat.py"), f"{base}/test.jsonl", f"{base}/preds.txt", str(table)], capture_output=True, text=True, check=True).stdout
        groups = {}
        for line in table.read_text().splitlines():
            group, _, relations = line.partition(": ")
            groups |= {relation.strip(): group.lower() for relation in relations.split(",")}
    found = [line.split("\t") for line in printed.splitlines() if "\t" in line]
    return {"groups": groups, "rows": [[row["caption"], row["relation"], row["label"], answer] for row, answer in zip(rows, answers)], "numbers": {group.lower(): [float(value), int(count)] for group, value, count in found}}
