"""VizWiz (Gurari et al., arXiv:1802.08218): questions that blind people asked about their own photographs, each answered by ten people; many cannot be answered. The validation split, whose answers are
public; scored as VizWiz's own program does (vqa_accuracy.py).

    vizwiz/val.json     4,319 questions with their answers
    vizwiz/val          the images

LLaVA 1.5 reports a test split, whose answers only a server has, and puts its answers through the EvalAI processor before it submits them: `accuracy/evalai` does that. Its prompt says what to answer
where a photograph does not tell, as lmms-eval has it. VizWiz's second task, to say how likely it is that a question has no answer, is not measured: it needs a
number beside the answer.
"""
from collections.abc import Sequence

from vlmjax.data.example import Source
from vlmjax.evaluate import annotations, benchmark, scoring
from vlmjax.evaluate.task import Item, Task
from vlmjax.evaluate.texts import vqa_accuracy

KINDS = ("unanswerable", "other", "yes/no", "number")
SPLITS = {"val": ("vizwiz/val.json", "vizwiz/val")}
HOW = f"When the provided information is insufficient, respond with 'Unanswerable'.\n{benchmark.SHORT}"


def read(data_dir: str, split: str) -> tuple[Source, list[Item]]:
    file, folder = benchmark.splits("vizwiz", split, SPLITS)
    items = []
    for where, row in benchmark.rows(data_dir, file, ("image", "question"), need=("answers", "answer_type")):
        kind, people = benchmark.one_of(where, row["answer_type"], KINDS), annotations.answers(where, row["answers"])
        items.append(Item(row["image"], row["image"], benchmark.ask(row["question"], HOW), annotations.most_said(people), kind, answers=people))
    return benchmark.images("vizwiz", data_dir, folder), items


def more(rows: Sequence[scoring.Row]) -> dict[str, scoring.Metric]:
    """What VizWiz's program says of answers that have been through the EvalAI processor, as LLaVA submits them."""
    submitted = scoring.mean(rows, "VizWiz's, of answers put through the EvalAI processor", lambda row: vqa_accuracy.by_vizwiz(vqa_accuracy.evalai(row["prediction"]), scoring.accepted(row)))
    return {"accuracy/evalai": submitted}


VIZWIZ = Task(name="vizwiz", about="questions of blind people about their photographs, each answered by ten people (VizWiz, val); VQA accuracy, by the type of answer", open=read, prior=None,
              parse=vqa_accuracy.tidy, parser="VizWiz's: the answer normalised, what people said as it is", score=vqa_accuracy.by_vizwiz, metric="accuracy", max_new_tokens=32, more=more, split="val", files="vizwiz")
