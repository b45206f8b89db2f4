"""MiniGPT-4 (arXiv:2304.10592): EVA ViT-g → BLIP-2's Q-Former → one linear layer → Vicuna v0, in two stages; the linear layer alone learns in both. Also its later build with Llama 2,
where the linear layer reads four neighbouring patches at a time instead of what a Q-Former made of them.

Question: how far does a linear layer behind a frozen Q-Former go, and what do 3,500 long descriptions change?
Command:  vlmjax train --config=experiments/minigpt4.py:7b --workdir=runs/minigpt4-7b --data_dir=DATA
Needs in DATA: laion/ and cc_sbu/, the shards that MiniGPT-4's dataset/README_1_STAGE.md has img2dataset make (jpg and json, captions by BLIP), and what `vlmjax data sources minigpt4-align` lists.
Arguments: `7b`, `13b`, `llama2-7b`; `tiny` is the first two stages on the tiny checkpoints of tests/golden, for tests.
Source:   Vision-CAIR/MiniGPT-4: train_configs/minigpt4_stage1_pretrain.yaml, minigpt4_stage2_finetune.yaml and their minigpt4_llama2_ siblings, minigpt4/models/minigpt4.py, common/optims.py, runners/runner_base.py. Encoder and
          Q-Former are those of blip2_pretrained_flant5xxl, from transformers' conversion of it.
Authors' own files instead (pickles: pip install 'vlmjax[torch]'; the first two are LAVIS's, MiniGPT-4's own and Vicuna v0 those that its README links to; Vicuna's directory with safetensors):
          vlmjax convert --model=eva_vit_g.pth,blip2_pretrained_flant5xxl.pth --to=weights/seeing
          vlmjax train --config=experiments/minigpt4.py:7b --workdir=runs/minigpt4-7b --data_dir=DATA --config.model.encoder.variant= --config.model.encoder.weights=weights/seeing --config.model.projector.weights=weights/seeing
          The published model, whole, to chat with, evaluate or convert:
          vlmjax convert --model=eva_vit_g.pth,blip2_pretrained_flant5xxl.pth,prerained_minigpt4_7b.pth,weights/vicuna-7b --to=weights/minigpt4-7b
          (13b: pretrained_minigpt4.pth and Vicuna 13B; llama2-7b: eva_vit_g.pth,pretrained_minigpt4_llama2_7b.pth and Llama 2 chat.) From a linear layer of the first stage (their checkpoint_N.pth) joined the same way into weights/minigpt4-7b
          the second stage alone is the train command with --config.run='("instruct",)' and weights/minigpt4-7b for weights/seeing.
Differs:  from transformers' conversion the norm behind the encoder has the epsilon 1e-6, MiniGPT-4's is 1e-5 (and is, from the authors' files). In `llama2-7b` it is BLIP-2's; MiniGPT-4 without a Q-Former loads none, and its norm
          is ones and zeros (and is, with --config.model.encoder.weights a Llama 2 model joined as above). bfloat16 for float16, and for the float32 of the Q-Former. The rate warms up from 0, not 1e-6, and its cosine begins behind the warm-up at the full
          rate, where MiniGPT-4's counts from step 0: 1e-4 to 8e-5 here, 9.7e-5 to 8e-5 there; 3e-5 to 1e-5, 2.8e-5 to 1e-5. Captions of the first stage stay as they are written (no lower case, no
          dropping of punctuation) and none is cut: one longer than its row is left out and counted (preflight refuses more than 1 %), where MiniGPT-4 cuts at 50 words and 32 tokens, in the second
          stage at 160. The loss is the mean over all supervised tokens of the batch, not the mean of four devices' means. The first stage draws examples by the shares 115 : 14, not batches. An
          example's instruction is always the same one of the four.
Mesh:     12 rows divide over 1, 2, 3, 4, 6 or 12 devices of replica x fsdp: on 16 chips --config.mesh.fsdp=4 --config.mesh.tensor=4.
"""
from ml_collections import ConfigDict

LANGUAGE = {"7b": ("llama-7b", "hf://Vision-CAIR/vicuna-7b"), "13b": ("llama-13b", "hf://Vision-CAIR/vicuna"), "llama2-7b": ("llama2-7b", "hf://meta-llama/Llama-2-7b-chat-hf")}
BLIP2 = "hf://Salesforce/blip2-flan-t5-xxl"


def get_config(arg: str = "7b") -> ConfigDict:
    if arg not in (*LANGUAGE, "tiny"):
        raise ValueError(f"minigpt4.py takes {', '.join(LANGUAGE)} or tiny, not {arg!r}")
    tiny, queries = arg == "tiny", arg != "llama2-7b"
    image = 32 if queries else 64  # tokens
    variant, weights = ("", "tests/golden/llama/model") if tiny else LANGUAGE[arg]
    seeing = "tests/golden/blip-2/model" if tiny else BLIP2
    c = ConfigDict()
    c.seed = 42
    c.tokenizer = weights
    c.template = "minigpt4" if queries else "minigpt4_llama_2"
    c.precision = ConfigDict(dict(params="float32", compute="float32" if tiny else "bfloat16", frozen="bfloat16", moments="float32"))
    c.compile = ConfigDict(dict(unroll=1, remat="full"))
    c.mesh = ConfigDict(dict(replica=1, fsdp=-1, tensor=1))
    c.model = ConfigDict(dict(
        encoder=dict(variant="" if tiny else "eva-g14-hf", weights=seeing),
        # BLIP-2's own linear layer leads to T5: a new one is drawn (seed).
        projector=dict(variant="" if tiny else "qformer", weights=seeing) if queries else dict(variant="linear-join4", weights=""), decoder=dict(variant=variant, weights=weights, vocab=0)))
    c.run = ("align", "instruct")
    def stage(data, mixture, template, batch, targets, prompt, steps, warmup, lr, last):
        return dict(objective="next_token", trainable=(("projector/linear_0/.*", True), (".*", False)), data=data, mixture=mixture, batch=8 if tiny else batch, length=image + prompt + targets,
                    images=1, targets=targets, per_group=1, resize="squash", template=template, steps=2 if tiny else steps, weighting="token", accumulate=1, skip_nonfinite=0,
                    max_unusable=0.01, max_broken=0.001,
                    # runner_base.py: AdamW, no decay of biases and norms; no clipping anywhere.
                    optimizer=dict(name="adamw", lr=lr, schedule="cosine", last=last, warmup=1.0 if tiny else warmup, clip=0.0, decay=0.05, betas=(0.9, 0.999), eps=1e-8, lr_scale=()))

    c.stages = ConfigDict(dict(
        # 4 epochs of 5,000 steps, 64 pairs on each of 4 GPUs. No prompt: the beginning mark, the image, the caption and a line break, which have 88 places.
        align=stage((("webdataset:laion:json.caption", 115.0), ("webdataset:cc_sbu:json.caption", 14.0)), "weights", "plain", 256, 88, 8, 20_000, 5000.0, 1e-4, 8e-5),
        # 5 epochs of 200 steps (the paper: 400 steps), 12 pairs each. What stands around the image has 40 places, a description 184.
        instruct=stage((("minigpt4:cc_sbu_align/filter_cap.json:cc_sbu_align/image", 1.0),), "passes", c.template, 12, 184, 40, 1000, 200.0, 3e-5, 1e-5),
    ))
    c.evaluate = ConfigDict(dict(split="", controls=("real", "blind", "shuffled", "prior"), after=dict(), mesh=""))
    c.preflight = ConfigDict(dict(samples=2, images=64, max_overlap=0.0, other_template=not queries))  # Llama 2's own chat template has no marks around an image
    c.checkpoint = ConfigDict(dict(every=500, keep=2))
    c.logging = ConfigDict(dict(every=20, line_seconds=60.0, tensorboard=True, trace_steps=0, trace_start=10, trace_process=0))
    c.prefetch = 16
    c.workers = 16
    return c
