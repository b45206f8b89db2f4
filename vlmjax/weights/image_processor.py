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
TILING, MOST_PATCHES = "GotOcr2", 12  # the processor of InternVL, and its default


def layout(directory: epath.Path, encoder: ViTConfig, given: Mapping[str, Any] | None = None) -> ImageLayout:
    """What the files say, or `given` where they do not count; without either, CLIP's treatment at the encoder's size."""
    node, where = (given, str(directory)) if given else _node(directory)
    return _layout(node, encoder, where) if node else ImageLayout(encoder.size, encoder.patch, "crop", encoder.mean, encoder.std)


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
    return ImageLayout(encoder.size, encoder.patch, rule, mean, std, tiles=_tiles(node, where))


def _tiles(node: Mapping[str, Any], where: str) -> int:
    """Into how many an image is cut at most. transformers' InternVLProcessor cuts whatever `crop_to_patches` says: it asks for it with each image."""
    if TILING not in str(node.get("image_processor_type")):
        return 1
    if (least := node.get("min_patches", 1)) != 1:
        raise UserError(f"{where}: min_patches is {least!r}, and vlmjax computes only 1")
    most = node.get("max_patches", MOST_PATCHES)
    if type(most) is not int or most < 1:
        raise UserError(f"{where}: max_patches is {most!r}, not a number of tiles")
    return most


def config(layout: ImageLayout, tiles: bool = False) -> dict[str, Any]:
    """The inverse: what transformers' processors read. tiles: for the one that cuts images into tiles; any other gives a model the whole image as one."""
    square = {"height": layout.size, "width": layout.size}
    rules = {"crop": {"size": {"shortest_edge": layout.size}, "do_center_crop": True, "crop_size": square},
             "pad": {"size": {"shortest_edge": layout.size}, "do_pad": True, "do_center_crop": True, "crop_size": square},
             "squash": {"size": square, "do_center_crop": False}}
    kind = f"{TILING}ImageProcessor" if tiles else "LlavaImageProcessor" if layout.resize == "pad" else "CLIPImageProcessor"
    cuts = {"crop_to_patches": layout.tiles > 1, "min_patches": 1, "max_patches": layout.tiles} if tiles else {}
    return {"image_processor_type": kind, **cuts, "do_convert_rgb": True, "do_resize": True, "resample": BICUBIC,
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
