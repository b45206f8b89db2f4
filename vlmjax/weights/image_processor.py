"""The image treatment a checkpoint was trained with: preprocessor_config.json, or processor_config.json of transformers 5 ↔ ImageLayout."""
from collections.abc import Mapping
from typing import Any

from etils import epath

from vlmjax import files
from vlmjax.errors import UserError
from vlmjax.layout import ImageLayout
from vlmjax.models.vit import ViTConfig

FILES = ("processor_config.json", "preprocessor_config.json")
BICUBIC = 3  # PIL.Image.Resampling.BICUBIC


def layout(directory: epath.Path, encoder: ViTConfig) -> ImageLayout:
    """What the files say; without one, CLIP's treatment at the encoder's size. A processor that cuts images into tiles (InternVL's) is read as one that makes one."""
    node, where = _node(directory)
    return _layout(node, encoder, where) if node else ImageLayout(encoder.size, encoder.patch, "crop", encoder.mean, encoder.std)


def tiles(directory: epath.Path) -> int:
    """How many tiles transformers' processor cuts an image into at most, beside a thumbnail; 1: none. InternVL's does so whatever `crop_to_patches` says."""
    node, _ = _node(directory)
    return node.get("max_patches", 12) if "GotOcr2" in str(node.get("image_processor_type")) else 1


def _node(directory: epath.Path) -> tuple[Mapping[str, Any], str]:
    """The image processor's settings, empty where there are none, and the file that has them."""
    for name in FILES:
        node = files.read_json(directory / name)
        node = node.get("image_processor") if node and name == FILES[0] else node  # nested there since transformers 5
        if node:
            return node, str(directory / name)
    return {}, ""


def _layout(node: Mapping[str, Any], encoder: ViTConfig, where: str) -> ImageLayout:
    size, crop = _sides(node.get("size", encoder.size), where), _sides(node.get("crop_size", encoder.size), where)
    crops = node.get("do_center_crop", True) and node.get("do_resize", True)
    if node.get("do_pad"):
        rule, given = "pad", size
    elif crops and len(size) == 1:
        rule, given = "crop", (*size, *crop)
    else:
        rule, given = "squash", size
    if set(given) != {encoder.size}:
        raise UserError(f"{where}: makes images of {' and '.join(map(str, sorted(set(given))))} pixels, the encoder of config.json reads {encoder.size}")
    for key, want in (("resample", BICUBIC), ("do_rescale", True), ("do_normalize", True), ("rescale_factor", 1 / 255)):
        if (value := node.get(key, want)) != want:
            raise UserError(f"{where}: {key} is {value!r}, and vlmjax computes only {want!r}")
    mean, std = (tuple(float(x) for x in node.get(key, default)) for key, default in (("image_mean", encoder.mean), ("image_std", encoder.std)))
    return ImageLayout(encoder.size, encoder.patch, rule, mean, std)


def config(layout: ImageLayout, tiles: bool = False) -> dict[str, Any]:
    """The inverse: what transformers' processors read. tiles: for one that can cut an image into tiles, and is told to make one at most."""
    square = {"height": layout.size, "width": layout.size}
    rules = {"crop": {"size": {"shortest_edge": layout.size}, "do_center_crop": True, "crop_size": square},
             "pad": {"size": {"shortest_edge": layout.size}, "do_pad": True, "do_center_crop": True, "crop_size": square},
             "squash": {"size": square, "do_center_crop": False}}
    kind = "GotOcr2ImageProcessor" if tiles else "LlavaImageProcessor" if layout.resize == "pad" else "CLIPImageProcessor"
    return {"image_processor_type": kind, **({"crop_to_patches": False, "max_patches": 1} if tiles else {}), "do_convert_rgb": True, "do_resize": True, "resample": BICUBIC,
            "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": list(layout.mean), "image_std": list(layout.std), **rules[layout.resize]}


def _sides(value: Any, where: str) -> tuple[int, ...]:
    """One number (of the shortest side), or height and width."""
    if isinstance(value, int):
        return (value,)
    if isinstance(value, Mapping) and "shortest_edge" in value:
        return (value["shortest_edge"],)
    if isinstance(value, Mapping) and {"height", "width"} <= set(value):
        return value["height"], value["width"]
    raise UserError(f"{where}: a size of {value!r} is not understood")
