"""VQAv2: how its program normalises texts, what each answer scores, and its numbers over all of them. It runs in Python 2, whose command the environment variable PYTHON2 names."""
import json
import os
import pathlib
import subprocess

from tests.golden.scorers import open_answers

CODE = "GT-Vision-Lab/VQA, PythonEvaluationTools/vqaEvaluation/vqaEval.py"
PROGRAM = """
import json, sys
sys.path.insert(0, "PythonEvaluationTools/vqaEvaluation")
import vqaEval
class Held(object):
    def __init__(self, qa): self.qa = qa
    def getQuesIds(self): return list(self.qa)
texts, questions, kinds = json.load(sys.stdin)
texts = texts or sorted(vqaEval.VQAEval(Held({}), None).contractions)
said = {i: {"answer": texts[q[0]]} for i, q in enumerate(questions)}
qa = {i: {"answers": [{"answer": texts[k], "answer_id": n} for n, k in enumerate(q[1:])], "answer_type": kinds[i], "question_type": "what"} for i, q in enumerate(questions)}
out, sys.stdout = sys.stdout, sys.stderr
run = vqaEval.VQAEval(Held(qa), Held(said))
if questions: run.evaluate()
json.dump([texts, [run.processDigitArticle(run.processPunctuation(text)) for text in texts], [run.evalQA[i] for i in range(len(questions))], run.accuracy], out)
"""


def make(checkout: pathlib.Path) -> dict:
    def official(*given):
        return json.loads(subprocess.run([os.environ.get("PYTHON2", "python2"), "-c", PROGRAM], input=json.dumps(given), capture_output=True, text=True, check=True, cwd=checkout).stdout)

    contractions = official([], [], [])[0]
    texts = list(dict.fromkeys((*open_answers.PLAIN, *contractions)))
    questions = open_answers.questions(texts, 400)
    kinds = [("yes/no", "number", "other")[i % 3] for i in range(len(questions))]
    _, normal, scores, numbers = official(texts, questions, kinds)
    return {"texts": texts, "normalised": normal, "questions": open_answers.packed(questions), "scores": scores, "numbers": {"overall": numbers["overall"], **numbers["perAnswerType"]}}
