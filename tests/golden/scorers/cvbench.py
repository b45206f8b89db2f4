"""CV-Bench: what Cambrian-1 asks, each answer as its programs read it, and their numbers."""
import json
import pathlib
import random
import tempfile
from unittest import mock

from tests.golden.scorers.mmvp import ANSWERS, asked, load, without_a_model

CODE = "cambrian-mllm/cambrian, eval/eval/ade, coco and omni"
PROGRAMS = {"ADE20K": "ade", "COCO": "coco", "Omni3D": "omni"}
TASKS = {"ADE20K": ("Count", "Relation"), "COCO": ("Count", "Relation"), "Omni3D": ("Depth", "Distance")}
OPTIONS = {"ADE20K": ("3", "2", "1", "0", "above", "below", "left", "A"), "COCO": ("10", "2", "1", "0", "above", "below", "left", "b"), "Omni3D": ("red car", "chair", "door", "books", "desk", "apple")}
ALSO = ("apple", "Both", "D", "E", "2", "c", "(d)", "The answer is (C).", "do not know", "C) 3", "a dog")


def make(checkout: pathlib.Path) -> dict:
    without_a_model()
    rng, out = random.Random(0), {}
    for source, name in PROGRAMS.items():
        program, scorer = load(checkout / f"eval/eval/{name}/{name}_eval.py"), load(checkout / f"eval/eval/{name}/{name}_test.py")
        rows = []
        for i in range(80):
            options = rng.sample(OPTIONS[source], rng.randrange(2, 5))
            gold, text = rng.choice("ABCD"[: len(options)]), rng.choice(options)
            answer = rng.choice(("{g}", "({g})", "{l}", *ANSWERS, *ALSO)).format(g=gold, l=rng.choice("ABCD"), t=text, T=text.upper()).strip()
            rows.append({"category": rng.choice(TASKS[source]), "gt_answer": f"({gold})", "options": options, "answer": answer})
        with tempfile.TemporaryDirectory() as held:
            path = pathlib.Path(held, "answers.jsonl")
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
            with mock.patch.object(scorer, "add_data_to_csv") as kept:
                scorer.compute_metrics(str(path), f"{held}/wrong.jsonl", f"{held}/x.csv")
        numbers = kept.call_args.args[1]
        out[source] = {"rows": [[row["category"], row["gt_answer"], row["options"], row["answer"], scorer.extract_mcq_answer(row["answer"])] for row in rows], "accuracy": numbers["accuracy"]}
    ask = "How many organs are in the image? Select from the following choices.\n(A) 3\n(B) 2"
    return out | {"asked": [ask, *asked(load(checkout / "eval/eval/ade/ade_eval.py"), [{"prompt": ask, "image": mock.MagicMock()}])]}
