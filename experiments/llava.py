"""LLaVA (arXiv:2304.08485): CLIP L/14 at 224 → one linear layer → Vicuna, in two stages.

Question: does the first recipe give the first model, and what do the changes of llava_1_5.py bring?
Command:  vlmjax train --config=experiments/llava.py:7b --workdir=runs/llava-1.0-7b --data_dir=DATA
Needs in DATA: what `vlmjax data sources llava-cc3m-595k` and `llava-instruct-150k` list.
Arguments: `7b`, `13b`; `tiny` is the same two stages on the tiny checkpoints of tests/golden, for tests.
Source:   haotian-liu/LLaVA v1.0.1: README.md (its table of hyperparameters), scripts/pretrain.sh and finetune_full_schedule.sh (with Vicuna v1.3, whose
          template is v1; the paper's first release had Vicuna v0). The batch of 32 is the paper's and the table's; the script's is 128.
Differs:  as llava_1_5.py: what is longer than its row is left out and counted, the loss is the mean over the tokens of the global batch.
"""
from ml_collections import ConfigDict

LANGUAGE = {"7b": ("llama-7b", "hf://lmsys/vicuna-7b-v1.3"), "13b": ("llama-13b", "hf://lmsys/vicuna-13b-v1.3")}
CAPTIONS = "llava:LLaVA-CC3M-Pretrain-595K/chat.json:LLaVA-CC3M-Pretrain-595K/images"
CHATS = "llava:LLaVA-Instruct-150K/llava_instruct_150k.json:coco/train2017"


def get_config(arg: str = "7b") -> ConfigDict:
    if arg not in (*LANGUAGE, "tiny"):
        raise ValueError(f"llava.py takes {', '.join(LANGUAGE)} or tiny, not {arg!r}")
    tiny = arg == "tiny"
    variant, weights = ("", "tests/golden/llama/model") if tiny else LANGUAGE[arg]
    c = ConfigDict()
    c.seed = 42
    c.tokenizer = weights
    c.template = "vicuna_v1"
    # pretrain.sh: --bf16 True; masters and moments stay in float32.
    c.precision = ConfigDict(dict(params="float32", compute="float32" if tiny else "bfloat16", frozen="bfloat16", moments="float32"))
    c.compile = ConfigDict(dict(unroll=1, remat="full"))  # --gradient_checkpointing True
    c.mesh = ConfigDict(dict(replica=1, fsdp=-1, tensor=1))
    c.model = ConfigDict(dict(
        # --vision_tower openai/clip-vit-large-patch14 --mm_vision_select_layer -2, class token dropped: 256 image tokens.
        encoder=dict(variant="" if tiny else "clip-l14", weights="tests/golden/clip/model" if tiny else "hf://openai/clip-vit-large-patch14", feature_layer=-2),
        projector=dict(variant="linear", weights=""), decoder=dict(variant=variant, weights=weights, vocab=0)))
    c.run = ("align", "instruct")
    def stage(trainable, data, **recipe):
        lr, batch, length, targets, epochs, template = (recipe[key] for key in ("lr", "batch", "length", "targets", "epochs", "template"))
        return dict(objective="next_token", trainable=trainable, data=((data, 1.0),), batch=8 if tiny else batch, length=256 if tiny else length,
                    images=1, targets=64 if tiny else targets, per_group=1, template=template, epochs=1.0 if tiny else epochs,
                    resize="crop",  # CLIP's own processor in both stages; padding came with 1.5
                    weighting="token", accumulate=1, skip_nonfinite=0, max_unusable=0.01, max_broken=0.001,
                    # --lr_scheduler_type cosine --warmup_ratio 0.03 --weight_decay 0.; adamw_torch has these betas and eps; its DeepSpeed configs name no clipping.
                    optimizer=dict(name="adamw", lr=lr, schedule="cosine", warmup=0.03, clip=0.0, decay=0.0, betas=(0.9, 0.999), eps=1e-8, lr_scale=()))

    c.stages = ConfigDict(dict(
        # README: pretraining, batch 128, 2e-3, one epoch over 595K captions; pretrain.sh: --version v0_plain, of the question only the image stays. CC3M's captions are ten words on
        # average (Sharma et al. 2018), and have 127 places beside the beginning mark and the 256 of their image.
        align=stage((("projector/.*", True), (".*", False)), CAPTIONS, lr=2e-3, batch=128, length=384, targets=128, epochs=1.0, template="plain"),
        # README: finetuning, batch 32, 2e-5, three epochs over 158K; finetune_full_schedule.sh: --version v1. The encoder stays frozen.
        # --model_max_length 2048. A row is one example: packed four to a row they would be 8 rows, which divide over few slices.
        instruct=stage((("encoder/.*", False), (".*", True)), CHATS, lr=2e-5, batch=32, length=2048, targets=1792, epochs=3.0, template="vicuna_v1"),
    ))
    c.evaluate = ConfigDict(dict(split="", controls=("real", "blind", "shuffled", "prior"), after=dict(), mesh=""))
    c.preflight = ConfigDict(dict(samples=2, images=64, max_overlap=0.0, other_template=False))
    c.checkpoint = ConfigDict(dict(every=500, keep=2))
    c.logging = ConfigDict(dict(every=20, line_seconds=60.0, tensorboard=True, trace_steps=0, trace_start=10, trace_process=0))
    c.prefetch = 16
    c.workers = 16
    return c
