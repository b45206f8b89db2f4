"""A model that learns from drawn scenes, to be diagnosed: what is there, how many, where, small things.

Question: where does a small model fail that was trained on exactly what it is asked, and what of it is the encoder's 64 pixels?
Command:  vlmjax train --config=experiments/scenes.py --workdir=runs/scenes && vlmjax diagnose --model=runs/scenes && vlmjax diagnose --model=runs/scenes --split=comp
Arguments: `` all of it; `tiny` two steps of each stage, for tests.
"""
from ml_collections import ConfigDict

ALL = ((".*", True),)


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ("", "tiny"):
        raise ValueError(f"scenes.py takes no argument or tiny, not {arg!r}")
    c = ConfigDict()
    c.seed = 0
    c.tokenizer = "words"
    c.template = "plain_qa"
    c.precision = ConfigDict(dict(params="float32", compute="float32", frozen="float32", moments="float32"))
    c.compile = ConfigDict(dict(unroll=0, remat="none"))
    c.mesh = ConfigDict(dict(replica=1, fsdp=-1, tensor=1))
    # 64 patches, of which the projector makes 16 tokens.
    c.model = ConfigDict(dict(encoder=dict(variant="tiny-64", weights="", feature_layer=-1), projector=dict(variant="mlp2x-shuffle2", weights=""), decoder=dict(variant="tiny-64", weights="", vocab=-1)))
    c.run = ("describe", "answer")
    def stage(view, lr, **more):
        return dict(objective="next_token", trainable=ALL, data=((f"scenes:train:{view}", 1.0),), weighting="token", resize="squash", per_group=1, accumulate=1, skip_nonfinite=0, max_unusable=0.0,
                    max_broken=0.0, encode_once=False, optimizer=dict(name="adamw", lr=lr, schedule="cosine", warmup=0.05, clip=1.0, decay=0.05, betas=(0.9, 0.99), eps=1e-8, lr_scale=()), **more)

    c.stages = ConfigDict(dict(
        # Everything learns: from captions that name all things of a scene, row by row, then from questions.
        describe=stage("captions", 1e-3, batch=16, length=128, images=3, targets=68, epochs=2.0),
        answer=stage("questions", 1e-3, batch=16, length=176, images=6, targets=12, epochs=5.0)))
    c.evaluate = ConfigDict(dict(split="test", mesh="", sample=0, maps=0, controls=("real", "blind", "shuffled"), after=dict(answer=("scenes_exists", "scenes_count", "scenes_where", "scenes_detail"))))
    c.preflight = ConfigDict(dict(samples=2, images=64, max_overlap=0.0, other_template=False))
    c.checkpoint = ConfigDict(dict(every=200, keep=2))
    c.logging = ConfigDict(dict(every=20, line_seconds=10.0, tensorboard=True, trace_steps=0, trace_start=10, trace_process=0))
    c.prefetch = 4
    c.workers = 2
    if arg == "tiny":
        c.compile.unroll = 1
        for name in c.run:
            del c.stages[name].epochs
            c.stages[name].steps = 2
        c.evaluate.sample, c.evaluate.after.answer = 12, ("scenes_exists",)
    return c
