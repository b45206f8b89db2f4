"""A bundle as a directory that transformers reads with `from_pretrained` and no code of ours."""
from typing import Any

import jax
from etils import epath

from vlmjax import files
from vlmjax.bundle import Bundle
from vlmjax.data import chat_template
from vlmjax.errors import UserError
from vlmjax.models.decoder import DecoderConfig
from vlmjax.weights import FAMILIES, image_processor, store
from vlmjax.weights.family import CARRIED, Family


def write(bundle: Bundle, directory: epath.PathLike, what: str | None = None) -> Family:
    """Writes weights, config, tokenizer, chat template, processor and generation config of the part of the bundle that `what` names (`clip`, `llama`,
    `qwen2`, `llava`; by default the largest one it has), adapters merged into the kernels beside them. config.json comes last. → the family it was written as."""
    directory, bundle = epath.Path(directory), bundle.with_adapters("merged")
    name = what or default(bundle)
    if name not in FAMILIES:
        raise UserError(f"--as: {name!r} is not one of {', '.join(FAMILIES)}")
    family = FAMILIES[name]
    if lacking := [c for c in family.components if c not in bundle.parts]:
        raise UserError(f"--as: {name} needs {', '.join(lacking)}, and the model has {', '.join(bundle.parts)}")
    refuse(bundle, family)
    arrays = bundle.by_layer()
    mine = {path: leaf for path, leaf in arrays.items() if path.split("/")[0] in family.components} | dict(bundle.carried)
    if family.name == "llava" and not bundle.carried:  # a tower that was trained here has its last norm in the contrast head
        mine |= {f"{CARRIED}vision_norm/{leaf}": arrays[f"contrast_head/vision_norm/{leaf}"] for leaf in ("scale", "bias") if f"contrast_head/vision_norm/{leaf}" in arrays}
    tokenizer = bundle.tokenizer
    ids = {"bos_token_id": tokenizer.bos, "eos_token_id": tokenizer.eos, "pad_token_id": tokenizer.pad}
    config = family.config({c: bundle.parts[c].config for c in family.components if hasattr(bundle.parts[c], "config")}) | {"dtype": "float32"}
    (config["text_config"] if "text_config" in config else config).update(ids)
    if family.name == "llava":
        config["image_token_index"] = tokenizer.image
    if jax.process_index() == 0:
        store.save(directory, family.write(mine), {"format": "pt"})
        files.write_json(directory / "tokenizer_config.json", tokenizer.transformers_config())
        tokenizer.save(directory / "tokenizer.json")
        chat = chat_template.write(bundle.template, *(tokenizer.text_of(id_) if id_ is not None else "" for id_ in (tokenizer.bos, tokenizer.eos)))
        if chat and "decoder" in family.components:
            files.write(directory / chat_template.FILE, chat)
        if bundle.layout and "encoder" in family.components:
            treatment = image_processor.config(bundle.layout)
            files.write_json(directory / "preprocessor_config.json", treatment)
            files.write_json(directory / "processor_config.json", _processor(family, bundle, treatment))
        if "decoder" in family.components:
            files.write_json(directory / "generation_config.json", {**ids, "do_sample": False})
        files.write_json(directory / "config.json", config)
    return family


def default(bundle: Bundle) -> str:
    """The largest family whose components the bundle has."""
    if bundle.vlm and bundle.vlm.encoder:
        return "llava"
    if bundle.vlm:
        return "qwen2" if bundle.parts["decoder"].config.qkv_bias else "llama"
    return "clip"


def refuse(bundle: Bundle, family: Family) -> None:
    """What no class of transformers computes."""
    if "projector" in family.components and (depth := bundle.parts["projector"].config.depth) != 2:
        raise UserError(f"convert: transformers' LLaVA has a projector of 2 linear maps, this one has {depth}")
    if "encoder" in family.components:
        encoder = bundle.parts["encoder"].config
        if not (encoder.class_token and encoder.pre_norm) or encoder.final_norm or encoder.patch_bias:
            raise UserError("convert: the encoder is not built like CLIP's (class token, norm before the blocks, no bias of patches), and no other is written yet")
    decoder: DecoderConfig | None = bundle.parts["decoder"].config if "decoder" in family.components else None
    if decoder and family.name == "llava" and bundle.tokenizer.image is None:
        raise UserError("convert: the tokenizer has no image token, and transformers' LLaVA needs one")


def _processor(family: Family, bundle: Bundle, treatment: dict[str, Any]) -> dict[str, Any]:
    if family.name == "clip":
        return {"processor_class": "CLIPProcessor", "image_processor": treatment}
    return {"processor_class": "LlavaProcessor", "patch_size": bundle.layout.patch, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1,
            "image_token": bundle.tokenizer.text_of(bundle.tokenizer.image), "image_processor": treatment}
