"""InternVL3 (arXiv:2504.10479) fine-tuned as its authors do for a task of one's own: InternViT frozen, projector and language model learn, images in up to 12 tiles and a
thumbnail.

Question: what does a strong public model gain from LLaVA-1.5's mixture, or, with another list of data, from yours?
Command:  vlmjax train --config=experiments/internvl.py:1b --workdir=runs/internvl-1b --data_dir=DATA
          One tile an image, as InternVL 1.2 was trained, a sixth of the tokens: --config.stages.instruct.tiles=1 --config.stages.instruct.length=4096 --config.stages.instruct.images=8
          --config.stages.instruct.batch=16 (16 rows hold 119 examples).
          From OpenGVLab's own layout, with its system message, M=hf://OpenGVLab/InternVL3-1B: --config.tokenizer=$M --config.model.encoder.weights=$M
          --config.model.projector.weights=$M --config.model.decoder.weights=$M
Needs in DATA: what `vlmjax data sources llava-665k` lists; built by `vlmjax data build`, its images are not read at every start for their sizes.
Arguments: `1b`, `2b`, `8b`; `tiny` is the same on the tiny checkpoint of tests/golden, for tests.
Source:   OpenGVLab/InternVL, internvl_chat/shell/internvl3.0/2nd_finetune: tiles (max_dynamic_patch), length, learning rates, decay, warmup, no drop path, about 128 examples a step, one
          epoch, clipping at 1.
Differs:  where an example shows several images, InternVL divides the tiles among them; here each may have 12. Rows of 16,384 tokens with 52 tiles: 32 of them hold 136 examples of
          lengths like the mixture's when every image has all its tiles, 89 % of their tokens real (benchmarks/packing.py --length=16384 --images=4 --targets=2560 --image=3330). The step
          of 1b, compiled for a v5e-32, holds 9.0 of a chip's 15.75 GiB. The loss is the mean over supervised tokens of the global batch.
"""
from ml_collections import ConfigDict

RATES = {"1b": 1e-5, "2b": 2e-5, "8b": 2e-5}


def get_config(arg: str = "1b") -> ConfigDict:
    if arg not in (*RATES, "tiny"):
        raise ValueError(f"internvl.py takes {', '.join(RATES)} or tiny, not {arg!r}")
    tiny = arg == "tiny"
    weights = "tests/golden/internvl/model" if tiny else f"hf://OpenGVLab/InternVL3-{arg.upper()}-hf"
    c = ConfigDict()
    c.seed = 42
    c.tokenizer = weights
    c.template = "checkpoint"
    c.precision = ConfigDict(dict(params="float32", compute="float32" if tiny else "bfloat16", frozen="bfloat16", moments="float32"))
    c.compile = ConfigDict(dict(unroll=1, remat="full"))
    c.mesh = ConfigDict(dict(replica=1, fsdp=-1, tensor=1))
    c.model = ConfigDict({part: dict(variant="", weights=weights) for part in ("encoder", "projector", "decoder")})  # of one dict an override would change all three
    c.run = ("instruct",)
    c.stages = ConfigDict(dict(instruct=dict(
        objective="next_token", trainable=(("encoder/.*", False), (".*", True)), data=(("llava:LLaVA-Finetune/llava_v1_5_mix665k.json:LLaVA-Finetune/images", 1.0),),
        batch=8 if tiny else 32, length=96 if tiny else 16384, images=5 if tiny else 52, targets=64 if tiny else 2560, per_group=1, resize="squash", tiles=4 if tiny else 12, epochs=1.0,
        weighting="token",
        accumulate=1, skip_nonfinite=0, max_unusable=0.01, max_broken=0.001,
        optimizer=dict(name="adamw", lr=RATES.get(arg, 1e-5), schedule="cosine", warmup=0.03, clip=1.0, decay=0.05, betas=(0.9, 0.999), eps=1e-8, lr_scale=()))))
    c.evaluate = ConfigDict(dict(split="", controls=("real", "blind", "shuffled", "prior"), after=dict(), mesh=""))
    c.preflight = ConfigDict(dict(samples=2, images=64, max_overlap=0.0, other_template=False))
    c.checkpoint = ConfigDict(dict(every=500, keep=2))
    c.logging = ConfigDict(dict(every=20, line_seconds=60.0, tensorboard=True, trace_steps=0, trace_start=10, trace_process=0))
    c.prefetch = 16
    c.workers = 16
    return c
