"""MiniGPT-4 as it is published, in parts, → the tensors and the config of one checkpoint (family blip-2, its second layout).

The parts: EVA ViT-g (`eva_vit_g.pth`), the norm behind it and the Q-Former (LAVIS's `blip2_pretrained_flant5xxl.pth`), the linear map to the language model (MiniGPT-4's own file) and that model. The first two may
also come from a BLIP-2 in transformers' layout, which holds the same numbers. Source: Vision-CAIR/MiniGPT-4 at d94738a, models/{base_model,eva_vit,Qformer,minigpt4}.py. Its build with Llama 2 has no Q-Former and never
loads the norm, so that this is the one of torch's start: ones and zeros.
"""
import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vlmjax.errors import UserError
from vlmjax.models.projector import ProjectorConfig
from vlmjax.models.qformer import QFormerConfig
from vlmjax.models.vit import ViTConfig
from vlmjax.weights import blip2, llama, table

KIND = "minigpt4"  # `model_type` of what is written: transformers has no class that reads these names
ENCODER, QUERIES, LINEAR = "visual_encoder.cls_token", "query_tokens", "llama_proj.weight"
NORM_EPS = 1e-5  # torch's own, of the norm behind the encoder
BLOCKS = 39  # of the file's 40
HEAD_DIM, BERT_HEAD_DIM = 88, 64
# What the files hold and MiniGPT-4 does not compute: EVA's last block, norm and head, BERT's words and its layers for text, heads of BLIP-2's first stage, the way to its language model, buffers.
LEFT = (r"visual_encoder\.(?!blocks\.|cls_token|pos_embed|patch_embed\.).*", r"Qformer\.cls\..*", r"Qformer\.bert\.embeddings\.(word_embeddings\.weight|position_embeddings\.weight|position_ids)",
        r"Qformer\.bert\.encoder\.layer\.\d+\.(intermediate|output)\..*", r"(t5|opt)_(proj|model)\..*", r"(vision_proj|text_proj|itm_head)\..*", "temp", *llama.IGNORED)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Part:
    """One of the things that are joined. tensors: by the authors' names. sizes: {component: its config}, of a checkpoint that says them. left: names of tensors that no one computes with."""

    where: str
    tensors: Mapping[str, np.ndarray]
    sizes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    left: tuple[str, ...] = ()


def of_file(tensors: Mapping[str, np.ndarray], where: str) -> Part:
    """A .pth file's tensors. EVA's own file has no prefix."""
    bare = "cls_token" in tensors and ENCODER not in tensors
    named = {f"visual_encoder.{name}" if bare else name: tensor for name, tensor in tensors.items()}
    left = tuple(sorted(name for name in named if any(re.fullmatch(pattern, name) for pattern in LEFT) or (_block(name) or 0) >= BLOCKS))
    return Part(where, {name: tensor for name, tensor in named.items() if name not in left}, {}, left)


def of_checkpoint(arrays: Mapping[str, np.ndarray], sizes: Mapping[str, Any], where: str) -> Part:
    """A checkpoint's leaves by layer: of a language model alone, or the encoder and the Q-Former of a BLIP-2, whatever its language model."""
    if other := sorted(path for path in arrays if "_lora/" in path or path.startswith("decoder/added_")):
        raise UserError(f"{where}: has adapters or added tokens beside its matrices ({other[0]}); write it whole first (vlmjax convert --model={where} --to=DIR) and give DIR")
    if set(sizes) == {"decoder"}:
        return Part(where, table.write(arrays, blip2.LAVIS), sizes)
    if not isinstance(sizes.get("projector"), QFormerConfig):
        raise UserError(f"{where}: is neither a language model nor a BLIP-2, whose encoder and Q-Former MiniGPT-4 has; it has {', '.join(sizes)}")
    seeing = {path: leaf for path, leaf in arrays.items() if path.startswith(("encoder/", "projector/")) and not path.startswith("projector/linear_0/")}
    return Part(where, table.write(seeing, blip2.LAVIS), {"encoder": sizes["encoder"], "projector": sizes["projector"]}, tuple(sorted(set(arrays) - set(seeing))))


def join(parts: Sequence[Part]) -> tuple[dict[str, np.ndarray], dict[str, Any], list[str]]:
    """→ ({name: tensor}, {component: its config}, remarks). Of a tensor that several parts hold the last one counts, as when the authors' code loads them in this order."""
    tensors: dict[str, np.ndarray] = {}
    known: dict[str, Any] = {}
    remarks = []
    for part in parts:
        if again := sorted(set(tensors) & set(part.tensors)):
            remarks.append(f"{_some(again)} from {part.where} in place of an earlier file's")
        if part.left:
            remarks.append(f"left out of {part.where}, as MiniGPT-4 does: {_some(part.left)}")
        tensors |= part.tensors
        known |= part.sizes
    where = " + ".join(part.where for part in parts)
    if ENCODER not in tensors:
        raise UserError(f"{where}: have no encoder ({ENCODER}): add eva_vit_g.pth or a BLIP-2's directory")
    encoder = dataclasses.replace(known.get("encoder") or _encoder(tensors, where), final_eps=NORM_EPS)
    sizes: dict[str, Any] = {"encoder": encoder, **({"decoder": known["decoder"]} if "decoder" in known else {})}
    if ("decoder" in known) != (LINEAR in tensors):
        lacking = f"nothing that leads to the language model ({LINEAR}): add MiniGPT-4's own .pth file" if "decoder" in known else f"{LINEAR} and no language model that it leads to: add its directory"
        raise UserError(f"{where}: have {lacking}")
    reads = _shape(tensors, LINEAR, 2, where)[1] if LINEAR in tensors else None
    joined = reads == blip2.JOIN * encoder.width
    if joined == (QUERIES in tensors):
        raise UserError(f"{where}: " + (f"{LINEAR} reads {reads} numbers, {blip2.JOIN} patches, as MiniGPT-4 with Llama 2 does, which has no Q-Former: leave out the part with {QUERIES}" if joined else
                                       f"have no Q-Former ({QUERIES}): add blip2_pretrained_flant5xxl.pth or a BLIP-2's directory"))
    if joined:
        sizes["projector"] = ProjectorConfig(depth=1, join=blip2.JOIN)
        if "ln_vision.weight" not in tensors:
            tensors |= {"ln_vision.weight": np.ones(encoder.width, np.float32), "ln_vision.bias": np.zeros(encoder.width, np.float32)}
            remarks.append("the norm behind the encoder is ones and zeros: MiniGPT-4 without a Q-Former loads none")
    else:
        sizes["projector"] = known.get("projector") or _qformer(tensors, where)
    return tensors, sizes, remarks


def config(sizes: Mapping[str, Any]) -> dict[str, Any]:
    return blip2.config(sizes) | {"model_type": KIND, "architectures": ["MiniGPT4"]}


def _encoder(tensors: Mapping[str, np.ndarray], where: str) -> ViTConfig:
    """What the shapes say, and what create_eva_vit_g says of all else."""
    shape = lambda name, dimensions: _shape(tensors, f"visual_encoder.{name}", dimensions, where)
    _, places, width = shape("pos_embed", 3)
    patch = shape("patch_embed.proj.weight", 4)[-1]
    layers = 1 + max((block for name in tensors if (block := _block(name)) is not None), default=0)
    return ViTConfig(size=math.isqrt(places - 1) * patch, patch=patch, width=width, layers=layers, heads=max(1, width // HEAD_DIM), mlp=shape("blocks.0.mlp.fc1.weight", 2)[0], activation="gelu", eps=1e-6,
                     pre_norm=False, final_norm=True, patch_bias=True, feature_layer=-1)


def _qformer(tensors: Mapping[str, np.ndarray], where: str) -> QFormerConfig:
    """What the shapes say, and what bert-base-uncased says of all else."""
    _, queries, width = _shape(tensors, QUERIES, 3, where)
    layers = 1 + max((int(found[1]) for name in tensors if (found := re.match(r"Qformer\.bert\.encoder\.layer\.(\d+)\.", name))), default=0)
    return QFormerConfig(queries=queries, width=width, layers=layers, heads=max(1, width // BERT_HEAD_DIM), mlp=_shape(tensors, "Qformer.bert.encoder.layer.0.intermediate_query.dense.weight", 2, where)[0])


def _shape(tensors: Mapping[str, np.ndarray], name: str, dimensions: int, where: str) -> tuple[int, ...]:
    if name not in tensors:
        raise UserError(f"{where}: lack {name}")
    if tensors[name].ndim != dimensions or not tensors[name].size:
        raise UserError(f"{where}: {name} is of shape {tensors[name].shape}, not of {dimensions} dimensions")
    return tensors[name].shape


def _block(name: str) -> int | None:
    found = re.match(r"visual_encoder\.blocks\.(\d+)\.", name)
    return int(found[1]) if found else None


def _some(names: Sequence[str]) -> str:
    return f"{len(names)} tensor{'s' * (len(names) > 1)} ({', '.join(names[:3])}{' …' * (len(names) > 3)})"
