"""HallusionBench (Guan et al., arXiv:2310.14566): the same questions about figures, about edited ones, and about none. utils.py and evaluation.py of tianyi-lab/HallusionBench.

    HallusionBench/HallusionBench.json      1,129 questions: 591 that need the figure (VD), 538 that it only supplements (VS), of which 178 without one
    HallusionBench/hallusion_bench          346 figures: VD/illusion/0_0.png, …

Their program lets GPT-4 judge each answer as correct, incorrect or unclear. There is no judge here but a rule: an answer is the yes or no it begins with (pope.strict), else unclear, and none where
it has neither letter nor digit; numbers by the rule and by a judge are not the same. What follows from the judgements is theirs: unclear is right for a question of VS without its figure and wrong
elsewhere; `accuracy/strict` never has it right.

`accuracy` is their aAcc, `sets` qAcc (a question right with each of its figures), `figures` fAcc (a figure right in each of its questions); `easy` and `hard` are what they call easy and hard aAcc, though
they count questions that are right with all figures of the one kind: original or none, and edited; `accuracy/VD/easy` and so on count answers. `bias`: how much more often yes is said than right.
`false_yes`: which share of what is wrong should have been no.
"""
import re
from collections.abc import Sequence
from typing import Any

from vlmjax.data.example import Source, Turn
from vlmjax.evaluate import benchmark, scoring
from vlmjax.evaluate.task import Item, Task, exact_match
from vlmjax.evaluate.tasks.pope import strict

SPLITS = {"release": ("HallusionBench/HallusionBench.json", "HallusionBench/hallusion_bench")}
UNCLEAR = "unclear"


def read(data_dir: str, split: str) -> tuple[Source, list[Item]]:
    file, folder = benchmark.splits("hallusionbench", split, SPLITS)
    texts, ids = ("category", "subcategory", "question"), ("visual_input", "set_id", "figure_id", "question_id", "gt_answer")
    return benchmark.images("hallusionbench", data_dir, folder), [_item(where, row) for where, row in benchmark.rows(data_dir, file, texts, ids, ("filename",))]


def _item(where: str, row: dict[str, Any]) -> Item:
    answer = {"0": "no", "1": "yes"}[benchmark.one_of(where, str(row["gt_answer"]), ("0", "1"))]
    level = "hard" if benchmark.one_of(where, str(row["visual_input"]), ("0", "1", "2")) == "2" else "easy"
    category = benchmark.one_of(where, row["category"], ("VD", "VS"))
    about = f"{category}/{row['subcategory']}/{row['set_id']}"
    image = benchmark.text(f"{where}: filename", row["filename"]).removeprefix("./") if row["filename"] else None
    turns = benchmark.ask(row["question"]) if image else (Turn("user", f"{row['question']}\n{benchmark.SHORT}"),)
    accepted = (answer, UNCLEAR) if category == "VS" and str(row["figure_id"]) == "0" else ()
    return Item(f"{about}/{row['figure_id']}/{row['question_id']}", image, turns, answer, f"{category}/{level}", f"{about}/{row['question_id']}", accepted)


def parse(text: str) -> str | None:
    return strict(text) or (UNCLEAR if re.search(r"[^\W_]", text) else None)


def more(rows: Sequence[scoring.Row]) -> dict[str, scoring.Metric]:
    out = {f"accuracy/{category}": scoring.mean([row for row in rows if row["kind"].startswith(category)], category) for category in ("VD", "VS")}
    out["figures"] = scoring.sets([{**row, "group": row["image"]} for row in rows], "figures")
    out |= {level: scoring.sets([row for row in rows if row["kind"].endswith(level)], f"{level} sets") for level in ("easy", "hard")}
    wrong = [row for row in rows if not row["score"]]
    return out | {
        "accuracy/strict": scoring.mean(rows, "yes and no only", lambda row: float(row["parsed"] == row["answer"])),
        UNCLEAR: scoring.mean(rows, UNCLEAR, lambda row: float(row["parsed"] == UNCLEAR)),
        "bias": scoring.mean(rows, "yes said less yes right", lambda row: float(row["score"] == (row["answer"] == "yes")) - (row["answer"] == "yes")),
        "false_yes": scoring.mean(wrong, "of what is wrong", lambda row: float(row["answer"] == "no")),
    }


HALLUSIONBENCH = Task(name="hallusionbench", about="hallucination: questions with figures, edited figures and none (HallusionBench), by a rule in place of its judge; accuracy, whole sets, whole figures",
                      open=read, prior=None, parse=parse, parser="a rule: yes or no where the answer begins with it, else unclear", score=exact_match, metric="accuracy", max_new_tokens=16, more=more,
                      split="release", files="hallusionbench")
