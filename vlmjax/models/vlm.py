"""A vision-language model: encoder → projector → decoder, as pure functions of parameters and a batch (data/batch.py)."""
import dataclasses
from collections.abc import Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp

from vlmjax.models.attention import BySegments, take, visible
from vlmjax.models.decoder import Decoder
from vlmjax.models.lora import dropout
from vlmjax.models.parts import name_axes
from vlmjax.models.patch_embed import normalise
from vlmjax.models.projector import Projector
from vlmjax.models.qformer import QFormer
from vlmjax.models.vit import ViT

Params = Mapping[str, Any]
Batch = Mapping[str, jax.Array]


def merge(text: jax.Array, image: jax.Array, image_slots: jax.Array) -> jax.Array:
    """Puts image tokens at their places: a gather inside each row, which needs no collective when rows are sharded.

    text: f[B, T, D]. image: f[B, M·P, D]. image_slots: i32[B, T], which image token of its row, -1: keep the text.

        text         t0  t1  t2  t3  t4          image  i0  i1
        image_slots  -1   0   1  -1  -1
        merged       t0  i0  i1  t3  t4
    """
    placed = jnp.take_along_axis(image, jnp.maximum(image_slots, 0)[:, :, None], axis=1)  # [B, T, D]
    return name_axes(jnp.where(image_slots[:, :, None] >= 0, placed, text), "batch", "length", "embed")


def pick(hidden: jax.Array, positions: jax.Array) -> jax.Array:
    """f[B, T, D] at the places i32[B, S] of each row → f[B, S, D]: logits are computed for these and for nothing else."""
    return name_axes(take(hidden, positions), "batch", "length", "embed")


def features(encoder: ViT, params: Params, pixels: jax.Array, key: jax.Array | None = None, tokens: int | None = None) -> jax.Array:
    """u8[N, h, w, 3] → f[N, P, E]: what the encoder makes of images, without class tokens. params: its own. tokens: how many are read, from the last on, None: P; with a class token P + 1."""
    config = encoder.config
    tokens = config.tokens_per_image if tokens is None else tokens
    chex.assert_shape(pixels, (None, config.size, config.size, 3))
    images = normalise(pixels, config.mean, config.std)
    patches = encoder.apply({"params": params}, images, rngs=dropout(key, "encoder"))[:, -tokens:]
    chex.assert_shape(patches, (pixels.shape[0], tokens, config.width))
    return patches


@dataclasses.dataclass(frozen=True)
class VLM:
    """Methods take params {"encoder", "projector", "decoder"}: the parameters of each component that is not None.

    Without an encoder it reads `features` that one has made before. Without a projector, too, it is a language model: no image branch is in the program.
    """

    encoder: ViT | None
    projector: Projector | QFormer | None
    decoder: Decoder

    def image_tokens(self, params: Params, pixels: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """u8[B, M, h, w, 3] → f[B, M·P, D]: image after image, P tokens of each as its projector makes them. Images that are not real cost the same."""
        B, M = pixels.shape[:2]
        read = self.projector.config.reads(self.encoder.config)
        return self.project(params, features(self.encoder, params["encoder"], pixels.reshape(B * M, *pixels.shape[2:]), key, read), M)

    def project(self, params: Params, patches: jax.Array, images: int) -> jax.Array:
        """f[B·M, P, E] → f[B, M·P, D], M: images of a row."""
        N, P, E = patches.shape
        D, tokens_per_image = self.projector.out_width, self.projector.config.tokens(P)
        chex.assert_shape(patches, (N, P, self.projector.in_width))
        tokens = self.projector.apply({"params": params["projector"]}, patches)
        chex.assert_shape(tokens, (N, tokens_per_image, D))
        return name_axes(tokens.reshape(N // images, images * tokens_per_image, D), "batch", "length", "embed")

    def inputs(self, params: Params, batch: Batch, key: jax.Array | None = None) -> jax.Array:
        """What the language model reads, f[B, T, D]: text embeddings with image tokens in their places. The batch may hold instead of pixels what was made of
        them before: `features` f[B, M, P, E] of the encoder, or `image_tokens` f[B, M·P, D] of the projector."""
        chex.assert_equal_shape([batch["tokens"], batch["image_slots"]])
        text = self.decoder.apply({"params": params["decoder"]}, batch["tokens"], method="embed")
        if "image_tokens" in batch:
            return merge(text, batch["image_tokens"], batch["image_slots"])
        if "features" in batch:
            B, M, P, E = batch["features"].shape
            return merge(text, self.project(params, batch["features"].reshape(B * M, P, E), M), batch["image_slots"])
        if self.encoder is None or batch["pixels"].shape[1] == 0:
            return text
        return merge(text, self.image_tokens(params, batch["pixels"], key), batch["image_slots"])

    def hidden(self, params: Params, batch: Batch, capture: bool = False, key: jax.Array | None = None, asked: jax.Array | None = None) -> Any:
        """f[B, T, D] after the decoder's final norm, every place of the row, or f[B, A, D] of the places that are asked for, i32[B, A]; with `capture` also the decoder's intermediates (see
        stack.hidden_states). key: of dropout, None: none is dropped."""
        segments, positions = batch["segments"], batch["positions"]
        window = self.decoder.config.window
        mask = segments if isinstance(self.decoder.attend, BySegments) else visible(segments, positions, batch["parents"], segments, positions, batch["prefix"], window)
        inputs = {"params": params["decoder"]}, self.inputs(params, batch, key), positions, mask
        if capture:
            (hidden, _), captured = self.decoder.apply(*inputs, mutable=["intermediates"])
            return hidden, captured["intermediates"]
        return self.decoder.apply(*inputs, asked=asked, rngs=dropout(key, "decoder"))[0]

    def supervised(self, params: Params, batch: Batch, key: jax.Array | None = None) -> jax.Array:
        """f[B, S, D] after the decoder's final norm at the batch's `target_positions`."""
        places = batch["target_positions"]
        return self.hidden(params, batch, key=key, asked=places) if self.decoder.asked_only else pick(self.hidden(params, batch, key=key), places)

    def head(self, params: Params) -> dict[str, jax.Array]:
        """What `decoder.read` reads logits with."""
        return self.decoder.apply({"params": params["decoder"]}, method="head")

    def logits(self, params: Params, batch: Batch, key: jax.Array | None = None) -> jax.Array:
        """f32[B, S, V] at the batch's `target_positions`."""
        logits = self.decoder.apply({"params": params["decoder"]}, self.supervised(params, batch, key), method="logits")
        chex.assert_shape(logits, (*batch["target_positions"].shape, self.decoder.config.vocabulary))
        return logits
