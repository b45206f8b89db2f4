"""AMBER: what its program prints for answers as they are (`ugly`), and for answers that are Yes, No or nothing of the kind (`plain`). It runs without spaCy, whose vectors only its descriptions need."""
import argparse
import contextlib
import io
import json
import pathlib
import random
import sys
import tempfile
import types

CODE = "junyangwang0410/AMBER, inference.py"
UGLY = ("Yes", "No", "Yes", "No", "Yes", "No", "yes", "no", "Yes.", "No.", "YES", " No", "No\n", "", "No, there is no cloud.", "Yes, it is sunny", "Not", "It is.", "nope", "Nο", "**No**", "3")
PLAIN = ("Yes", "No", "Yes", "No", "Yes", "No", "It is not clear.", "", "Unknown")
TYPES = ("discriminative-hallucination", "discriminative-attribute-state", "discriminative-attribute-number", "discriminative-attribute-action", "discriminative-relation", "relation")


def make(checkout: pathlib.Path) -> dict:
    official = _program(checkout)
    rng = random.Random(0)
    truths = [{"id": k + 1, "type": (kind := TYPES[k % 6]), "truth": {TYPES[0]: "no", TYPES[4]: "yes", TYPES[5]: "no"}.get(kind) or rng.choice(("yes", "no"))} for k in range(240)]
    sets = {name: [rng.choice(answers) for _ in truths] for name, answers in (("ugly", UGLY), ("plain", PLAIN))}
    return {"truths": [f"{truth['type']}: {truth['truth']}" for truth in truths], "answers": sets, "numbers": {name: _printed(official, checkout, truths, answers) for name, answers in sets.items()}}


def _printed(official: dict, checkout: pathlib.Path, truths: list[dict], answers: list[str]) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(printed := io.StringIO()):
        for name, content in (("truths", truths), ("answers", [{"id": truth["id"], "response": answer} for truth, answer in zip(truths, answers)])):
            (pathlib.Path(folder) / f"{name}.json").write_text(json.dumps(content))
        data = checkout / "data"
        official["args"] = argparse.Namespace(word_association=str(data / "relation.json"), safe_words=str(data / "safe_words.txt"), inference_data=f"{folder}/answers.json", annotation=f"{folder}/truths.json",
                                              metrics=str(data / "metrics.txt"), similarity_score=0.8, evaluation_type="d")
        official["main"](official["args"])
    numbers, part = {}, ""
    for line in printed.getvalue().splitlines():
        name, _, value = line.partition(":")
        if value.strip():
            numbers[f"{part}: {name}"] = float(value)
        elif name.strip():
            part = name
    return numbers


def _program(checkout: pathlib.Path) -> dict:
    sys.modules["spacy"] = types.SimpleNamespace(load=lambda name: None)
    sys.modules["tqdm"] = types.SimpleNamespace(tqdm=iter)
    program: dict = {"__name__": "inference"}
    exec((checkout / "inference.py").read_text(), program)
    return program
