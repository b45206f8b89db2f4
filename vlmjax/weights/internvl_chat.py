"""InternVL as OpenGVLab publishes it (internvl_chat): the model of internvl.py under other names.

Its config.json, or only its code, says what other checkpoints have in files: how images are cut and normalised, which tokens stand around them, and how a conversation is written
(OpenGVLab/InternVL, internvl_chat/internvl: model/internvl_chat, conversation.py, train/constants.py and dataset.py at 2410d1d). The chat template in its tokenizer's files is that of the
language model which it was made from, and not what it was trained with.
"""
import json
from collections.abc import Mapping
from typing import Any

from vlmjax.errors import UserError
from vlmjax.models.projector import ProjectorConfig
from vlmjax.models.vit import ViTConfig
from vlmjax.weights import internvl, llama
from vlmjax.weights.family import OUR_ACTIVATIONS, Config, Family, InConfig
from vlmjax.weights.table import CONV, FLAT, LEAD, LEAD_2, LINEAR, LINEAR_2, Entry, both, prefixed

# configuration_internvl_chat.py and configuration_intern_vit.py: of a key that is left out. Those of the vision model are InternViT-6B's.
DEFAULTS = {"downsample_ratio": 0.5, "ps_version": "v1", "min_dynamic_patch": 1, "max_dynamic_patch": 6}
VISION_DEFAULTS = {"hidden_size": 3200, "intermediate_size": 12800, "num_hidden_layers": 48, "num_attention_heads": 25, "image_size": 224, "patch_size": 14, "hidden_act": "gelu",
                   "norm_type": "rms_norm", "qk_normalization": True, "qkv_bias": False, "layer_norm_eps": 1e-6, "initializer_factor": 0.1}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # IMAGENET_MEAN and IMAGENET_STD of its constants.py
MARKS = ("<img>", "</img>", "<IMG_CONTEXT>")
# `template` → system message and what ends a turn. A config without a `system_message` has the template's; so has one with null, as in its training (train/dataset.py).
_OLD = "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, 是一个有用无害的人工智能助手。"
_NEW = "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
TEMPLATES = {"Hermes-2": (_OLD, "<|im_end|>"), "internlm2-chat": (_OLD, "<|im_end|>"), "internvl2_5": (_NEW, "<|im_end|>\n")}
_SYSTEM, _USER, _ASSISTANT = (f"<|im_start|>{role}\n" for role in ("system", "user", "assistant"))

_BLOCK = (
    Entry("attn.qkv.weight", tuple(f"attention/{n}/kernel" for n in "qkv"), LINEAR), Entry("attn.qkv.bias", tuple(f"attention/{n}/bias" for n in "qkv"), FLAT),
    *both("attn.proj", "attention/o", LINEAR_2, "kernel"), *both("norm1", "norm1"), *both("norm2", "norm2"), *both("mlp.fc1", "mlp/up", LINEAR, "kernel"),
    *both("mlp.fc2", "mlp/down", LINEAR, "kernel"), Entry("ls1", "scale1"), Entry("ls2", "scale2"),
)  # fmt: skip
_VISION = (
    Entry("embeddings.class_embedding", "class_token", LEAD_2), Entry("embeddings.position_embedding", "position_embed", LEAD), *both("embeddings.patch_embedding", "patch_embed", CONV, "kernel"),
    *prefixed(_BLOCK, "encoder.layers.{i}.", "layers/{i}/"),
)  # fmt: skip
# torch's Sequential: the activation is its number 2
_PROJECTOR = (*both("mlp1.0", "pre_norm"), *both("mlp1.1", "linear_0", LINEAR, "kernel"), *both("mlp1.3", "linear_1", LINEAR, "kernel"))
_LAYOUT = (*prefixed(_VISION, "vision_model.", "encoder/"), *prefixed(_PROJECTOR, "", "projector/"), *prefixed(llama.BODY, "language_model.model."),
           *prefixed((llama.HEAD,), "language_model."))


def _sizes(c: Config) -> dict[str, Any]:
    for key, fine in (("select_layer", -1), ("pad2square", False), ("use_backbone_lora", 0), ("use_llm_lora", 0)):
        c.refuse(key, fine)
    c.check(c("ps_version") == "v2", "ps_version", "'v2' ('v1' turns the image over)")
    v, text = c.part("vision_config", VISION_DEFAULTS), c.part("llm_config")
    v.check(v("norm_type") == "layer_norm", "norm_type", "'layer_norm', which is InternViT-300M")
    v.check(not v("qk_normalization"), "qk_normalization", "False, which is InternViT-300M")
    v.refuse("use_moe", False)
    c.refuse("force_image_size", v("image_size"))  # another size would interpolate the position embeddings
    encoder = ViTConfig(size=v("image_size"), patch=v("patch_size"), width=v("hidden_size"), layers=v("num_hidden_layers"), heads=v("num_attention_heads"), mlp=v("intermediate_size"),
                        activation=v.activation("hidden_act"), eps=v("layer_norm_eps"), pre_norm=False, patch_bias=True, qkv_bias=("q", "k", "v") if v("qkv_bias") else (),
                        feature_layer=-1, layer_scale=v("initializer_factor"))
    kinds = {llama.ARCHITECTURES[kind]: kind for kind in ("qwen2", "llama")}
    architecture = (text.node.get("architectures") or ["none"])[0]
    if architecture not in kinds:
        raise UserError(f"{text.where}: architectures is {architecture!r}, and vlmjax computes only {' or '.join(kinds)}")
    return {"encoder": encoder, "projector": ProjectorConfig(shuffle=internvl.shuffle(c), norm=True),
            "decoder": llama.text_sizes(Config({**text.node, "model_type": kinds[architecture], "tie_word_embeddings": False}, text.where))}  # configuration_internvl_chat.py never ties


def _config(sizes: Mapping[str, Any]) -> dict[str, Any]:
    v, d = sizes["encoder"], sizes["decoder"]
    vision = {"architectures": ["InternVisionModel"], "model_type": "intern_vit_6b", "image_size": v.size, "patch_size": v.patch, "hidden_size": v.width, "num_hidden_layers": v.layers,
              "num_attention_heads": v.heads, "intermediate_size": v.mlp, "hidden_act": OUR_ACTIVATIONS[v.activation], "layer_norm_eps": v.eps, "qkv_bias": bool(v.qkv_bias),
              "qk_normalization": False, "norm_type": "layer_norm", "initializer_factor": v.layer_scale}
    text = llama.config(d)
    rope = text.pop("rope_parameters")  # its code is of transformers 4, which has two keys
    text |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": {**rope, "type": "dynamic"} if d.dynamic else None}
    return {"architectures": ["InternVLChatModel"], "model_type": "internvl_chat", "select_layer": -1, "ps_version": "v2", "downsample_ratio": 1 / sizes["projector"].shuffle,
            "force_image_size": v.size, "pad2square": False, "use_backbone_lora": 0, "use_llm_lora": 0, "tie_word_embeddings": d.tied, "vision_config": vision, "llm_config": text}


def _misfit(sizes: Mapping[str, Any]) -> str:
    if why := internvl.misfit(sizes):
        return why
    if sizes["decoder"].tied:
        return "OpenGVLab's code never ties the head to the table of tokens, whatever config.json says, and this model has no head of its own"
    if sizes["projector"].activation != "gelu":
        return f"OpenGVLab's projector has gelu between its linear maps, and this one {sizes['projector'].activation}"
    return "OpenGVLab's code has no class around a Mistral" if llama.kind(sizes["decoder"]) == "mistral" else ""


def _images(c: Config) -> dict[str, Any]:
    """dynamic_preprocess and build_transform of train/dataset.py: cut as transformers' GotOcr2 cuts, with ImageNet's mean and deviation whatever preprocessor_config.json says."""
    cut = bool(c.node.get("dynamic_image_size")) and c("max_dynamic_patch") > 1
    if cut:
        c.check(c("min_dynamic_patch") == 1, "min_dynamic_patch", "1")
        if not c.node.get("use_thumbnail"):
            raise UserError(f"{c.where}: use_thumbnail is {c.node.get('use_thumbnail')!r}, and vlmjax shows the whole image behind its tiles")
    return {"image_processor_type": "GotOcr2ImageProcessor", "max_patches": c("max_dynamic_patch") if cut else 1, "do_center_crop": False, "image_mean": MEAN, "image_std": STD}


def _image_keys(node: Mapping[str, Any]) -> dict[str, Any]:
    if (tuple(node["image_mean"]), tuple(node["image_std"])) != (MEAN, STD):
        raise UserError(f"convert: as internvl_chat: its images are normalised by a mean of {node['image_mean']}, and OpenGVLab's code by ImageNet's, so it is not written")
    return {"dynamic_image_size": node["max_patches"] > 1, "use_thumbnail": True, "min_dynamic_patch": 1, "max_dynamic_patch": node["max_patches"]}


def _chat(c: Config) -> str:
    """A system message, its own or the template's, and turns that all end alike."""
    name = c.node.get("template")
    if name not in TEMPLATES:
        raise UserError(f"{c.where}: template is {name!r}, not one of {', '.join(TEMPLATES)}")
    message, stop = TEMPLATES[name]
    said = c.node.get("system_message")  # an empty one is one
    if said is not None and not isinstance(said, str):
        raise UserError(f"{c.where}: system_message is {said!r:.80}, not a text")
    start, stop = (json.dumps(text, ensure_ascii=False) for text in (_SYSTEM + (message if said is None else said) + stop, stop))
    return (f"{{% if messages[0]['role'] != 'system' %}}{{{{ {start} }}}}{{% endif %}}{{% for message in messages %}}{{{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + {stop} }}}}"
            f"{{% endfor %}}{{% if add_generation_prompt %}}{{{{ '<|im_start|>assistant\\n' }}}}{{% endif %}}")


def _chat_keys(start: str, question: tuple[str, str], answer: str, end: str) -> dict[str, Any]:
    for name, (message, stop) in TEMPLATES.items():
        found = start.removeprefix(_SYSTEM).removesuffix(stop + _USER)
        if (start, question, answer, end) == (f"{_SYSTEM}{found}{stop}{_USER}", (_USER, stop), _ASSISTANT, stop):
            return {"template": name} | ({"system_message": found} if found != message else {})
    return {}


FAMILY = Family("internvl_chat", internvl.FAMILY.components, _sizes, _config, {"original": _LAYOUT}, DEFAULTS, ignored=llama.IGNORED, aliases=internvl.TIED, text_key="llm_config", tiles=True,
              in_config=InConfig(MARKS, _images, _image_keys, _chat, _chat_keys, tuple(TEMPLATES)), reader="OpenGVLab/InternVL reads it with its InternVLChatModel", misfit=_misfit)
