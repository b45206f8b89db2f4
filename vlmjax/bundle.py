"""A model ready to use: modules, parameters, tokenizer, template and image layout. What `vlmjax.load` returns.

On disk a bundle is a directory: `config.json` (sizes, template, layout), `tokenizer.json` and the parameters by layer
(weights/store.py). `config.json` is written last, so a directory that has one is complete.
"""
import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh, NamedSharding
from PIL import Image

import vlmjax
from vlmjax import config as configs
from vlmjax import decode, files, param_rules, sharding, stacks
from vlmjax.data import images as pictures
from vlmjax.data.conversation import Template
from vlmjax.data.example import IMAGE_MARK, Turn
from vlmjax.data.processor import Processor
from vlmjax.data.tokenizer import Tokenizer
from vlmjax.errors import UserError
from vlmjax.layout import ImageLayout
from vlmjax.models.clip import CLIP, ContrastHead, TextConfig, TextTower
from vlmjax.models.decoder import Decoder, DecoderConfig
from vlmjax.models.projector import Projector, ProjectorConfig
from vlmjax.models.vit import ViT, ViTConfig
from vlmjax.models.vlm import VLM
from vlmjax.train import build
from vlmjax.weights import store

CONFIG, TOKENIZER = "config.json", "tokenizer.json"
FORMAT = "vlmjax-model"
SIZES = {"encoder": ViTConfig, "projector": ProjectorConfig, "decoder": DecoderConfig, "text_tower": TextConfig}
Picture = Image.Image | bytes | np.ndarray
_BUCKET = 32  # raw prompts are padded to multiples of it, so that prompts of nearly one length share a compiled program


@dataclasses.dataclass(frozen=True)
class Bundle:
    """`parts`: {component: module}, cut as `params` lie in memory; `vlm` and `clip`: what they make, None where a part is missing.

    `params` are f32 or as `load` was asked. `mesh`: where they lie, None for one device. float32 is computed in float32
    everywhere (TPUs and GPUs otherwise multiply it in less).
    """

    parts: Mapping[str, nn.Module]
    vlm: VLM | None
    clip: CLIP | None
    params: Any
    tokenizer: Tokenizer
    template: Template
    layout: ImageLayout | None
    mesh: Mesh | None = None
    _programs: dict = dataclasses.field(default_factory=dict, repr=False, compare=False)

    @functools.cached_property
    def processor(self) -> Processor:
        """Lays out conversations as in training."""
        return Processor(self.tokenizer, self.template, self.layout)

    # --- the Python door: raw prompts ---------------------------------------------------------------------------------------

    def generate(self, prompts: Sequence[str], images: Sequence[Sequence[Picture]] | None = None, max_new_tokens: int = 32) -> list[str]:
        """Greedy continuations of raw prompts. No template is applied, special tokens inside are recognised, and `<image>` is the
        place of an image: `images` holds one list (of PIL images, encoded files or u8[h, w, 3]) per prompt."""
        batch = self._raw(prompts, images)[0]
        return [self.text(answer) for answer in self.answer(batch, max_new_tokens)[:, 0]]

    def logits(self, prompt: str, images: Sequence[Picture] | None = None) -> np.ndarray:
        """f32[T, V] after each token of a raw prompt (see `generate`); T counts the tokens of its images."""
        batch, (length,) = self._raw([prompt], None if images is None else [images])
        places = np.arange(batch["tokens"].shape[1], dtype=np.int32)[None]
        batch |= {"target_positions": places, "targets": np.zeros_like(places), "weights": np.ones(places.shape, np.float32)}
        return self._run("logits", self.vlm.logits, batch)[0, :length]

    def image_features(self, images: Sequence[Picture]) -> np.ndarray:
        """f32[N, J] of a dual tower, not normalised."""
        if self.clip is None:
            raise UserError("model: it has no text tower and contrast head, so its images have no features to compare")
        return self.pixel_features(np.stack([self.pixels(image) for image in images]))

    def text_features(self, texts: Sequence[str]) -> np.ndarray:
        """f32[N, J] of a dual tower, not normalised."""
        if self.clip is None:
            raise UserError("model: it has no text tower and contrast head, so texts have no features to compare")
        rows = [self.processor.caption_row(text, self.clip.text_tower.config.length) for text in texts]
        batch = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
        return self._run("text", lambda params, batch: self.clip.text_features(params, **batch), batch)

    # --- rows of the batch contract -------------------------------------------------------------------------------------------

    def answer(self, batch: Mapping[str, np.ndarray], max_new_tokens: int) -> np.ndarray:
        """i32[B, Q, max_new_tokens]: greedy answers to the questions of each row (see decode.py)."""
        if self.vlm is None:
            raise UserError("model: it has no language model, so it cannot answer")
        if max_new_tokens < 1:
            raise UserError(f"max_new_tokens: {max_new_tokens} is less than 1")
        return self._run(("answer", max_new_tokens), decode.make_generate(self.vlm, max_new_tokens, self.tokenizer.eos), batch)

    def pixel_features(self, pixels: np.ndarray) -> np.ndarray:
        """u8[B, size, size, 3] → f32[B, J] of the dual tower, not normalised."""
        return self._run("image", lambda params, batch: self.clip.image_features(params, batch["pixels"]), {"pixels": pixels[:, None]})

    def text(self, answer: np.ndarray) -> str:
        """i32[max_new_tokens] → what it says."""
        return self.tokenizer.decode(decode.until(answer.tolist(), self.tokenizer.eos))

    def pixels(self, image: Picture) -> np.ndarray:
        """u8[size, size, 3], by the model's layout."""
        if self.layout is None:
            raise UserError("model: it has no image encoder, so it cannot be given an image")
        if isinstance(image, bytes):
            return pictures.prepare(image, self.layout)
        if isinstance(image, np.ndarray) and (image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3):
            raise UserError(f"image: an array is u8[height, width, 3], not {image.dtype}{list(image.shape)}")
        return pictures.fit(Image.fromarray(image) if isinstance(image, np.ndarray) else image.convert("RGB"), self.layout)

    def _raw(self, prompts: Sequence[str], images: Sequence[Sequence[Picture]] | None) -> tuple[dict[str, np.ndarray], list[int]]:
        """One row per prompt, with its end as the only question → (batch, lengths)."""
        if self.vlm is None:
            raise UserError("model: it has no language model, so it cannot read a prompt")
        images = [()] * len(prompts) if images is None else images
        if len(images) != len(prompts):
            raise UserError(f"images: {len(images)} lists for {len(prompts)} prompts; give one list per prompt")
        raw = Processor(self.tokenizer, Template("raw", bos=self.template.bos), self.layout)
        groups, lengths = [], []
        for i, (prompt, own) in enumerate(zip(prompts, images)):
            if prompt.count(IMAGE_MARK) != len(own):
                raise UserError(f"prompt {i}: marks {prompt.count(IMAGE_MARK)} places with {IMAGE_MARK}, but has {len(own)} images")
            turns = (Turn("user", prompt),)
            encoded = raw.encode(turns, True)
            lengths.append(len(encoded.head.tokens) + len(encoded.tail))
            if not lengths[-1]:
                raise UserError(f"prompt {i}: is empty")
            groups.append((tuple(map(str, range(len(own)))), [turns]))
        T, M = -(-max(lengths) // _BUCKET) * _BUCKET, max(map(len, images))
        batch = stack([raw.prompt_row([group], T, M, 1)[0] for group in groups])
        return batch | self.pack_pixels([[self.pixels(image) for image in own] for own in images], M), lengths

    def pack_pixels(self, images: Sequence[Sequence[np.ndarray]], most: int) -> dict[str, np.ndarray]:
        """u8[size, size, 3] images of each row → `pixels` u8[B, most, size, size, 3] and `image_mask`."""
        size = self.layout.size if self.layout else 0
        pixels, mask = np.zeros((len(images), most, size, size, 3), np.uint8), np.zeros((len(images), most), bool)
        for row, own in enumerate(images):
            mask[row, : len(own)] = True
            for i, image in enumerate(own):
                pixels[row, i] = image
        return {"pixels": pixels, "image_mask": mask}

    def _run(self, name: Any, fn: Callable, batch: Mapping[str, np.ndarray]) -> np.ndarray:
        """fn(params, batch), compiled once per name and shape. Rows are padded with empty ones to split evenly over the mesh."""
        rows = len(next(iter(batch.values())))
        with contextlib.ExitStack() as stack_:
            stack_.enter_context(jax.default_matmul_precision("highest"))
            place = {}
            if self.mesh is not None:
                parts = sharding.row_shards(self.mesh)
                batch = {key: np.pad(value, [(0, -rows % parts)] + [(0, 0)] * (value.ndim - 1)) for key, value in batch.items()}
                batch = jax.device_put(batch, sharding.batch(self.mesh))
                stack_.enter_context(build.context(self.mesh))
                place = {"out_shardings": sharding.replicated(self.mesh)}
            if name not in self._programs:
                self._programs[name] = jax.jit(fn, **place)
            return np.asarray(self._programs[name](self.params, batch))[:rows]

    # --- on disk ----------------------------------------------------------------------------------------------------------------

    def by_layer(self) -> dict[str, np.ndarray]:
        """{path by layer: parameter}, on the host."""
        whole = (lambda leaf: jax.device_put(leaf, sharding.replicated(self.mesh))) if self.mesh else (lambda leaf: leaf)
        return {path: np.asarray(whole(leaf)) for path, leaf in stacks.expand(param_rules.flatten(self.params)).items()}

    def save(self, directory: epath.PathLike) -> None:
        """Writes the bundle to `directory`; the first process of a pod writes."""
        directory, arrays = epath.Path(directory), self.by_layer()
        _check(arrays, _abstract(self.parts), str(directory))
        if jax.process_index() == 0:
            sizes = {name: dataclasses.asdict(self.parts[name].config) for name in SIZES if name in self.parts}
            about = {"format": FORMAT, "vlmjax": vlmjax.__version__, "components": sizes, "template": dataclasses.asdict(self.template),
                     "layout": dataclasses.asdict(self.layout) if self.layout else None}
            store.save(directory, arrays, {"format": FORMAT})
            self.tokenizer.save(directory / TOKENIZER)
            files.write_json(directory / CONFIG, about)


def make(parts: Mapping[str, nn.Module], by_layer: Mapping[str, Any], tokenizer: Tokenizer, template: Template, layout: ImageLayout | None,
         mesh: Mesh | None = None, where: str = "model") -> Bundle:
    """A bundle of the components that `by_layer` ({path by layer: parameter}, f32) has parameters of.

    `parts`: modules with all their layers, as `train.build.modules` makes them; they are cut anew for use. Without `mesh` the
    parameters stay where they are.
    """
    present = {path.split("/")[0] for path in by_layer}
    parts = {name: _cut(module) for name, module in parts.items() if name in present}
    abstract = _abstract(parts)
    _check(by_layer, abstract, where)
    if mesh is None:
        lying = (leaf.sharding for leaf in by_layer.values() if isinstance(leaf, jax.Array))
        mesh = next((place.mesh for place in lying if isinstance(place, NamedSharding)), None)
    params = stacks.collect(by_layer, abstract)
    params = jax.device_put(params, sharding.parameters(abstract, mesh)) if mesh else jax.tree.map(jnp.asarray, params)
    vlm = clip = None
    if "decoder" in parts:
        sees = "encoder" in parts and "projector" in parts
        vlm = VLM(_feature_blocks(parts["encoder"]) if sees else None, parts["projector"] if sees else None, parts["decoder"])
    if {"encoder", "text_tower", "contrast_head"} <= set(parts):
        clip = CLIP(parts["encoder"], parts["text_tower"], parts["contrast_head"])
    return Bundle(parts, vlm, clip, param_rules.unflatten(params), tokenizer, template, layout, mesh)


def load(path: epath.PathLike, dtype: str = "float32", mesh: Mesh | None = None) -> Bundle:
    """A model from a run's directory or from the `model/` inside it.

    dtype: of the computation and of the matrices; gains, biases and everything else with one axis stay float32. mesh: where the
    parameters go, None for one device.
    """
    if dtype not in build.DTYPES:
        raise UserError(f"dtype: {dtype!r} is not one of {', '.join(build.DTYPES)}")
    path = epath.Path(path).expanduser()
    directory = next((d for d in (path / "model", path) if (files.read_json(d / CONFIG) or {}).get("format") == FORMAT), None)
    if directory is None:
        raise UserError(f"{path}: holds no model: neither it nor model/ in it has a {CONFIG} of the format {FORMAT}")
    about, where = files.read_json(directory / CONFIG), str(directory / CONFIG)
    missing = {"components", "template", "layout"} - set(about)
    if missing:
        raise UserError(f"{where}: lacks {', '.join(sorted(missing))}")
    template = configs.build(Template, about["template"], f"{where}: template")
    layout = configs.build(ImageLayout, about["layout"], f"{where}: layout") if about["layout"] else None
    tokenizer = Tokenizer.load(directory / TOKENIZER)
    parts = _modules(about["components"], jnp.dtype(dtype), where)
    bundle = make(parts, store.load(directory), tokenizer, template, layout, mesh, str(directory))
    if dtype == "float32":
        return bundle
    matrices = {p: leaf.astype(dtype) if leaf.ndim - stacks.is_stacked(p) > 1 else leaf for p, leaf in param_rules.flatten(bundle.params).items()}
    return dataclasses.replace(bundle, params=param_rules.unflatten(matrices), _programs={})


def stack(rows: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Rows → a batch."""
    return {key: np.stack([row[key] for row in rows]) for key in rows[0]}


def _modules(components: Mapping[str, Mapping[str, Any]], dtype: Any, where: str) -> dict[str, nn.Module]:
    """{component: its sizes as plain values} → {component: module}, whole. A contrast head comes with its text tower."""
    if unknown := set(components) - set(SIZES):
        raise UserError(f"{where}: components: {', '.join(sorted(unknown))} is not one of {', '.join(SIZES)}")
    sizes = {name: configs.build(SIZES[name], node, f"{where}: components.{name}") for name, node in components.items()}
    out: dict[str, nn.Module] = {}
    if "encoder" in sizes:
        out["encoder"] = ViT(sizes["encoder"], (sizes["encoder"].layers,), dtype)
    if "decoder" in sizes:
        out["decoder"] = Decoder(sizes["decoder"], (sizes["decoder"].layers,), dtype)
    if "projector" in sizes:
        if not {"encoder", "decoder"} <= set(sizes):
            raise UserError(f"{where}: components: a projector needs an encoder and a decoder")
        out["projector"] = Projector(sizes["projector"], sizes["encoder"].width, sizes["decoder"].width, dtype)
    if "text_tower" in sizes:
        if "encoder" not in sizes:
            raise UserError(f"{where}: components: a text tower needs an encoder")
        out["text_tower"] = TextTower(sizes["text_tower"], (sizes["text_tower"].layers,), dtype)
        out["contrast_head"] = ContrastHead(sizes["encoder"].width, sizes["text_tower"].width, sizes["text_tower"].joint, sizes["encoder"].eps)
    return out


def _cut(module: nn.Module) -> nn.Module:
    """The module with its stack cut for inference: on a CPU one leaf per layer, since a scan over stacked weights copies them for
    every token (about 2x slower); elsewhere below and above the layer that a language model reads."""
    if not hasattr(module, "segments"):
        return module
    layers = module.config.layers
    used = getattr(module.config, "feature_blocks", layers)
    on_cpu = jax.default_backend() == "cpu"
    return module.clone(segments=(1,) * layers if on_cpu else tuple(n for n in (used, layers - used) if n))


def _feature_blocks(encoder: ViT) -> ViT:
    """The encoder with the segments up to its feature layer: what lies above is not computed."""
    bounds = stacks.segment_bounds(encoder.segments)
    return encoder.clone(segments=tuple(stop - start for start, stop in bounds if stop <= encoder.config.feature_blocks))


def _abstract(parts: Mapping[str, nn.Module]) -> dict[str, jax.ShapeDtypeStruct]:
    """{path in memory: abstract leaf}. The modules are traced with each stack in one segment, which takes a fraction of the time."""
    whole = {name: module.clone(segments=(module.config.layers,)) if hasattr(module, "segments") else module for name, module in parts.items()}
    out = {}
    for path, leaf in build.abstract_params(whole).items():
        if not stacks.is_stacked(path):
            out[path] = leaf
            continue
        module = parts[path.split("/")[0]]
        for start, stop in stacks.segment_bounds(module.segments):
            own = path.replace(f"layers/{stacks.segment_name(0, module.config.layers)}/", f"layers/{stacks.segment_name(start, stop)}/")
            out[own] = jax.ShapeDtypeStruct((stop - start, *leaf.shape[1:]), leaf.dtype)
    return out


def _check(by_layer: Mapping[str, Any], abstract: Mapping[str, jax.ShapeDtypeStruct], where: str) -> None:
    """The parameters are exactly those of the modules, in structure, shape and dtype."""
    want = stacks.expand(abstract)
    for what, paths in (("lacks", set(want) - set(by_layer)), ("holds, but its config does not know,", set(by_layer) - set(want))):
        if paths:
            raise UserError(f"{where}: {what} {len(paths)} parameters, the first is {min(paths)}")
    for path, leaf in want.items():
        have = by_layer[path]
        if (have.shape, have.dtype) != (leaf.shape, leaf.dtype):
            raise UserError(f"{where}: {path} is {have.dtype}{list(have.shape)}, its config asks for {leaf.dtype}{list(leaf.shape)}")
