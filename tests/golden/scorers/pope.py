"""POPE: each answer as LLaVA's copy of its program reads it, and its numbers over all of them."""
import contextlib
import importlib.util
import io
import json
import pathlib
import random
import tempfile

CODE = "haotian-liu/LLaVA, llava/eval/eval_pope.py"
BEGIN = ("Yes", "yes", "No", "no", "Nope", "There is", "There is no", "I do not see a", "The image shows a", "Not", "", "YES", "NO", "Know", "nothing", "No,", "yes,")
END = ("", ".", ", it is.", ". There is no other.", " snowboard in the image", " there is not", ", no", "\n", "! not here", " a dog. Yes", "No.", ", but not a cat.")


def make(checkout: pathlib.Path) -> dict:
    spec = importlib.util.spec_from_file_location("eval_pope", checkout / "llava/eval/eval_pope.py")
    spec.loader.exec_module(official := importlib.util.module_from_spec(spec))
    rng = random.Random(0)
    cases = [rng.choice(BEGIN) + rng.choice(END) for _ in range(200)]
    labels = [rng.choice(("yes", "no")) for _ in cases]
    answers = [{"text": text} for text in cases]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file, contextlib.redirect_stdout(printed := io.StringIO()):
        file.write("\n".join(json.dumps({"label": label}) for label in labels))
        file.flush()
        official.eval_pope(answers, file.name)
    numbers = dict(line.split(": ") for line in printed.getvalue().splitlines() if ": " in line)
    return {"answers": cases, "labels": labels, "read as": [answer["text"] for answer in answers], "numbers": {name: float(value) for name, value in numbers.items()}}
