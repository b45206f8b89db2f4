"""`python -m tests.golden.minigpt4 CHECKOUT` writes reference.npz: the image tokens that the code of Vision-CAIR/MiniGPT-4 (a checkout, at d94738a) makes of the stand-ins, float32, on a CPU.

Needs torch and transformers. Their MiniGPT4.encode_img, VisionTransformer, BertLMHeadModel and LayerNorm run as they stand. A shim holds what they only import: names that transformers has moved, timm, peft,
omegaconf, the language model and the registry; MiniGPT4 is put together from tiny parts, since its own __init__ downloads.
"""
import functools
import importlib
import pathlib
import sys
import types
from unittest import mock

import numpy as np
import torch
import transformers
import transformers.modeling_utils
import transformers.pytorch_utils
from torch import nn

from tests.golden import minigpt4 as parts
from vlmjax.layout import ImageLayout


def official(checkout: pathlib.Path) -> types.SimpleNamespace:
    for name in ("apply_chunking_to_forward", "prune_linear_layer"):
        setattr(transformers.modeling_utils, name, getattr(transformers.pytorch_utils, name))
    transformers.modeling_utils.find_pruneable_heads_and_indices = None  # nothing is pruned
    for name in ("minigpt4", "minigpt4.models"):  # without their __init__, which import every task and data set
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [str(checkout.joinpath(*name.split(".")))]
    registry = mock.MagicMock()
    registry.registry.register_model = lambda name: lambda cls: cls
    layers = types.SimpleNamespace(drop_path=None, to_2tuple=lambda x: (x, x), trunc_normal_=nn.init.trunc_normal_)
    shims = {"timm": mock.MagicMock(), "timm.models": mock.MagicMock(), "timm.models.layers": layers, "timm.models.registry": mock.MagicMock(), "omegaconf": mock.MagicMock(), "peft": mock.MagicMock(),
             "minigpt4.common": mock.MagicMock(), "minigpt4.common.dist_utils": mock.MagicMock(), "minigpt4.common.utils": mock.MagicMock(), "minigpt4.common.registry": registry,
             "minigpt4.models.modeling_llama": mock.MagicMock(), "minigpt4.conversation": mock.MagicMock(), "minigpt4.conversation.conversation": mock.MagicMock()}  # fmt: skip
    sys.modules.update(shims)
    code = types.SimpleNamespace(**{name: importlib.import_module(f"minigpt4.models.{name}") for name in ("eva_vit", "Qformer", "base_model", "minigpt4")})
    code.Qformer.BertPreTrainedModel.init_weights = lambda self: None  # transformers 5 wants more of a class for it, and every tensor is loaded
    code.Qformer.BertPreTrainedModel.get_head_mask = lambda self, mask, layers: [None] * layers  # these two went with transformers 5; all masks here are ones
    code.Qformer.BertPreTrainedModel.invert_attention_mask = lambda self, mask: (1.0 - mask[:, None, None, :]) * torch.finfo(torch.float32).min
    return code


def build(code: types.SimpleNamespace, qformer: bool) -> nn.Module:
    """init_vision_encoder, init_Qformer and the linear map, at the stand-ins' sizes; their tensors are loaded as there: in this order, whatever does not fit left."""
    class Model(code.minigpt4.MiniGPT4):
        def __init__(self):
            nn.Module.__init__(self)

    model = Model()
    model.visual_encoder = code.eva_vit.VisionTransformer(
        img_size=parts.SIZE, patch_size=parts.PATCH, use_mean_pooling=False, embed_dim=parts.WIDTH, depth=parts.LAYERS, num_heads=parts.WIDTH // 88, mlp_ratio=4.3637, qkv_bias=True,
        norm_layer=functools.partial(nn.LayerNorm, eps=1e-6))  # fmt: skip
    print(model.visual_encoder.load_state_dict(tensors(parts.eva()), strict=False))
    model.ln_vision = code.base_model.LayerNorm(parts.WIDTH)
    model.has_qformer = qformer
    if qformer:
        sizes = transformers.BertConfig(hidden_size=parts.BERT, num_hidden_layers=parts.BERT_LAYERS, num_attention_heads=parts.BERT // 64, intermediate_size=parts.BERT_MLP, vocab_size=8,
                                        max_position_embeddings=8, attn_implementation="eager")
        sizes.encoder_width, sizes.add_cross_attention, sizes.cross_attention_freq, sizes.query_length = parts.WIDTH, True, 2, parts.QUERIES
        model.Qformer = code.Qformer.BertLMHeadModel(config=sizes)
        model.query_tokens = nn.Parameter(torch.zeros(1, parts.QUERIES, parts.BERT))
        model.Qformer.cls = model.Qformer.bert.embeddings.word_embeddings = model.Qformer.bert.embeddings.position_embeddings = None
        for layer in model.Qformer.bert.encoder.layer:
            layer.output = layer.intermediate = None
        found = model.load_state_dict(tensors(parts.blip2()), strict=False)
        assert not [name for name in found.missing_keys if not name.startswith("visual_encoder.")], found
    inputs = parts.linear(qformer)["llama_proj.weight"].shape[1]
    model.llama_proj = nn.Linear(inputs, parts.LANGUAGE)
    model.load_state_dict(tensors(parts.linear(qformer)), strict=False)
    return model.float().eval()


def tensors(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def main(checkout: str) -> None:
    code = official(pathlib.Path(checkout))
    mean, std = (np.asarray(x, np.float32) for x in (ImageLayout.mean, ImageLayout.std))
    pixels = torch.from_numpy(((parts.images() / np.float32(255) - mean) / std).astype(np.float32).transpose(0, 3, 1, 2).copy())
    found = {}
    with torch.no_grad():
        for name, qformer in (("vicuna", True), ("llama2", False)):
            model = build(code, qformer)
            found[name] = model.encode_img(pixels)[0].numpy()
            model.ln_vision.eps = 1e-6
            print(name, found[name].shape, "with the other epsilon", np.abs(model.encode_img(pixels)[0].numpy() - found[name]).max() / np.abs(found[name]).max())
    np.savez(parts.REFERENCE, **found)


main(sys.argv[1])
