"""HallusionBench: what its program counts. Its judge, GPT-4, is not asked: each answer here has a plain meaning, from which the judgements follow. It runs without prettytable and openai, and with made-up
questions in its layout; `same`, a second question to GPT-4, is set to 1 and enters none of the numbers."""
import pathlib
import random
import sys
import types

CODE = "tianyi-lab/HallusionBench, utils.py"
MEANING = {"Yes": "yes", "yes.": "yes", "Yes, it is.": "yes", "*YES*": "yes", "No": "no", "no": "no", "No, the left one is longer.": "no", " NO!": "no", "I cannot tell from this.": "unclear", "It is uncertain": "unclear",
           "Unknown": "unclear", "There is no figure, so I am not sure.": "unclear"}


def make(checkout: pathlib.Path) -> dict:
    official = _program(checkout)
    rng = random.Random(0)
    rows = []
    for set_ in range(40):
        category = ("VD", "VS")[set_ % 2]
        figures = [("1" if category == "VD" else "0")] + [rng.choice(("1", "2")) if category == "VS" else "2" for _ in range(rng.randint(1, 3))]
        for figure, visual in enumerate(figures):
            for question in range(1 + set_ % 3):
                truth, likely = int(rng.random() < 0.4), rng.random() < 0.6
                answer = rng.choice([text for text, meaning in MEANING.items() if not likely and meaning != "no" or meaning == ("no", "yes")[truth]])
                judged = "2" if MEANING[answer] == "unclear" else str(int(MEANING[answer] == ("no", "yes")[truth]))
                rows.append({"category": category, "subcategory": ("chart", "illusion", "math")[set_ % 3], "visual_input": visual, "set_id": str(set_), "figure_id": str(figure), "question_id": str(question),
                             "gt_answer": str(truth), "answer": answer, "judged": judged, "same": "1"})
    official["assign_correctness"](rows, "judged")
    of = {"all": rows, "VD": [row for row in rows if row["category"] == "VD"], "VS": [row for row in rows if row["category"] == "VS"]}
    counted = {name: official["get_eval_all"](own, "judged") for name, own in of.items()}
    parts = {"aAcc": counted["all"], "aAcc VD": counted["VD"], "aAcc VS": counted["VS"], "qAcc": official["get_eval_pair_all"](rows, "judged"), "fAcc": official["get_eval_fig"](rows),
             "easy": official["get_eval_pair_easy"](rows), "hard": official["get_eval_pair_hard"](rows)}
    bias = official["yes_ratio_stats"](rows)
    return {"rows": ["\t".join((*list(row.values())[:7], row["answer"], str(row["correct"]))) for row in rows], "numbers": {name: part["correct"] / part["total"] for name, part in parts.items()} | {
        "diff": bias["diff"], "fp": bias["fp"]}}


def _program(checkout: pathlib.Path) -> dict:
    sys.modules |= {"prettytable": types.SimpleNamespace(PrettyTable=None), "openai": types.ModuleType("openai"), "tqdm": types.SimpleNamespace(tqdm=iter)}
    program: dict = {"__name__": "utils"}
    exec((checkout / "utils.py").read_text(), program)
    return program
