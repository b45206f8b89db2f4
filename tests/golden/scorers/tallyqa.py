"""TallyQA: accuracy and RMSE of numbers, by its program. Needs torch and Pillow, which that imports."""
import importlib.util
import pathlib
import random

CODE = "manoja328/tallyqacode, utils.py"


def make(checkout: pathlib.Path) -> dict:
    spec = importlib.util.spec_from_file_location("utils", checkout / "utils.py")
    spec.loader.exec_module(official := importlib.util.module_from_spec(spec))
    rng = random.Random(0)
    said, right = [rng.choice((rng.randrange(16), rng.randrange(4))) for _ in range(400)], [rng.choice((rng.randrange(16), rng.randrange(4))) for _ in range(400)]
    simple = [rng.random() < 0.6 for _ in right]
    numbers = {}
    for kind in ("all", "simple", "complex"):
        of = [i for i, is_simple in enumerate(simple) if kind == "all" or is_simple == (kind == "simple")]
        pair = [right[i] for i in of], [said[i] for i in of]
        numbers[kind] = {"accuracy": float(official.accuracy(*pair)), "RMSE": float(official.RMSE(*pair))}
    return {"said": said, "right": right, "simple": simple, "numbers": numbers}
