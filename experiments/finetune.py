"""A released vision-language model, fine-tuned with adapters on one's own conversations.

Question: what does the model do on my data, after one pass over it?
Command:  vlmjax train --config=experiments/finetune.py:MODEL,DATA.json --workdir=runs/mine
          MODEL is a directory or hf://org/name of a LLaVA, or a run of one's own; DATA.json is LLaVA's JSON or JSONL, its images beside it, or in
          FOLDER of MODEL,DATA.json,FOLDER.
Source:   haotian-liu/LLaVA, scripts/v1_5/finetune_task_lora.sh: rank 128, alpha 256, adapters beside all linear maps of the language model, 2e-4 for them
          and 2e-5 for the projector, batch 128, one epoch, warmup 0.03, cosine, no decay, no clipping, padding to a square; dropout 0.05 is train.py's default.
Differs:  as experiments/llava_1_5.py says.
Then:     vlmjax convert --model=runs/mine --to=DIR merges the adapters and writes what transformers loads.
"""
import os

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    model, *rest = arg.split(",")
    if not model or len(rest) not in (1, 2):
        raise ValueError(f"finetune.py takes MODEL,DATA.json or MODEL,DATA.json,FOLDER, not {arg!r}")
    data = os.path.abspath(os.path.expanduser(rest[0]))
    folder = os.path.abspath(os.path.expanduser(rest[1])) if rest[1:] else os.path.dirname(data)
    c = ConfigDict()
    c.seed = 42
    c.tokenizer = model
    c.template = "vicuna_v1"  # as LLaVA-1.5 was trained; `checkpoint`: the model's own chat template
    c.added_tokens = ()  # new ones; give `("decoder/added_.*", True)` a place among the rules of `trainable`, and they learn beside a frozen table
    c.precision = ConfigDict(dict(params="float32", compute="bfloat16", frozen="bfloat16", moments="float32"))
    c.compile = ConfigDict(dict(unroll=1, remat="full"))
    c.mesh = ConfigDict(dict(replica=1, fsdp=-1, tensor=1))
    c.model = ConfigDict(dict(
        encoder=dict(variant="", weights=model), projector=dict(variant="", weights=model),
        decoder=dict(variant="", weights=model, vocab=0, lora=dict(rank=128, alpha=256.0, dropout=0.05, targets=(".*",)))))
    c.run = ("instruct",)
    c.stages = ConfigDict(dict(instruct=dict(
        objective="next_token", trainable=((".*_lora/.*", True), ("projector/.*", True), (".*", False)), data=((f"llava:{data}:{folder}", 1.0),), batch=128, length=2048,
        images=1, targets=1472, per_group=1, resize="pad", epochs=1.0, weighting="token", accumulate=1, skip_nonfinite=0, max_unusable=0.0, max_broken=0.001,
        optimizer=dict(name="adamw", lr=2e-4, schedule="cosine", warmup=0.03, clip=0.0, decay=0.0, betas=(0.9, 0.999), eps=1e-8,
                       lr_scale=(("projector/.*", 0.1), (".*", 1.0))))))
    c.evaluate = ConfigDict(dict(split="", controls=("real", "blind", "shuffled", "prior"), after=dict(), mesh=""))
    c.preflight = ConfigDict(dict(samples=2, images=64, max_overlap=0.0, other_template=False))
    c.checkpoint = ConfigDict(dict(every=100, keep=2))
    c.logging = ConfigDict(dict(every=10, line_seconds=30.0, tensorboard=True, trace_steps=0, trace_start=10, trace_process=0))
    c.prefetch = 16
    c.workers = 16
    return c
