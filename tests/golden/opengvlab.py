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
from typing import Any

import numpy as np
import safetensors.torch
import torch
import transformers

from vlmjax.parity import reference

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


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
