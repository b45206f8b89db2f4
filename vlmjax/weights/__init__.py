"""Other people's checkpoints, in and out. A family is its name tables plus what is really new about it."""
from collections.abc import Mapping
from typing import Any

from vlmjax.errors import UserError, did_you_mean
from vlmjax.weights import blip2, clip, internvl, internvl_chat, llama, llava, minigpt4
from vlmjax.weights.family import Config, Family, at_the_door

# `model_type` of a config.json → family
FAMILIES: dict[str, Family] = {"clip": clip.FAMILY, "llama": llama.FAMILY, "mistral": llama.MISTRAL, "qwen2": llama.QWEN2, "llava": llava.FAMILY,
                                "llava_llama": llava.FAMILY, "llava_mistral": llava.FAMILY, "internvl": internvl.FAMILY, "internvl_chat": internvl_chat.FAMILY,
                                "blip-2": blip2.FAMILY, minigpt4.KIND: blip2.FAMILY}


def recognise(config: Mapping[str, Any], where: str) -> tuple[Family, dict[str, Any]]:
    """→ (family, {component: its sizes}) of the checkpoint that has this config.json."""
    kind = config.get("model_type")
    if kind not in FAMILIES:
        architecture = (config.get("architectures") or ["no architecture"])[0]
        raise UserError(f"{where}: model_type {kind!r} ({architecture}) is not known; known: {', '.join(sorted(FAMILIES))}{did_you_mean(str(kind), FAMILIES)}")
    with at_the_door(where):
        return FAMILIES[kind], FAMILIES[kind].sizes(Config(config, where, FAMILIES[kind].defaults))
