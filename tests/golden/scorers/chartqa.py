"""ChartQA: relaxed correctness of pix2struct. editdistance, which its module asks for, has to be installed."""
import pathlib
import random

from tests.golden.scorers import docvqa, open_answers

CODE = "google-research/pix2struct, pix2struct/metrics.py"
RIGHT = ("14", "0.57", "No", "Yes", "0", "0.0", "50%", "50", "2019", "-3.2", "1,000", "1.216666667", "green line", "1e3", "nan", "inf", "Over 30 mins", "0.03", "[2009, 2013]", "caf\u00e9")


def make(checkout: pathlib.Path) -> dict:
    relaxed = docvqa.pix2struct(checkout, "relaxed_correctness")
    rng, said, right = random.Random(0), [], []
    for _ in range(400):
        answer = rng.choice(RIGHT)
        try:
            near = f"{float(answer) * rng.choice((0.95, 0.9499, 1, 1.05, 1.0501, 1.02, 2)):.6g}"
        except ValueError:
            near = answer
        right.append(answer)
        said.append(rng.choice((near, near, near + "%", answer, answer.lower(), answer.upper(), f"{answer}.", f"{answer} %", rng.choice(RIGHT), rng.choice(open_answers.PLAIN))).strip())
    return {"said": said, "right": right, "correct": [int(relaxed(answer, text)) for text, answer in zip(said, right)]}
