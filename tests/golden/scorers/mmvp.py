"""MMVP: what Cambrian-1 asks, each answer as its program reads it, and its number over all of them."""
import importlib.util
import json
import pathlib
import random
import sys
import tempfile
import types
from unittest import mock

CODE = "cambrian-mllm/cambrian, eval/eval/mmvp/mmvp_eval.py and mmvp_test.py"
QUESTIONS = (("Is the door open?", "(a) Open (b) Closed"), ("Are there 2 or 3 cats?", "(a) 2 (b) 3"), ("Which way does it look?", "(a) To the left (b) To the right"), ('What is "written"?', "(a) Yes, it is (b) No"))
ANSWERS = ("A", "B", "a", "b", "A.", "(B)", "(a).", "B)", "(A", "{t}", "{t}.", "{T}", "({t})", "The answer is {l}", "The answer is ({l}).", "The answer is: {l}", "Answer: {l}", "answer:{t}", "ANSWER IS {t}.", "The answer is A. The answer is B", "A. {t}", "A, {t}", "It is {t}", "", " ", "\n",
           "A:", "B,", "..", "C", "yes", "答案是A", "Ａ", "İ", "{l} or {l}", "answer is", "neither", "((A))", "A .", "{l}\n")


def load(path: pathlib.Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
    return module


def asked(program, rows: list[dict]) -> list[str]:
    """What the program puts to a model."""
    program.DEFAULT_IMAGE_TOKEN = "<image>"
    conversation = mock.MagicMock()
    conversation.copy.return_value, program.conv_templates = conversation, {"v": conversation}
    config = types.SimpleNamespace(mm_use_im_start_end=False)
    for row in rows:
        program.process(row, types.SimpleNamespace(question_extension="Answer with the option's letter from the given choices directly.", conv_mode="v"), None, None, config, *([{0: mock.MagicMock()}] if "imageId" in row else []))
    return [call.args[1] for call in conversation.append_message.call_args_list if call.args[1] is not None]


def without_a_model() -> None:
    for name in ("numpy", "torch", "torch.utils", "torch.utils.data", "tqdm", "shortuuid", "PIL", "datasets", "huggingface_hub", "cambrian", "cambrian.constants", "cambrian.conversation", "cambrian.model", "cambrian.model.builder", "cambrian.utils", "cambrian.mm_utils"):
        sys.modules[name] = mock.MagicMock()


def make(checkout: pathlib.Path) -> dict:
    without_a_model()
    program, scorer = load(checkout / "eval/eval/mmvp/mmvp_eval.py"), load(checkout / "eval/eval/mmvp/mmvp_test.py")
    prompts = asked(program, [{"question": question, "options": options, "imageId": 0} for question, options in QUESTIONS])
    rng, rows = random.Random(0), []
    for pair in range(130):
        question = rng.randrange(len(QUESTIONS))
        options = program.give_options(QUESTIONS[question][1])
        knows = rng.random() < 0.5
        for k in range(2):
            letter = "AB"[k] if knows else rng.choice("AB")
            answer = rng.choice(("{l}", "{l}.", "({l})", "{t}", "The answer is {l}") if knows else ANSWERS)
            rows.append({"question": question, "gt_answer": "(a)" if k == 0 else "(b)", "text_options": options, "answer": answer.format(l=letter, t=options["AB".index(letter)], T=options["AB".index(letter)].upper()).strip()})
    with tempfile.TemporaryDirectory() as held:
        path = pathlib.Path(held, "answers.jsonl")
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        with mock.patch.object(scorer, "add_data_to_csv") as kept:
            scorer.compute_metrics(str(path), f"{held}/wrong.jsonl", f"{held}/x.csv")
    return {"questions": QUESTIONS, "prompts": prompts, "options": [program.give_options(options) for _, options in QUESTIONS],
            "rows": [[row["question"], row["gt_answer"], row["answer"], scorer.extract_mcq_answer(row["answer"])] for row in rows], "pairs": kept.call_args.args[1]["accuracy"]}
