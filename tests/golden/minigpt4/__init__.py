"""Tiny stand-ins of the files that MiniGPT-4 is published in, under the authors' names, for both of its builds; drawn here again each time, so that only what the authors' code makes of them is stored."""
import pathlib

import numpy as np

REFERENCE = pathlib.Path(__file__).parent / "reference.npz"
SIZE, PATCH, WIDTH, MLP, LAYERS = 56, 14, 176, 768, 3  # 16 patches, two heads of 88
BERT, BERT_MLP, BERT_LAYERS, QUERIES, LANGUAGE = 128, 256, 4, 5, 32


def images() -> np.ndarray:
    """u8[3, h, w, 3]."""
    return np.random.RandomState(1).randint(0, 256, (3, SIZE, SIZE, 3)).astype(np.uint8)


class _Draw:
    def __init__(self, seed: int):
        self.state = np.random.RandomState(seed)  # whose numbers are promised to stay
        self.tensors: dict[str, np.ndarray] = {}

    def __call__(self, name: str, *shape: int, scale: float | None = None, around: float = 0.0) -> None:
        scale = shape[-1] ** -0.5 if scale is None else scale
        self.tensors[name] = (around + scale * self.state.standard_normal(shape)).astype(np.float32)

    def norm(self, name: str, width: int) -> None:
        self(f"{name}.weight", width, scale=0.2, around=1.0)
        self(f"{name}.bias", width, scale=0.2)

    def linear(self, name: str, outputs: int, inputs: int, scale: float = 1.0) -> None:
        self(f"{name}.weight", outputs, inputs, scale=scale * inputs**-0.5)
        self(f"{name}.bias", outputs, scale=0.2 * scale)


def eva() -> dict[str, np.ndarray]:
    """eva_vit_g.pth, without a prefix, with a head that no one uses. What the blocks add is small: the epsilon of the norm behind them shows."""
    draw = _Draw(2)
    draw("cls_token", 1, 1, WIDTH, scale=0.02)
    draw("pos_embed", 1, (SIZE // PATCH) ** 2 + 1, WIDTH, scale=0.02)
    draw("patch_embed.proj.weight", WIDTH, 3, PATCH, PATCH, scale=0.001)
    draw("patch_embed.proj.bias", WIDTH, scale=0.01)
    for i in range(LAYERS):
        draw.norm(f"blocks.{i}.norm1", WIDTH)
        draw("blocks.%d.attn.q_bias" % i, WIDTH, scale=0.2)
        draw("blocks.%d.attn.v_bias" % i, WIDTH, scale=0.2)
        draw("blocks.%d.attn.qkv.weight" % i, 3 * WIDTH, WIDTH, scale=1.6 * WIDTH**-0.5)
        draw.linear(f"blocks.{i}.attn.proj", WIDTH, WIDTH, 0.02)
        draw.norm(f"blocks.{i}.norm2", WIDTH)
        draw.linear(f"blocks.{i}.mlp.fc1", MLP, WIDTH)
        draw.linear(f"blocks.{i}.mlp.fc2", WIDTH, MLP, 0.02)
    draw.norm("norm", WIDTH)
    draw.linear("head", 8, WIDTH)
    return draw.tensors


def blip2() -> dict[str, np.ndarray]:
    """What blip2_pretrained_flant5xxl.pth has under `model`: the norm, queries, Q-Former, its way to T5, and a buffer."""
    draw = _Draw(3)
    draw("query_tokens", 1, QUERIES, BERT, scale=0.7)
    draw.norm("ln_vision", WIDTH)
    draw.tensors["Qformer.bert.embeddings.position_ids"] = np.arange(8)[None]
    draw.norm("Qformer.bert.embeddings.LayerNorm", BERT)
    for i in range(BERT_LAYERS):
        layer = f"Qformer.bert.encoder.layer.{i}"
        for attention, inputs in (("attention", BERT), ("crossattention", WIDTH))[: 2 - i % 2]:
            draw.linear(f"{layer}.{attention}.self.query", BERT, BERT, 1.6)
            draw.linear(f"{layer}.{attention}.self.key", BERT, inputs, 1.6)
            draw.linear(f"{layer}.{attention}.self.value", BERT, inputs)
            draw.linear(f"{layer}.{attention}.output.dense", BERT, BERT)
            draw.norm(f"{layer}.{attention}.output.LayerNorm", BERT)
        draw.linear(f"{layer}.intermediate_query.dense", BERT_MLP, BERT)
        draw.linear(f"{layer}.output_query.dense", BERT, BERT_MLP)
        draw.norm(f"{layer}.output_query.LayerNorm", BERT)
    draw.linear("t5_proj", 48, BERT)
    return draw.tensors


def linear(qformer: bool = True) -> dict[str, np.ndarray]:
    """What MiniGPT-4's own file has under `model`."""
    draw = _Draw(4)
    draw.linear("llama_proj", LANGUAGE, BERT if qformer else 4 * WIDTH)
    return draw.tensors
