"""A model ready to use: modules, parameters, tokenizer, template and image layout. What `vlmjax.load` (pretrained.py) returns."""
import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from vlmjax import decode, inference, kernels, param_rules, sharding, stacks
from vlmjax.data import images as pictures
from vlmjax.data.conversation import RAW, Template
from vlmjax.data.example import IMAGE_MARK, Turn
from vlmjax.data.images import Picture
from vlmjax.data.processor import Processor
from vlmjax.data.tokenizer import Tokenizer
from vlmjax.errors import UserError
from vlmjax.layout import ImageLayout
from vlmjax.models import lora
from vlmjax.models.clip import CLIP
from vlmjax.models.patch_embed import normalise
from vlmjax.models.stack import hidden_states
from vlmjax.models.vit import ViT
from vlmjax.models.vlm import VLM
from vlmjax.train import build

ADAPTERS = ("on", "off", "merged")
_BUCKET = 32  # raw prompts are padded to multiples of it, so that prompts of nearly one length share a compiled program


class Piece(NamedTuple):
    """What an answer grew by: text, empty while a token ends inside a character; tokens: so many it has; ended: by the model's own end."""

    text: str
    tokens: int
    ended: bool


@dataclasses.dataclass(frozen=True)
class Bundle:
    """`parts`: {component: module}, cut as `params` lie in memory; `vlm` and `clip`: what they make, None where a part is missing.

    `params` are f32 or as `load` was asked. `mesh`: where they lie, None for one device. `family`: of the checkpoint they
    came from, and `carried`: what it holds that no component computes with; `statistics`: {component: numbers} that `load` checked. float32 is computed in float32
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
    family: str = ""
    carried: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict, repr=False)
    statistics: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)
    _programs: dict = dataclasses.field(default_factory=dict, repr=False, compare=False)

    @functools.cached_property
    def processor(self) -> Processor:
        """Lays out conversations as in training."""
        return Processor(self.tokenizer, self.template, self.layout)

    # --- the Python door: raw prompts ---------------------------------------------------------------------------------------

    def generate(self, prompts: Sequence[str], images: Sequence[Sequence[Picture]] | None = None, max_new_tokens: int = 32, sampling: decode.Sampling | None = None, seed: int = 0) -> list[str]:
        """Continuations of raw prompts, greedy or drawn by `sampling`. No template is applied, special tokens inside are recognised, and `<image>` is the
        place of an image: `images` holds one list (of PIL images, encoded files, u8[h, w, 3], or what `tiles` made of one) per prompt."""
        batch = self.raw_prompts(prompts, images)[0]
        return [self.text(answer) for answer in self.answer(batch, max_new_tokens, sampling, seed)[:, 0]]

    def reply(self, turns: Sequence[Turn], images: Sequence[Picture] = (), max_new_tokens: int = 256, sampling: decode.Sampling | None = None, seed: int = 0) -> str:
        """The answer to a conversation that ends with a turn of the user, in the model's template; `<image>` in the turns is the place of one of `images`."""
        return self.said(self.answer(self.conversation(tuple(turns), images), max_new_tokens, sampling, seed)[0, 0])

    def stream(self, turns: Sequence[Turn], images: Sequence[Picture] = (), max_new_tokens: int = 256, sampling: decode.Sampling | None = None, seed: int = 0) -> Iterator[str]:
        """`reply` while it is made: pieces that joined are the answer, one for each token but those that end inside a character."""
        for piece in self.speak(self.conversation(tuple(turns), images), max_new_tokens, sampling, seed):
            if piece.text:
                yield piece.text

    def speak(self, batch: Mapping[str, np.ndarray], max_new_tokens: int, sampling: decode.Sampling | None = None, seed: int = 0) -> Iterator["Piece"]:
        """The answer to the one question of a batch, while it is made."""
        said, end = "", self.template.end if self.template.stops else ""
        for count, ids in enumerate(self.grow(batch, max_new_tokens, sampling, seed), 1):
            text = self.said(ids[0, 0])
            over = text != self.text(ids[0, 0])
            ended = over or bool(np.isin(ids[0, 0, :count], self.tokenizer.stops).any())
            begun = text.endswith(("\ufffd", *(end[:n] for n in range(1, len(end)))))  # a character, or the template's end
            whole = ended or count == max_new_tokens or not begun
            yield Piece(text[len(said) :] if whole else "", count, ended)
            said = text if whole else said
            if over:
                return

    def conversation(self, turns: tuple[Turn, ...], images: Sequence[Picture]) -> dict[str, np.ndarray]:
        """The batch of one row that asks for the answer to a conversation, in the model's template."""
        shown = [self.tiles(image) for image in images]
        tiles = tuple(map(len, shown))
        encoded = self.processor.encode(turns, True, tiles)
        length, keys = len(encoded.head.tokens) + len(encoded.tail), tuple(map(str, range(len(images))))
        T = _BUCKET * 2 ** max(0, (-(-length // _BUCKET) - 1).bit_length())  # doubling: a conversation that grows is compiled for a few lengths
        return stack([self.processor.prompt_row([(keys, [turns])], T, sum(tiles), 1, [tiles])[0]]) | self.pack_pixels([[tile for image in shown for tile in image]], sum(tiles))

    def logits(self, prompt: str, images: Sequence[Picture] | None = None) -> np.ndarray:
        """f32[T, V] after each token of a raw prompt (see `generate`); T counts the tokens of its images."""
        batch, (length,) = self.raw_prompts([prompt], None if images is None else [images])
        places = np.arange(batch["tokens"].shape[1], dtype=np.int32)[None]
        batch |= {"target_positions": places, "targets": np.zeros_like(places), "weights": np.ones(places.shape, np.float32)}
        return self.run("logits", self.vlm.logits, batch)[0, :length]

    def image_features(self, images: Sequence[Picture]) -> np.ndarray:
        """f32[N, J] of a dual tower, not normalised."""
        if self.clip is None:
            raise UserError("model: it has no text tower and contrast head, so its images have no features to compare")
        return self.pixel_features(np.stack([self.pixels(image) for image in images]))

    def hidden(self, images: Sequence[Picture], layer: int = -1) -> np.ndarray:
        """f32[N, tokens, E] of the vision tower, class token first. layer: as in transformers' `hidden_states`: 0 after embedding and
        pre-norm, k after block k, -1 the last block before any final norm."""
        pixels = np.stack([self.pixels(image) for image in images])
        encoder: ViT = self.parts["encoder"]
        if not -encoder.config.layers - 1 <= layer <= encoder.config.layers:
            raise UserError(f"layer: {layer} is not between {-encoder.config.layers - 1} and {encoder.config.layers}")

        def states(params, batch):
            config = encoder.config
            images = normalise(batch["pixels"], config.mean, config.std)
            _, captured = encoder.apply({"params": params["encoder"]}, images, mutable=["intermediates"])
            return hidden_states(captured["intermediates"]["layers"])[layer]

        return self.run(("hidden", layer), states, {"pixels": pixels})

    def text_features(self, texts: Sequence[str]) -> np.ndarray:
        """f32[N, J] of a dual tower, not normalised."""
        if self.clip is None:
            raise UserError("model: it has no text tower and contrast head, so texts have no features to compare")
        rows = [self.processor.caption_row(text, self.clip.text_tower.config.length) for text in texts]
        batch = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
        return self.run("text", lambda params, batch: self.clip.text_features(params, **batch), batch)

    # --- rows of the batch contract -------------------------------------------------------------------------------------------

    def answer(self, batch: Mapping[str, np.ndarray], max_new_tokens: int, sampling: decode.Sampling | None = None, seed: int = 0) -> np.ndarray:
        """i32[B, Q, max_new_tokens]: answers to the questions of each row (see decode.py), greedy or drawn by `sampling` and seed."""
        drawn = self._check_asked(max_new_tokens, sampling, seed)
        return self.run(("answer", max_new_tokens, sampling is None), decode.make_generate(self.vlm, max_new_tokens, self.tokenizer.stops), batch, *drawn)

    def grow(self, batch: Mapping[str, np.ndarray], max_new_tokens: int, sampling: decode.Sampling | None = None, seed: int = 0) -> Iterator[np.ndarray]:
        """`answer` after each token, until all have ended: i32[B, Q, max_new_tokens] with decode.AFTER_END where nothing stands yet."""
        drawn = self._check_asked(max_new_tokens, sampling, seed)
        begin, extend = decode.make_steps(self.vlm, max_new_tokens, self.tokenizer.stops)
        rows = len(batch["tokens"])
        batch, drawn = self._placed(batch, drawn)
        growing, asked = self._call(("begin", max_new_tokens, sampling is None), begin, self.params, batch, *drawn)
        for tokens in range(1, max_new_tokens + 1):
            if tokens > 1:
                growing = self._call(("extend", max_new_tokens, sampling is None), extend, self.params, growing, asked, np.int32(tokens), *drawn, donate=1)
            yield np.asarray(growing.answers)[:rows]
            if np.asarray(growing.ended)[:rows].all():
                return

    def _check_asked(self, max_new_tokens: int, sampling: decode.Sampling | None, seed: int) -> tuple[decode.Drawn, ...]:
        """→ how tokens are drawn, where they are."""
        if self.vlm is None:
            raise UserError("model: it has no language model, so it cannot answer")
        if max_new_tokens < 1:
            raise UserError(f"max_new_tokens: {max_new_tokens} is less than 1")
        if not 0 <= seed < 2**32:
            raise UserError(f"seed: {seed} is not between 0 and 2**32 - 1")
        return () if sampling is None else (sampling.drawn(seed),)

    def pixel_features(self, pixels: np.ndarray) -> np.ndarray:
        """u8[B, size, size, 3] → f32[B, J] of the dual tower, not normalised."""
        return self.run("image", lambda params, batch: self.clip.image_features(params, batch["pixels"]), {"pixels": pixels[:, None]})

    def text(self, answer: np.ndarray) -> str:
        """i32[max_new_tokens] → what it says."""
        return self.tokenizer.decode(decode.until(answer.tolist(), self.tokenizer.stops))

    def said(self, answer: np.ndarray) -> str:
        """`text` of an answer in the model's template, which may end at a text (`Template.stops`)."""
        return self.text(answer).partition(self.template.end)[0] if self.template.stops else self.text(answer)

    def pixels(self, image: Picture) -> np.ndarray:
        """u8[size, size, 3], by the model's layout; of an image that is cut into tiles, the whole of it, its thumbnail."""
        return pictures.fit(pictures.rgb(image), self._treatment())

    def tiles(self, image: Picture) -> np.ndarray:
        """u8[n, size, size, 3], what the language model is shown of an image, by the model's layout: n = 1, or tiles and a thumbnail; the same of what it returned."""
        return pictures.shown(image, self._treatment())

    def _treatment(self) -> ImageLayout:
        if self.layout is None:
            raise UserError("model: it has no image encoder, so it cannot be given an image")
        return self.layout

    def raw_prompts(self, prompts: Sequence[str], images: Sequence[Sequence[Picture]] | None) -> tuple[dict[str, np.ndarray], list[int]]:
        """One row per prompt, with its end as the only question → (batch, lengths)."""
        if self.vlm is None:
            raise UserError("model: it has no language model, so it cannot read a prompt")
        images = [()] * len(prompts) if images is None else images
        if len(images) != len(prompts):
            raise UserError(f"images: {len(images)} lists for {len(prompts)} prompts; give one list per prompt")
        raw = Processor(self.tokenizer, RAW, self.layout)
        shown = [[self.tiles(image) for image in own] for own in images]
        groups, lengths, tiles = [], [], [tuple(map(len, own)) for own in shown]
        for i, (prompt, own) in enumerate(zip(prompts, images)):
            if prompt.count(IMAGE_MARK) != len(own):
                raise UserError(f"prompt {i}: marks {prompt.count(IMAGE_MARK)} places with {IMAGE_MARK}, but has {len(own)} images")
            turns = (Turn("user", prompt),)
            encoded = raw.encode(turns, True, tiles[i])
            lengths.append(len(encoded.head.tokens) + len(encoded.tail))
            if not lengths[-1]:
                raise UserError(f"prompt {i}: is empty")
            groups.append((tuple(map(str, range(len(own)))), [turns]))
        T, M = -(-max(lengths) // _BUCKET) * _BUCKET, max(map(sum, tiles))
        batch = stack([raw.prompt_row([group], T, M, 1, [own])[0] for group, own in zip(groups, tiles)])
        return batch | self.pack_pixels([[tile for image in own for tile in image] for own in shown], M), lengths

    def pack_pixels(self, images: Sequence[Sequence[np.ndarray]], most: int) -> dict[str, np.ndarray]:
        """u8[size, size, 3] images, or tiles of them, of each row → `pixels` u8[B, most, size, size, 3] and `image_mask`."""
        size = self.layout.size if self.layout else 0
        pixels, mask = np.zeros((len(images), most, size, size, 3), np.uint8), np.zeros((len(images), most), bool)
        for row, own in enumerate(images):
            mask[row, : len(own)] = True
            for i, image in enumerate(own):
                pixels[row, i] = image
        return {"pixels": pixels, "image_mask": mask}

    def run(self, name: Any, fn: Callable, batch: Mapping[str, np.ndarray], *whole: np.ndarray) -> np.ndarray:
        """fn(params, batch, *whole), compiled once per name and shape. Rows are padded with empty ones to split evenly over the mesh; `whole` is not split."""
        rows = len(next(iter(batch.values())))
        batch, whole = self._placed(batch, whole)
        return np.asarray(self._call(name, fn, self.params, batch, *whole, gather=True))[:rows]

    def _placed(self, batch: Mapping[str, np.ndarray], whole: tuple[np.ndarray, ...]) -> tuple[Mapping[str, Any], tuple[Any, ...]]:
        if self.mesh is None:
            return batch, whole
        rows, parts = len(next(iter(batch.values()))), sharding.row_shards(self.mesh)
        batch = {key: np.pad(value, [(0, -rows % parts)] + [(0, 0)] * (value.ndim - 1)) for key, value in batch.items()}
        return jax.device_put(batch, sharding.batch(self.mesh)), jax.device_put(whole, sharding.replicated(self.mesh))

    def _call(self, name: Any, fn: Callable, *args: Any, gather: bool = False, donate: int | None = None) -> Any:
        """gather: what comes out lies whole on every device. donate: the argument whose memory is used again."""
        with contextlib.ExitStack() as stack_:
            stack_.enter_context(jax.default_matmul_precision("highest"))
            place, platform = {}, self.mesh.devices.flat[0].platform if self.mesh is not None else jax.default_backend()
            if self.mesh is not None:
                stack_.enter_context(build.context(self.mesh))
                place = {"out_shardings": sharding.replicated(self.mesh)} if gather else {}
            if name not in self._programs:
                self._programs[name] = jax.jit(fn, **place, donate_argnums=() if donate is None else donate, compiler_options=kernels.compiler_options(platform, self.parts.values()))
            return self._programs[name](*args)

    def with_adapters(self, how: str) -> "Bundle":
        """how: `on` (this bundle), `off` (without them: the model they were put into, bit for bit) or `merged` (added to the kernels beside them)."""
        if how not in ADAPTERS:
            raise UserError(f"adapters: {how!r} is not one of {', '.join(ADAPTERS)}")
        configs = {name: module.config.lora for name, module in self.parts.items() if getattr(getattr(module, "config", None), "lora", None)}
        if how == "on" or not configs:
            return self
        arrays = lora.merge(self.by_layer(), configs) if how == "merged" else lora.drop(self.by_layer())
        parts = {name: module.clone(config=dataclasses.replace(module.config, lora=None)) if name in configs else module for name, module in self.parts.items()}
        dtype = max((leaf.dtype for leaf in jax.tree.leaves(self.params) if leaf.ndim > 1), key=lambda t: t.itemsize)
        made = make(parts, arrays, self.tokenizer, self.template, self.layout, self.mesh, dtype=dtype)
        return dataclasses.replace(made, family=self.family, carried=self.carried, statistics=self.statistics)

    def joined(self) -> "Bundle":
        """With the rows of added tokens in the table and head."""
        config = self.parts["decoder"].config if "decoder" in self.parts else None
        if config is None or not config.added:
            return self
        arrays, (first, count) = self.by_layer(), config.added
        for name, axis in (("embed", 0), ("head", 1)):
            if (rows := arrays.pop(f"decoder/added_{name}", None)) is not None:
                before, _, after = np.split(arrays[f"decoder/{name}"], [first, first + count], axis)
                arrays[f"decoder/{name}"] = np.concatenate([before, rows, after], axis)
        parts = {**self.parts, "decoder": self.parts["decoder"].clone(config=dataclasses.replace(config, vocab=config.vocabulary, added=None))}
        made = make(parts, arrays, self.tokenizer, self.template, self.layout, self.mesh)
        return dataclasses.replace(made, family=self.family, carried=self.carried, statistics=self.statistics)

    def by_layer(self) -> dict[str, np.ndarray]:
        """{path by layer: parameter}, on the host."""
        whole = (lambda leaf: jax.device_put(leaf, sharding.replicated(self.mesh))) if self.mesh else (lambda leaf: leaf)
        return {path: np.asarray(whole(leaf)) for path, leaf in stacks.expand(param_rules.flatten(self.params)).items()}


def make(parts: Mapping[str, nn.Module], by_layer: Mapping[str, Any], tokenizer: Tokenizer, template: Template, layout: ImageLayout | None,
         mesh: Mesh | None = None, where: str = "model", dtype: Any = jnp.float32) -> Bundle:
    """A bundle of the components that `by_layer` ({path by layer: parameter}, f32) has parameters of.

    `parts`: modules with all their layers, as `train.build.modules` makes them; they are cut anew for use. Without `mesh` the
    parameters stay where they are. dtype: of leaves with more than one axis; gains and biases stay float32.
    """
    present = {path.split("/")[0] for path in by_layer}
    parts = {name: inference.cut(module, jax.default_backend()) for name, module in parts.items() if name in present}
    abstract = inference.typed(parts, dtype)
    _check(by_layer, abstract, where)
    if mesh is None:
        lying = (leaf.sharding for leaf in by_layer.values() if isinstance(leaf, jax.Array))
        mesh = next((place.mesh for place in lying if isinstance(place, NamedSharding)), None)
    params = stacks.place(by_layer, abstract, sharding.parameters(abstract, mesh) if mesh else None)
    clip = CLIP(parts["encoder"], parts["text_tower"], parts["contrast_head"]) if {"encoder", "text_tower", "contrast_head"} <= set(parts) else None
    return Bundle(parts, inference.vlm_of(parts), clip, param_rules.unflatten(params), tokenizer, template, layout, mesh)


def stack(rows: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Rows → a batch."""
    return {key: np.stack([row[key] for row in rows]) for key in rows[0]}


def _check(by_layer: Mapping[str, Any], abstract: Mapping[str, jax.ShapeDtypeStruct], where: str) -> None:
    """The parameters are exactly those of the modules, in structure and shape, and floating."""
    want = stacks.expand(abstract)
    for what, paths in (("lacks", set(want) - set(by_layer)), ("holds, but its config does not know,", set(by_layer) - set(want))):
        if paths:
            raise UserError(f"{where}: {what} {len(paths)} parameters, the first is {min(paths)}")
    for path, leaf in want.items():
        have = by_layer[path]
        if have.shape != leaf.shape or not jnp.issubdtype(have.dtype, jnp.floating):
            raise UserError(f"{where}: {path} is {have.dtype}{list(have.shape)}, its config asks for {leaf.dtype}{list(leaf.shape)}")
