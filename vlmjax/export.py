"""A bundle as a directory that transformers reads with `from_pretrained` and no code of ours, or LLaVA's own code where transformers has no class."""
import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from vlmjax import files
from vlmjax.bundle import Bundle
from vlmjax.data import chat_template
from vlmjax.data.example import IMAGE_MARK
from vlmjax.data.tokenizer import IMAGE_TOKENS, Tokenizer
from vlmjax.errors import UserError
from vlmjax.layout import ImageLayout
from vlmjax.weights import FAMILIES, clip, image_processor, llama, llava, store
from vlmjax.weights.family import CARRIED, Family


def write(bundle: Bundle, directory: epath.PathLike, what: str | None = None) -> str:
    """Writes weights, config, tokenizer, chat template, processor and generation config of the part of the bundle that `what` names (`clip`, `llama`,
    `mistral`, `qwen2`, `llava`, `internvl`, `internvl_chat`, `blip-2`; by default the largest one it has), adapters merged into the kernels beside them and added tokens joined to their table. config.json comes last. → what was written and who reads it, for people.

    transformers' LLaVA has two linear maps between its towers: with another number it is written as haotian-liu/LLaVA writes its own.
    """
    directory, bundle = epath.Path(directory), bundle.with_adapters("merged").joined()
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
    tokenizer, sizes, remarks = bundle.tokenizer, _sizes(bundle, family), []
    original = family.name == "llava" and sizes["projector"].depth != 2
    if family.image_key and not original and tokenizer.image is None:
        tokenizer = tokenizer.with_tokens([IMAGE_MARK])
        mine, sizes["decoder"] = _with_row(mine, sizes["decoder"], tokenizer)
        remarks.append(f"{tokenizer.text_of(tokenizer.image)} was added to its tokenizer as {tokenizer.image}")
    if remark := family.remark(sizes):
        remarks.append(remark)
    ids = {"bos_token_id": tokenizer.bos, "eos_token_id": tokenizer.eos, "pad_token_id": tokenizer.pad}
    pads = bundle.layout is not None and bundle.layout.resize == "pad"
    config = (llava.original_config(sizes, pads) if original else family.config(sizes)) | {"dtype": "float32"}
    (config[family.text_key] if family.text_key and not original else config).update(ids)
    if family.image_key and not original:
        config[family.image_key] = tokenizer.image
    if family.in_config:
        config |= _in_config(bundle, family)
    if jax.process_index() == 0:
        if original:
            tensors, tower = llava.write_original(mine, sizes["projector"].depth)
            store.save(directory / llava.TOWER, tower, {"format": "pt"})
            files.write_json(directory / llava.TOWER / "preprocessor_config.json", image_processor.config(dataclasses.replace(bundle.layout, resize="crop")))
            files.write_json(directory / llava.TOWER / "config.json", clip.vision_config(sizes["encoder"]) | {"architectures": ["CLIPVisionModel"], "dtype": "float32"})
        else:
            tensors = family.write(mine)
        store.save(directory, tensors, {"format": "pt"})
        files.write_json(directory / "tokenizer_config.json", tokenizer.transformers_config())
        tokenizer.save(directory / "tokenizer.json")
        chat = chat_template.write(bundle.template, *(tokenizer.text_of(id_) if id_ is not None else "" for id_ in (tokenizer.bos, tokenizer.eos)))
        if chat and "decoder" in family.components:
            files.write(directory / chat_template.FILE, chat)
        if bundle.layout and "encoder" in family.components and not original:
            treatment = image_processor.config(bundle.layout, tiles=family.tiles and not family.in_config)
            files.write_json(directory / "preprocessor_config.json", treatment)
            if not family.in_config:
                files.write_json(directory / "processor_config.json", _processor(family, bundle.layout, tokenizer, treatment))
        if "decoder" in family.components:
            files.write_json(directory / "generation_config.json", {**ids, "do_sample": False})
        files.write_json(directory / "config.json", config)
    reader = f"haotian-liu/LLaVA's own layout, its tower in {llava.TOWER}/: no class of transformers has a projector of {sizes['projector'].depth} linear maps" if original \
        else family.reader or f"transformers reads it with from_pretrained({str(directory)!r})"
    return "; ".join([f"{family.name}, float32", reader, *remarks])


def default(bundle: Bundle) -> str:
    """The largest family whose components the bundle has, of two the one whose sizes they are."""
    if bundle.vlm and bundle.vlm.encoder:
        return next((name for name in ("internvl", "blip-2") if not FAMILIES[name].misfit(_sizes(bundle, FAMILIES[name]))), "llava")
    if bundle.vlm:
        return llama.kind(bundle.parts["decoder"].config)
    return "clip"


def _sizes(bundle: Bundle, family: Family) -> dict[str, Any]:
    return {c: bundle.parts[c].config for c in family.components if hasattr(bundle.parts[c], "config")}


def refuse(bundle: Bundle, family: Family) -> None:
    """What nobody else's code computes under the family's name."""
    if why := family.misfit(_sizes(bundle, family)):
        raise UserError(f"convert: as {family.name}: {why}, so it is not written")
    if family.name == "llava" and bundle.layout.tiles > 1:
        raise UserError(f"convert: as llava: its images are cut into up to {bundle.layout.tiles} tiles, and only InternVL's processor does so, so it is not written")
    if family.tiles:
        if bundle.layout.resize != "squash":
            raise UserError(f"convert: as {family.name}: its images are treated by {bundle.layout.resize!r}, and InternVL's processor resizes both sides (squash), so it is not written")
        if bundle.tokenizer.image is None or not bundle.tokenizer.around:
            raise UserError(f"convert: as {family.name}: its tokenizer lacks the marks of an image ({', '.join(IMAGE_TOKENS)}), without which it was trained, so it is not written")


def _in_config(bundle: Bundle, family: Family) -> dict[str, Any]:
    """The keys of config.json that say what of other families a processor's file and a chat template say."""
    tokenizer, template = bundle.tokenizer, bundle.template
    if (marks := tuple(map(tokenizer.text_of, (*tokenizer.around, tokenizer.image)))) != family.in_config.marks:
        raise UserError(f"convert: as {family.name}: the marks of an image are {', '.join(marks)} in its tokenizer, and {', '.join(family.in_config.marks)} in its code, so it is not written")
    eos = tokenizer.text_of(tokenizer.eos) if template.eos else ""
    written = (template.user[0] if template.first is None else template.first, template.user, template.assistant[0], template.end + eos + template.assistant[1])
    chat = {} if template.bos or template.raw else family.in_config.chat_keys(*written)
    if not chat:
        raise UserError(f"convert: as {family.name}: its conversations, by the template {template.name!r}, are none that its code writes ({', '.join(family.in_config.templates)}, with any system message), so it is not written")
    return family.in_config.image_keys(image_processor.config(bundle.layout, tiles=True)) | chat


def _with_row(arrays: Mapping[str, np.ndarray], decoder: Any, tokenizer: Tokenizer) -> tuple[dict[str, np.ndarray], Any]:
    """A table and head with a row for the image token, which nobody reads: image tokens stand in its place. It is that of the token that
    begins a text (or else ends one), so that its logit is never above another's: equal ones go to the lower id."""
    if tokenizer.image < decoder.vocab:
        return dict(arrays), decoder
    like = tokenizer.bos if tokenizer.bos is not None else tokenizer.eos
    more = tokenizer.image + 1 - decoder.vocab
    grown = {path: np.concatenate([arrays[path]] + [np.take(arrays[path], [like], axis)] * more, axis) for path, axis in (("decoder/embed", 0), ("decoder/head", 1)) if path in arrays}
    return {**arrays, **grown}, dataclasses.replace(decoder, vocab=tokenizer.image + 1)


def _processor(family: Family, layout: ImageLayout, tokenizer: Tokenizer, treatment: dict[str, Any]) -> dict[str, Any]:
    if family.name == "clip":
        return {"processor_class": "CLIPProcessor", "image_processor": treatment}
    if family.name == "internvl":
        return {"processor_class": "InternVLProcessor", "image_seq_length": layout.tokens_per_image, "image_processor": treatment}
    if family.name == "blip-2":  # with num_query_tokens it would put the image before all text; without, a prompt has as many marks as an image has tokens
        return {"processor_class": "Blip2Processor", "image_processor": treatment}
    return {"processor_class": "LlavaProcessor", "patch_size": layout.patch, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1,
            "image_token": tokenizer.text_of(tokenizer.image), "image_processor": treatment}
