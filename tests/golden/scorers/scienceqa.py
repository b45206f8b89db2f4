"""ScienceQA: prompts as LLaVA's converter makes them, each answer as LLaVA's program reads it, and its numbers over all of them."""
import json
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import types

CODE = "haotian-liu/LLaVA, scripts/convert_sqa_to_llava.py and llava/eval/eval_science_qa.py"
ANSWERS = ("A", "B", "C", "D", "E", "F", "a", "B.", "C. ", "A. a cat", "B. The answer is C.", "E. five", "(A)", "The answer is B.", "The answer is B. The answer is B.", "The answer is C", "The answer is C!", "the answer is A.", "The answer is Z.",
           "So The answer is D. BECAUSE", "The answer is (A).", "A cat", "A.cat", "", " ", " A ", "A\n", "\nB. two", "答案是A。", "Ａ", "The answer is A。", "1", "yes", "I do not know.", "A, B", "AB", "The answer is A or The answer is B.", "The answer is B\n", "D. ",
           "Because the magnets attract each other, the answer is the first one. The answer is A.", "'A'", "-A. b", "The  answer is A.")
WORDS = ("which", "of  these", "states", "is", "farthest   north?", "a.", "the", "  ", "magnet", "Question:", "Answer:", "N/A", "5 °C", "(B)", "é", "\n", "solid")


def make(checkout: pathlib.Path) -> dict:
    sys.modules["fire"] = types.ModuleType("fire")  # its command line
    sys.path.insert(0, str(checkout / "scripts"))
    import convert_sqa_to_llava

    rng = random.Random(0)
    text = lambda most: " ".join(rng.choice(WORDS) for _ in range(rng.randrange(most)))
    problems = {}
    for i in range(200):
        choices = [text(4) or "one" for _ in range(rng.randrange(2, 6))]
        problems[str(i)] = {"question": text(12), "choices": choices, "answer": rng.randrange(len(choices)), "hint": rng.choice(("", " ", text(12))), "image": rng.choice((None, "image.png")), "lecture": "l", "solution": "s", "split": "test"}
    answers = [rng.choice(ANSWERS) for _ in problems]
    with tempfile.TemporaryDirectory() as held:
        base = pathlib.Path(held)
        (base / "problems.json").write_text(json.dumps(problems))
        (base / "pid_splits.json").write_text(json.dumps({"test": list(problems)}))
        convert_sqa_to_llava.convert_to_llava(held, "test", "CQM-A")
        rows = []
        for line in json.loads((base / "llava_test_CQM-A.json").read_text()):  # as llava/eval/model_vqa_science.py asks them, which needs a model
            asked = line["conversations"][0]["value"].replace("<image>", "").strip() + "\nAnswer with the option's letter from the given choices directly."
            rows.append({"question_id": line["id"], "prompt": "<image>\n" + asked if "image" in line else asked, "text": answers[int(line["id"])].strip()})
        (base / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        printed = subprocess.run([sys.executable, str(checkout / "llava/eval/eval_science_qa.py"), f"--base-dir={held}", f"--result-file={base}/answers.jsonl", f"--output-file={base}/out.json", f"--output-result={base}/result.json"],
                                 capture_output=True, text=True, check=True).stdout
        read = json.loads((base / "result.json").read_text())["results"]
    accuracy, image = map(float, re.findall(r"([0-9.]+)%", printed))
    asked = {row["question_id"]: row["prompt"] for row in rows}
    kept = {key: {name: problem[name] for name in ("question", "choices", "answer", "hint", "image", "split")} for key, problem in list(problems.items())[:40]}
    return {"problems": kept, "prompts": [asked[key] for key in kept], "choices": [len(problem["choices"]) for problem in problems.values()], "labels": [problem["answer"] for problem in problems.values()],
            "image": [problem["image"] is not None for problem in problems.values()], "answers": answers, "read as": [read[key] for key in problems], "numbers": {"Accuracy": accuracy, "IMG-Accuracy": image}}
