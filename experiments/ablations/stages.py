"""Which of the demo's four stages does it need?

Question: what is lost on easy-VQA without contrastive training of the encoder, and without a language model that has read and a projector that is aligned before?
Command:  vlmjax ablate --config=experiments/ablations/stages.py --workdir=runs/ablations/stages --seeds=3
Source:   the stages are LLaVA's (arXiv:2304.08485; its table of ablations trains without the first stage, too) behind CLIP's objective.
Arguments: those of experiments/demo.py.
"""
import pathlib

from vlmjax import config

DEMO = pathlib.Path(__file__).parent.parent / "demo.py"


def get_config(arg: str = ""):
    c = config.load(f"{DEMO}:{arg}" if arg else str(DEMO))
    c.evaluate.maps = 0
    return c


def get_sweep(arg: str = ""):
    return [
        {"name": "all four"},
        {"name": "without align and language", "run": ("contrast", "instruct")},
        # The encoder stays as it was drawn: random features.
        {"name": "without contrast", "run": ("language", "align", "instruct")},
    ]
