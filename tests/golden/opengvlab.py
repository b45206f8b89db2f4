"""OpenGVLab's own code as a reference, from a checkout of github.com/OpenGVLab/InternVL that the environment variable INTERNVL names (at 2410d1d).

Its model, configuration and conversations run as they are. In place of packages that a tiny Qwen2 model on the CPU does not reach stand empty modules: timm (DropPath), einops, peft, and
its own InternLM2 and Phi3. dynamic_preprocess is taken from the source of train/dataset.py, whose imports need torchvision; behind it torchvision's resize to the size that a tile has
already does nothing, so what is left of build_transform is a division by 255 and the normalisation. Files are opened as transformers opens them: its demo turns no photo upright.
"""
import ast
import json
import os
import pathlib
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import safetensors.torch
import torch
import transformers

from vlmjax.parity import reference

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TILES = 4  # at most, as of the other families in make.py


def code() -> tuple[Any, Any, Any, Any]:
    """→ (modeling_internvl_chat, configuration_internvl_chat, conversation, dynamic_preprocess)."""
    if "INTERNVL" not in os.environ:
        sys.exit("internvl_chat: set INTERNVL to a checkout of github.com/OpenGVLab/InternVL")
    root = pathlib.Path(os.environ["INTERNVL"]) / "internvl_chat"
    for name, things in {"timm": (), "timm.models": (), "timm.models.layers": ("DropPath",), "einops": ("rearrange",), "peft": ("LoraConfig", "get_peft_model"),
                         "internvl.model.internlm2": (), "internvl.model.internlm2.configuration_internlm2": ("InternLM2Config",),
                         "internvl.model.internlm2.modeling_internlm2": ("InternLM2ForCausalLM",), "internvl.model.phi3": (),
                         "internvl.model.phi3.configuration_phi3": ("Phi3Config",), "internvl.model.phi3.modeling_phi3": ("Phi3ForCausalLM",)}.items():
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(dict.fromkeys(things))
    for name in ("internvl", "internvl.model", "internvl.model.internvl_chat"):  # without their __init__, which load everything
        sys.modules.setdefault(name, types.ModuleType(name)).__path__ = [str(root.joinpath(*name.split(".")))]
    from internvl import conversation
    from internvl.model.internvl_chat import configuration_internvl_chat, modeling_internvl_chat

    tree = ast.parse((root / "internvl" / "train" / "dataset.py").read_text())
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in ("find_closest_aspect_ratio", "dynamic_preprocess")]
    names: dict[str, Any] = {}
    exec(compile(ast.Module(functions, []), "dataset.py", "exec"), names)
    return modeling_internvl_chat, configuration_internvl_chat, conversation, names["dynamic_preprocess"]


def build(node: dict[str, Any]) -> Any:
    """Its model of a config.json, eager attention."""
    modeling, configuration, _, _ = code()
    config = configuration.InternVLChatConfig(**json.loads(json.dumps(node)))
    config.llm_config._attn_implementation = "eager"
    return modeling.InternVLChatModel(config, use_flash_attn=False).eval()


class Model:
    """The checkpoint in a directory, called as transformers' models are."""

    def __init__(self, directory: str):
        directory = pathlib.Path(directory)
        self.own = build(json.loads((directory / "config.json").read_text()))
        self.own.load_state_dict({name: tensor.float() for name, tensor in safetensors.torch.load_file(directory / "model.safetensors").items()})
        self.own.img_context_token_id = transformers.AutoTokenizer.from_pretrained(directory).convert_tokens_to_ids("<IMG_CONTEXT>")
        self.generation_config = transformers.GenerationConfig.from_pretrained(directory)
        self.named_parameters = self.own.named_parameters

    def __call__(self, pixel_values: Any = None, **inputs: Any) -> Any:
        """Its training code shows an example without images one that does not count."""
        size = self.own.config.force_image_size
        pixels = torch.zeros(1, 3, size, size) if pixel_values is None else pixel_values
        return self.own(pixel_values=pixels, image_flags=torch.full((len(pixels), 1), int(pixel_values is not None)), return_dict=True, **inputs)

    def generate(self, input_ids: Any, **inputs: Any) -> Any:
        """It returns what is new alone."""
        return torch.cat([input_ids, self.own.generate(input_ids=input_ids, **inputs)], 1)


def tiles(directory: str, data: bytes) -> np.ndarray:
    """u8[n, h, w, 3]"""
    config = json.loads((pathlib.Path(directory) / "config.json").read_text())
    cut = code()[3](reference._upright(data), config["min_dynamic_patch"], config["max_dynamic_patch"], config["force_image_size"], config["use_thumbnail"])
    return np.stack([np.asarray(tile) for tile in cut])


def normalised(pixels: np.ndarray) -> Any:
    """f32[n, 3, h, w]"""
    mean, std = (torch.tensor(three, dtype=torch.float32)[:, None, None] for three in (MEAN, STD))
    return torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()).float().div(255).sub(mean).div(std)


def prompts(directory: str, family: str, cases: Any) -> list[dict[str, Any]]:
    """As InternVLChatModel.chat makes them of a prompt that is ready."""
    tokenizer, files, out = transformers.AutoTokenizer.from_pretrained(directory), cases.images(), []
    config = json.loads((pathlib.Path(directory) / "config.json").read_text())
    tokens = int((config["force_image_size"] // config["vision_config"]["patch_size"]) ** 2 * config["downsample_ratio"] ** 2)
    for prompt, names in cases.IMAGE_PROMPTS:
        images = [tiles(directory, files[name]) for name in names]
        for image in images:
            prompt = prompt.replace("<image>", "<img>" + "<IMG_CONTEXT>" * tokens * len(image) + "</img>", 1)
        out.append(dict(tokenizer(prompt, return_tensors="pt")) | ({"pixel_values": normalised(np.concatenate(images))} if images else {}))
    return out


def run(directory: str, family: str, cases: Any) -> dict[str, np.ndarray]:
    """What reference.run gives of its families, of internvl_chat."""
    directory = str(directory)
    model = Model(directory)
    model.own.vision_model.requires_grad_(False)
    out, ready = {}, {}
    for name, data in cases.images().items():
        pixels = tiles(directory, data)
        ready[name] = normalised(pixels)
        for stage, values in (("pixels", pixels), ("normalised", ready[name].numpy().transpose(0, 2, 3, 1))):
            out[f"{stage}/{name}"] = values[0] if len(values) == 1 else values
    pixels = torch.cat([ready[name] for name in cases.MODEL_IMAGES])
    with torch.no_grad():
        out |= reference._numbered("vision_hidden", model.own.vision_model(pixels, output_hidden_states=True, return_dict=True).hidden_states)
        out["image_tokens"] = model.own.extract_feature(pixels)
    out |= reference._answers(model, directory, prompts(directory, family, cases), cases)
    return {key: reference._array(value) for key, value in out.items()}


def conversations(names: tuple[str, ...]) -> dict[str, list[Any]]:
    """{template: [turns from the first question on, what its code makes of them]}; turns that end with a question ask for an answer."""
    out = {}
    for name in names:
        for turns in (("<image>\nWhat is this?",), ("Hi", "Hello.", "And\nthat?")):
            conversation = code()[2].get_conv_template(name)
            for i, turn in enumerate(turns):
                conversation.append_message(conversation.roles[i % 2], turn)
            conversation.append_message(conversation.roles[1], None)
            out.setdefault(name, []).append([turns, conversation.get_prompt()])
    return out


def save(directory: pathlib.Path, tokens: dict[str, Any], randomise: Callable[[torch.nn.Module], torch.nn.Module]) -> None:
    """As OpenGVLab's own checkpoints, InternVL3's config.json: bfloat16, a vocabulary without tokenizer.json, a chat template that is Qwen's and not the model's. Smaller than the
    others, for the files of all must stay small. tokens: vocabulary and merges of a byte-level BPE, as tokenizer.json has them."""
    added = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "<img>", "</img>", "<IMG_CONTEXT>", "<box>", "</box>")
    vocabulary = {token: id_ for token, id_ in tokens["vocab"].items() if token not in added}
    ids = {token: len(vocabulary) + i for i, token in enumerate(added)}
    special = [token for token in added if token != "<tool_call>"]
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    roles = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "additional_special_tokens": special[1:]}
    template = "{%- if messages[0]['role'] != 'system' %}{{- '<|im_start|>system\nYou are Qwen.<|im_end|>\n' }}{%- endif %}{%- for message in messages %}{{- message.content }}{%- endfor %}"
    rows = len(vocabulary) + len(added) + 3
    config = {
        "architectures": ["InternVLChatModel"], "model_type": "internvl_chat", "downsample_ratio": 0.5, "dynamic_image_size": True, "force_image_size": 16, "max_dynamic_patch": TILES,
        "min_dynamic_patch": 1, "pad2square": False, "ps_version": "v2", "select_layer": -1, "system_message": None, "template": "internvl2_5", "tie_word_embeddings": False,
        "torch_dtype": "bfloat16", "use_backbone_lora": 0, "use_llm_lora": 0, "use_thumbnail": True,
        "llm_config": {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu", "hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 4,
                       "num_key_value_heads": 2, "num_hidden_layers": 2, "max_position_embeddings": 256, "max_window_layers": 70, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
                       "rope_scaling": {"factor": 2.0, "rope_type": "dynamic", "type": "dynamic"}, "sliding_window": None, "use_sliding_window": False, "vocab_size": rows,
                       "bos_token_id": ids["<|endoftext|>"], "eos_token_id": ids["<|endoftext|>"]},
        "vision_config": {"architectures": ["InternVisionModel"], "model_type": "intern_vit_6b", "hidden_act": "gelu", "hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2,
                          "num_hidden_layers": 2, "image_size": 16, "patch_size": 4, "norm_type": "layer_norm", "layer_norm_eps": 1e-6, "qk_normalization": False, "qkv_bias": True,
                          "drop_path_rate": 0.0, "use_flash_attn": False},
    }
    model = randomise(build(config))
    safetensors.torch.save_file({name: tensor.to(torch.bfloat16) for name, tensor in model.state_dict().items()}, directory / "model.safetensors", {"format": "pt"})
    write = lambda name, value: (directory / name).write_text(value if isinstance(value, str) else json.dumps(value, indent=1, ensure_ascii=False))
    write("config.json", config)
    write("generation_config.json", {"eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]]})
    write("vocab.json", vocabulary)
    write("merges.txt", "\n".join(["#version: 0.2", *(" ".join(merge) for merge in tokens["merges"]), ""]))
    write("added_tokens.json", ids)
    write("special_tokens_map.json", roles)
    write("tokenizer_config.json", {"tokenizer_class": "Qwen2Tokenizer", "add_prefix_space": False, "bos_token": None, "unk_token": None, **roles, "chat_template": template,
                                    "added_tokens_decoder": {id_: {"content": token, **flags, "special": token in special} for token, id_ in ids.items()}})
    write("preprocessor_config.json", {"crop_size": 16, "do_center_crop": True, "do_normalize": True, "do_resize": True, "feature_extractor_type": "CLIPFeatureExtractor",
                                       "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "resample": 3, "size": 16})
    (directory.parent / "conversations.json").write_text(json.dumps(conversations(("Hermes-2", "internlm2-chat", "internvl2_5")), ensure_ascii=False))
