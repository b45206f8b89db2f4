"""VizWiz: how a copy of its program normalises texts, what each answer scores, and its number over all of them. Texts that it gives an apostrophe are left out: the copy has grave accents there, where others have
the apostrophes of typography."""
import contextlib
import importlib.util
import io
import pathlib
import sys
import types

from tests.golden.scorers import open_answers

CODE = "TRI-ML/vlm-evaluation, vlm_eval/util/evaluation/vizwiz/eval.py"


def make(checkout: pathlib.Path) -> dict:
    sys.modules.setdefault("sklearn", types.ModuleType("sklearn"))
    sys.modules.setdefault("sklearn.metrics", types.SimpleNamespace(average_precision_score=None, f1_score=None))  # for what is not run here
    spec = importlib.util.spec_from_file_location("vizwiz_eval", checkout / "vlm_eval/util/evaluation/vizwiz/eval.py")
    spec.loader.exec_module(official := importlib.util.module_from_spec(spec))

    def normal(text: str) -> str:
        run = official.VQAEval({}, {})
        return run.processDigitArticle(run.processPunctuation(text.replace("\n", " ").replace("\t", " ").strip()))

    texts = [text for text in open_answers.PLAIN if "`" not in normal(text)]
    questions = open_answers.questions(texts, 300)
    cases = open_answers.unpacked(texts, open_answers.packed(questions))
    run = official.VQAEval({i: {"answers": [{"answer": answer} for answer in answers]} for i, (_, answers) in enumerate(cases)}, {i: {"answer": said} for i, (said, _) in enumerate(cases)})
    with contextlib.redirect_stdout(io.StringIO()):
        run.evaluate()
    return {"texts": texts, "normalised": [normal(text) for text in texts], "questions": open_answers.packed(questions), "scores": [run.evalQA[i] for i in range(len(cases))], "accuracy": run.accuracy["overall"]}
