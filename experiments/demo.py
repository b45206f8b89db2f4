"""The mission in miniature: an encoder, a projector and a language model trained from scratch on easy-VQA, then asked.

Question: does a model that is trained in stages answer from the image, and how much would it guess without it?
Command:  launch/demo.sh   (or: vlmjax train --config=experiments/demo.py --workdir=runs/demo)
Arguments: `` all of it; `tiny` the same path in under 90 s, scored on 1,000 questions, for tests; `holdout` trains on 3,600 images and is scored on the
other 400 training images: settings are chosen there, never on the test split.
"""
from ml_collections import ConfigDict

ALL, NOTHING = ((".*", True),), ((".*", False),)


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ("", "tiny", "holdout"):
        raise ValueError(f"demo.py takes no argument, tiny or holdout, not {arg!r}")
    train, scored = ("train[:3600]", "train[3600:]") if arg == "holdout" else ("train", "test")
    c = ConfigDict()
    c.seed = 0
    c.tokenizer = "words"
    c.template = "plain_qa"
    # float32 throughout: bfloat16 is emulated, and slower, on a CPU.
    c.precision = ConfigDict(dict(params="float32", compute="float32", frozen="float32", moments="float32"))
    c.compile = ConfigDict(dict(unroll=0, remat="none"))
    c.mesh = ConfigDict(dict(replica=1, fsdp=-1, tensor=1))
    c.model = ConfigDict(dict(
        # `weights`: a checkpoint to start from, for example another run's directory; empty: random.
        encoder=dict(variant="tiny-64", weights="", feature_layer=-2), text_tower=dict(variant="tiny", weights="", vocab=-1),
        # One token for four by four patches: four tokens of an image instead of 64. With 64 the decoder is slow to find what a question asks for, and
        # whether it has by the end depends on the seed (experiments/README.md).
        projector=dict(variant="mlp2x-shuffle4", weights=""), decoder=dict(variant="tiny-64", weights="", vocab=-1)))
    c.run = ("contrast", "language", "align", "instruct")
    adamw = dict(name="adamw", schedule="cosine", warmup=0.05, clip=1.0, decay=0.05, betas=(0.9, 0.99), eps=1e-8, lr_scale=())
    def stage(objective, trainable, view, lr, **more):
        return dict(objective=objective, trainable=trainable, data=((f"easy_vqa:{train}:{view}", 1.0),), optimizer=dict(adamw, lr=lr),
                    **dict(dict(weighting="token", resize="crop", per_group=1, accumulate=1, skip_nonfinite=0, max_unusable=0.0, max_broken=0.001, encode_once=False), **more))

    c.stages = ConfigDict(dict(
        # Encoder and text tower: which of the 24 captions belongs to the image? Rows with equal captions are positives.
        contrast=stage("contrastive", ALL, "captions", 2e-3, batch=64, length=8, images=1, epochs=10.0),
        # The decoder alone learns the language of questions and captions, not of answers: one that learns to answer blind goes on
        # guessing when it sees (experiments/README.md).
        language=stage("next_token", ALL, "texts", 1e-3, batch=16, length=128, images=0, targets=128, epochs=0.2),
        # Only the projector learns, from captions.
        align=stage("next_token", (("projector/.*", True), *NOTHING), "captions", 3e-3, batch=32, length=16, images=1, targets=4, epochs=1.0),
        # Projector and decoder learn from questions, the encoder stays frozen. All questions about an image share its tokens, and a row has room
        # for two images.
        instruct=stage("next_token", (("encoder/.*", False), *ALL), "questions", 2e-3, batch=4, length=184, images=2, targets=44, per_group=16, epochs=2.0),
    ))
    c.evaluate = ConfigDict(dict(split=scored, mesh="", sample=0, maps=4, controls=("real", "blind", "shuffled", "prior"),
                                 after=dict(contrast=("easy_vqa_zero_shot",), align=("easy_vqa_caption",), instruct=("easy_vqa",))))
    c.preflight = ConfigDict(dict(samples=2, images=64, max_overlap=0.0, other_template=False))
    c.checkpoint = ConfigDict(dict(every=100, keep=2))
    c.logging = ConfigDict(dict(every=20, line_seconds=10.0, tensorboard=True, trace_steps=0, trace_start=10, trace_process=0))
    c.prefetch = 4
    c.workers = 1
    c.expected_seconds = 350
    if arg == "tiny":
        for name, epochs in (("contrast", 1.0), ("language", 0.05), ("align", 0.1), ("instruct", 0.1)):
            c.stages[name].epochs = epochs
        c.evaluate.sample, c.evaluate.maps = 1000, 2  # of the 9,673 questions
        c.expected_seconds = 90
    return c
