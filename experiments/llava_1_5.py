"""LLaVA-1.5 (arXiv:2310.03744): CLIP L/14 at 336 → two-layer MLP → Vicuna v1.5, in two stages.

Question: does the published recipe, stage by stage, give the published model?
Command:  vlmjax train --config=experiments/llava_1_5.py:vicuna-7b --workdir=runs/llava-7b --data_dir=DATA
Needs in DATA: what `vlmjax data sources llava-pretrain-558k` and `llava-665k` list.
Arguments: `vicuna-7b`, `vicuna-13b`; `tiny` is the same two stages on the tiny checkpoints of tests/golden, for tests.
Source:   haotian-liu/LLaVA, scripts/v1_5/pretrain.sh and finetune.sh: learning rates, batches, epochs, warmup, no decay, no clipping, templates, padding.
Differs:  nothing is cut: an example longer than its row, or with more supervised tokens than the row has places for, is left out and counted (preflight refuses more than 1 % of them), where LLaVA
          cuts at 2048 tokens. While instructing, two images and their conversations share a row: 64 rows hold about LLaVA's 128 examples, the exact number varies from step to step.
          The loss is the mean over all supervised tokens of the global batch, not the mean of the devices' means. Examples are shuffled, not grouped by length.
"""
from ml_collections import ConfigDict

LANGUAGE = {"vicuna-7b": ("vicuna-7b", "hf://lmsys/vicuna-7b-v1.5"), "vicuna-13b": ("llama2-13b", "hf://lmsys/vicuna-13b-v1.5")}
NOTHING_ELSE = (".*", False)


def get_config(arg: str = "vicuna-7b") -> ConfigDict:
    if arg not in (*LANGUAGE, "tiny"):
        raise ValueError(f"llava_1_5.py takes {', '.join(LANGUAGE)} or tiny, not {arg!r}")
    tiny = arg == "tiny"
    variant, weights = ("", "tests/golden/llama/model") if tiny else LANGUAGE[arg]
    c = ConfigDict()
    c.seed = 42
    c.tokenizer = weights
    c.template = "vicuna_v1"
    # Masters and moments in float32, as under DeepSpeed's bf16.
    c.precision = ConfigDict(dict(params="float32", compute="float32" if tiny else "bfloat16", frozen="bfloat16", moments="float32"))
    c.compile = ConfigDict(dict(unroll=1, remat="full"))
    c.mesh = ConfigDict(dict(replica=1, fsdp=-1, tensor=1))
    c.model = ConfigDict(dict(
        encoder=dict(variant="" if tiny else "clip-l14-336", weights="tests/golden/clip/model" if tiny else "hf://openai/clip-vit-large-patch14-336", feature_layer=-2),
        projector=dict(variant="mlp2x", weights=""), decoder=dict(variant=variant, weights=weights, vocab=0)))
    c.run = ("align", "instruct")
    def stage(trainable, data, lr, template, resize, batch, length, images, targets):
        return dict(objective="next_token", trainable=trainable, data=((data, 1.0),), batch=8 if tiny else batch, length=256 if tiny else length, images=1 if tiny else images,
                    targets=64 if tiny else targets, per_group=1, resize=resize, template=template, epochs=1.0, weighting="token", accumulate=1, skip_nonfinite=0, max_unusable=0.01, max_broken=0.001,
                    optimizer=dict(name="adamw", lr=lr, schedule="cosine", warmup=0.03, clip=0.0, decay=0.0, betas=(0.9, 0.999), eps=1e-8, lr_scale=()))

    c.stages = ConfigDict(dict(
        # Feature alignment: the projector alone, on 558K captions; the question is dropped, only its image stays. A caption has 191 places beside the beginning mark and the 576 of its image:
        # BLIP's is one sentence, and the 50 words at which BLIP and MiniGPT-4 cut captions are fewer than 100 tokens. At 2048 seven tenths of a row would be padding.
        align=stage((("projector/.*", True), NOTHING_ELSE), "llava:LLaVA-Pretrain/blip_laion_cc_sbu_558k.json:LLaVA-Pretrain/images", 1e-3, "plain", "crop", 256, 768, 1, 192),
        # Visual instruction tuning: projector and language model, images padded to a square. With two images to a row, lengths like the mixture's, simulated (benchmarks/packing.py), give 2.02 examples
        # to a row, 129 to a step; 83 % of tokens and 96 % of image slots are real, where one example to a row leaves 59 % of the tokens empty.
        instruct=stage((("encoder/.*", False), (".*", True)), "llava:LLaVA-Finetune/llava_v1_5_mix665k.json:LLaVA-Finetune/images", 2e-5, "vicuna_v1", "pad", 64, 2048, 2, 1472),
    ))
    c.evaluate = ConfigDict(dict(split="", controls=("real", "blind", "shuffled", "prior"), after=dict(), mesh=""))
    c.preflight = ConfigDict(dict(samples=2, images=64, max_overlap=0.0, other_template=False))
    c.checkpoint = ConfigDict(dict(every=500, keep=2))
    c.logging = ConfigDict(dict(every=20, line_seconds=60.0, tensorboard=True, trace_steps=0, trace_start=10, trace_process=0))
    c.prefetch = 16
    c.workers = 16
    return c
