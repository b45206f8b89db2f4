"""CLIP (Radford et al. 2021, arXiv:2103.00020): an image tower and a text tower learn from pairs alone which caption belongs to which image.

Question: does the published recipe give encoders of the published quality?
Command:  vlmjax train --config=experiments/clip.py:b32 --workdir=runs/clip-b32 --data_dir=DATA
Needs in DATA: pairs/pairs.jsonl and pairs/images/. The paper's 400 million pairs are not published; any others stand in the form of LLaVA's caption
          files, {"image": FILE, "conversations": [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": CAPTION}]} per line.
          --config.stages.contrast.data names others, for example LLaVA-CC3M-Pretrain-595K.
Arguments: `b32`, `b16`, `l14`; `tiny` is the same stage on a small model with the tokenizer of tests/golden, for tests.
Source:   the paper's §2.3 to §2.5 and its tables of hyperparameters: 18 (common) and 20 (vision transformers); cited from memory, not compared with its text again.
Differs:  images are cropped at the centre, where the paper draws a random square of the resized image. A caption longer than 77 tokens is refused, not cut.
          Rows with the same caption are positives of each other. Masters and moments are float32, where the paper's largest models had them in half
          precision. The extra epoch of L/14 at 336 pixels is not here. The list of pairs is held in memory.
"""
from ml_collections import ConfigDict

# Table 20: learning rates. Widths, depths and the space of each tower are in the variants (table 20; openai/CLIP, clip/model.py).
MODELS = {"b32": ("clip-b32", "clip-b", 5e-4), "b16": ("clip-b16", "clip-b", 5e-4), "l14": ("clip-l14", "clip-l", 4e-4), "tiny": ("tiny-64", "tiny", 5e-4)}


def get_config(arg: str = "b32") -> ConfigDict:
    if arg not in MODELS:
        raise ValueError(f"clip.py takes {', '.join(MODELS)}, not {arg!r}")
    tiny = arg == "tiny"
    encoder, text_tower, lr = MODELS[arg]
    c = ConfigDict()
    c.seed = 0
    # Table 18: 49408 lower-cased byte pairs; one tokenizer for all of OpenAI's models.
    c.tokenizer = "tests/golden/clip/model" if tiny else "hf://openai/clip-vit-base-patch32"
    c.template = "plain_qa"  # a caption has none
    c.precision = ConfigDict(dict(params="float32", compute="float32" if tiny else "bfloat16", frozen="float32", moments="float32"))
    c.compile = ConfigDict(dict(unroll=1, remat="full"))  # §2.5: gradient checkpointing
    c.mesh = ConfigDict(dict(replica=1, fsdp=-1, tensor=1))
    # The temperature starts at 0.07 and never scales by more than 100 (§2.5; models/clip.py).
    c.model = ConfigDict(dict(encoder=dict(variant=encoder, weights=""), text_tower=dict(variant=text_tower, weights="", vocab=-1 if tiny else 0)))
    c.run = ("contrast",)
    # §2.5: decay on all weights that are not gains or biases. Nor, as in open_clip, which reproduces the paper, on the class token and the temperature.
    decay = ((r".*(/scale|/bias|class_token|logit_scale)", 0.0), (".*", 0.2))  # table 18
    c.stages = ConfigDict(dict(contrast=dict(
        objective="contrastive", trainable=((".*", True),), data=(("llava:pairs/pairs.jsonl:pairs/images", 1.0),),
        batch=8 if tiny else 32768, epochs=1.0 if tiny else 32.0,  # table 18
        length=16 if tiny else 77, images=1, targets=0, per_group=1, resize="crop", template="", weighting="token", accumulate=1, skip_nonfinite=0, max_unusable=0.0, max_broken=0.001,
        # Table 18: 2000 steps of warm-up; betas and eps of its vision transformers. §2.5: Adam with decoupled decay, cosine. No clipping is named.
        optimizer=dict(name="adamw", lr=lr, schedule="cosine", warmup=1.0 if tiny else 2000.0, clip=0.0, decay=decay, betas=(0.9, 0.98), eps=1e-6, lr_scale=()))))
    c.evaluate = ConfigDict(dict(split="", controls=("real", "blind", "shuffled", "prior"), after=dict(), mesh=""))
    c.preflight = ConfigDict(dict(samples=2, images=64, max_overlap=0.0, other_template=False))
    c.checkpoint = ConfigDict(dict(every=500, keep=2))
    c.logging = ConfigDict(dict(every=20, line_seconds=60.0, tensorboard=True, trace_steps=0, trace_start=10, trace_process=0))
    c.prefetch = 16
    c.workers = 16
    return c
