"""VQAv2's server: the file that LLaVA's script makes of some answers and of all questions."""
import contextlib
import io
import json
import pathlib
import random
import runpy
import sys
import tempfile
from unittest import mock

from tests.golden.scorers import open_answers, textvqa

CODE = "haotian-liu/LLaVA, scripts/convert_vqav2_for_submission.py"


def make(checkout: pathlib.Path) -> dict:
    m4c = textvqa.load(checkout / "llava/eval/m4c_evaluator.py", "llava.eval.m4c_evaluator")
    rng, every = random.Random(0), list(range(1000, 4000, 10))
    rng.shuffle(every)
    forms = [*open_answers.PLAIN, *m4c.EvalAIAnswerProcessor.CONTRACTIONS]
    asked = {question: text for question, text in zip(rng.sample(every, len(forms)), forms)}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        root = pathlib.Path(folder)
        (root / "answers/test-dev/m").mkdir(parents=True)
        (root / "answers/test-dev/m/merge.jsonl").write_text("".join(json.dumps({"question_id": question, "text": text}) + "\n" for question, text in asked.items()))
        (root / "llava_vqav2_mscoco_test2015.jsonl").write_text("".join(json.dumps({"question_id": question}) + "\n" for question in every))
        with mock.patch.object(sys, "argv", ["", "--dir", folder, "--ckpt", "m", "--split", "test-dev"]):
            runpy.run_path(str(checkout / "scripts/convert_vqav2_for_submission.py"), run_name="__main__")
        sent = (root / "answers_upload/test-dev/m.json").read_text()
    return {"questions": every, "asked": [[question, text] for question, text in asked.items()], "sent": sent}
