"""SEED-Bench: what LLaVA's program counts as right, by type of question and over those about images."""
import json
import pathlib
import random
import re
import subprocess
import sys
import tempfile

CODE = "haotian-liu/LLaVA, scripts/convert_seed_for_submission.py"
TYPES = {"Scene Understanding": 1, "Instance Identity": 2, "Spatial Relation": 6, "Action Recognition": 10}
ANSWERS = ("{a}", "{a}", "{a}", "{b}", "{b}", "{a}.", "({a})", "{a}. red", "a", "The answer is {a}.", "", " {a} ", "{a}\n", "E", "{a}{b}", "yes", "Ａ", "1", "red", "{a}:", "I do not know.", "答案是{a}")


def make(checkout: pathlib.Path) -> dict:
    rng = random.Random(0)
    questions, answers = [], []
    for i in range(240):
        kind = rng.choice(list(TYPES.values()))
        a, b = rng.choice("ABCD"), rng.choice("ABCD")
        questions.append({"question_id": rng.choice((str(i), f"v{i}")), "question_type_id": kind, "data_type": "video" if kind == 10 else "image", "answer": a})
        answers.append(rng.choice(ANSWERS).format(a=a, b=b))
    with tempfile.TemporaryDirectory() as held:
        base = pathlib.Path(held)
        (base / "SEED-Bench.json").write_text(json.dumps({"question_type": TYPES, "questions": questions}))
        ids = [int(row["question_id"]) if row["question_id"].isdecimal() else row["question_id"] for row in questions]
        (base / "answers.jsonl").write_text("".join(json.dumps({"question_id": id_, "text": text.strip()}) + "\n" for id_, text in zip(ids, answers)))  # stripped as llava/eval/model_vqa_loader.py does
        printed = subprocess.run([sys.executable, str(checkout / "scripts/convert_seed_for_submission.py"), f"--annotation-file={base}/SEED-Bench.json", f"--result-file={base}/answers.jsonl", f"--result-upload-file={base}/up.jsonl"],
                                 capture_output=True, text=True, check=True).stdout
    return {"types": TYPES, "rows": [[row["question_type_id"], row["data_type"], row["answer"], text] for row, text in zip(questions, answers)],
            "numbers": {name: float(value) for name, value in re.findall(r"(.+): ([0-9.]+)%", printed)}}
