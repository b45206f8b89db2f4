"""TextVQA: how LLaVA's copy of its program normalises texts, what each answer scores, which question it finds in a prompt, and the number it prints."""
import contextlib
import importlib.util
import io
import json
import pathlib
import sys
import tempfile

from tests.golden.scorers import open_answers

CODE = "haotian-liu/LLaVA, llava/eval/eval_textvqa.py and m4c_evaluator.py"
PROMPTS = ("What is it?\nReference OCR token: a, b\nAnswer.", "Reference OCR token: a, b\nWhat IS it?\nAnswer.", "what?\nReference OCR token: \nAnswer.")


def make(checkout: pathlib.Path) -> dict:
    m4c = load(checkout / "llava/eval/m4c_evaluator.py", "llava.eval.m4c_evaluator")
    official = load(checkout / "llava/eval/eval_textvqa.py", "eval_textvqa")
    processor, evaluator = m4c.EvalAIAnswerProcessor(), m4c.TextVQAAccuracyEvaluator()
    texts = list(dict.fromkeys((*open_answers.PLAIN, *processor.CONTRACTIONS)))
    questions = open_answers.questions(texts, 300)
    cases = open_answers.unpacked(texts, open_answers.packed(questions))
    with contextlib.redirect_stdout(printed := io.StringIO()), contextlib.redirect_stderr(io.StringIO()), tempfile.TemporaryDirectory() as folder:
        scores = [100 * evaluator.eval_pred_list([{"pred_answer": said, "gt_answers": answers}]) for said, answers in cases]
        told, answered = pathlib.Path(folder, "told.json"), pathlib.Path(folder, "answered.jsonl")
        told.write_text(json.dumps({"data": [{"image_id": f"i{i}", "question": "What?", "answers": answers} for i, (_, answers) in enumerate(cases)]}))
        answered.write_text("".join(json.dumps({"question_id": f"i{i}", "prompt": "what?\nReference OCR token: a\nAnswer.", "text": said}) + "\n" for i, (said, _) in enumerate(cases)))
        official.eval_single(str(told), str(answered))
    accuracy = float(printed.getvalue().split("Accuracy: ")[1].split("%")[0])
    return {"texts": texts, "normalised": [processor(text) for text in texts], "questions": open_answers.packed(questions), "scores": [round(score, 6) for score in scores], "accuracy": accuracy,
            "prompts": PROMPTS, "asked": [official.prompt_processor(prompt) for prompt in PROMPTS]}


def load(path: pathlib.Path, name: str):
    spec = importlib.util.spec_from_file_location(name, path)
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    for parent in ("llava", "llava.eval"):  # whose own __init__ wants torch
        sys.modules.setdefault(parent, type(sys)(parent))
    spec.loader.exec_module(module)
    return module
