"""DocVQA: ANLS of pix2struct and of lmms-eval, a checkout of which the environment variable LMMS_EVAL names. editdistance, which pix2struct asks for, has to be installed."""
import ast
import os
import pathlib
import random
import sys
import types

from tests.golden.scorers import open_answers

CODE = "google-research/pix2struct, pix2struct/metrics.py (and EvolvingLMMs-Lab/lmms-eval, lmms_eval/api/metrics.py, at 75571cfe0f)"


def make(checkout: pathlib.Path) -> dict:
    formula = pix2struct(checkout, "anls_metric")
    harness = functions(pathlib.Path(os.environ["LMMS_EVAL"]) / "lmms_eval/api/metrics.py")["anls"]
    rng, letters, cases = random.Random(0), "abc .5", []
    for _ in range(300):
        right = rng.choice(([text for text in open_answers.PLAIN if text.strip()], ["itc limited", "University of  California", "$28.45", "ab", "1.5"], ["Stra\u00dfe", "Dr. William J. Darby", "8/1/97"])[rng.randrange(3)])
        said = list(right)
        for _ in range(rng.choice((0, 0, 1, 1, 2, 3, 6))):
            at = rng.randrange(len(said) + 1)
            said[at : at + rng.randrange(2)] = rng.choice(letters) * rng.randrange(2)
        cases.append((rng.choice(("".join(said), "".join(said).upper(), rng.choice(open_answers.PLAIN))).strip(), [right, *rng.sample(("Yes", "itc  ltd", "ab cd"), rng.randrange(3))]))
    alike = [max(formula(answer.strip().lower(), said.lower()) if answer.strip() + said else 1 for answer in answers) for said, answers in cases]
    return {"said": [said for said, _ in cases], "answers": ["|".join(answers) for _, answers in cases], "formula": [round(score, 4) for score in alike],
            "harness": [round(harness(answers, [said])["anls"], 4) for said, answers in cases]}


def pix2struct(checkout: pathlib.Path, name: str):
    """One of its metrics, whose module also wants packages for captions."""
    for module, what in (("pycocoevalcap", ""), ("pycocoevalcap.tokenizer", ""), ("pycocoevalcap.tokenizer.ptbtokenizer", "PTBTokenizer"), ("pycocoevalcap.cider", ""), ("pycocoevalcap.cider.cider", "Cider")):
        sys.modules[module] = types.SimpleNamespace(**{what: None} if what else {})
    held: dict = {}
    exec(compile((checkout / "pix2struct/metrics.py").read_text(), "metrics.py", "exec"), held)
    return held[name]


def functions(path: pathlib.Path) -> dict:
    """The functions of ANLS by themselves: the module registers them in a framework."""
    held: dict = {}
    wanted = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef) and node.name in ("anls", "levenshtein_distance")]
    for node in wanted:
        node.decorator_list = []
    exec(compile(ast.Module(wanted, []), str(path), "exec"), held)
    return held
