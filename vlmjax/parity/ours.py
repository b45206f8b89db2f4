"""Our side of the comparison: everything a bundle computes between an image's bytes and an answer, under the reference's keys."""
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vlmjax import param_rules, stacks
from vlmjax.bundle import Bundle, stack
from vlmjax.data.conversation import RAW
from vlmjax.data.example import Example, Turn
from vlmjax.data.processor import Processor
from vlmjax.models.patch_embed import normalise
from vlmjax.models.stack import hidden_states
from vlmjax.train import build
from vlmjax.weights import FAMILIES

NEW_TOKENS = 12
Arrays = dict[str, np.ndarray]


def run(model: Bundle, cases: Any) -> Arrays:
    """Everything reference.run computes, of the bytes and texts of `cases`, under its keys."""
    images = cases.images()
    if model.vlm is None:
        return dual_tower(model, images, cases.MODEL_IMAGES, cases.TEXTS)
    if model.vlm.encoder is None:
        return language_model(model, [(prompt, ()) for prompt in cases.PROMPTS], cases.ANSWERS[0], cases.TEXTS)
    prompts = [(prompt, [images[name] for name in names]) for prompt, names in cases.IMAGE_PROMPTS]
    return vision_language_model(model, images, cases.MODEL_IMAGES, prompts, cases.ANSWERS[0], cases.TEXTS)


def dual_tower(model: Bundle, images: Mapping[str, bytes], seen: Sequence[str], texts: Sequence[str]) -> Arrays:
    """All of a model with a text tower. images: {name: encoded file}; seen: which of them go through the model."""
    config = model.clip.text_tower.config
    rows = stack([model.processor.caption_row(text, config.length) for text in texts])
    rows = {key: value[:, : rows["segments"].sum(1).max()] for key, value in rows.items()}
    out = _pixels(model, images)
    out |= {f"tokens/{i}": tokens[segments > 0] for i, (tokens, segments) in enumerate(zip(rows["tokens"], rows["segments"]))}
    out |= _numbered("vision_hidden", _vision_states(model, [images[name] for name in seen]))

    def text_states(params, batch):
        _, captured = model.clip.text_tower.apply({"params": params["text_tower"]}, batch["tokens"], batch["segments"], mutable=["intermediates"])
        states = hidden_states(captured["intermediates"]["layers"])
        return jnp.moveaxis(jnp.where(batch["segments"][None, :, :, None] > 0, states, 0), 0, 1)

    out |= _numbered("text_hidden", model.run("text_states", text_states, rows))
    out["image_features"], out["text_features"] = model.image_features([images[name] for name in seen]), model.text_features(texts)
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)
    scale = np.exp(np.asarray(model.params["contrast_head"]["logit_scale"]))
    out["logits"] = scale * unit(out["image_features"]) @ unit(out["text_features"]).T

    n = min(len(seen), len(texts))
    batch = {key: value[:n] for key, value in rows.items()} | {"pixels": np.stack([model.pixels(images[name]) for name in seen[:n]])[:, None]}
    batch |= {"pair": np.arange(n), "image_mask": np.ones((n, 1), bool)}

    contrastive = build.loss_of(model.clip, "contrastive")

    def loss(params):
        total, count, _ = contrastive(params, batch)
        return total / count

    return out | _loss_and_gradient(model, loss, FAMILIES[model.family].components)


def language_model(model: Bundle, prompts: Sequence[tuple[str, Sequence[bytes]]], answer: str, texts: Sequence[str] = (), trainable: Sequence[str] = ("decoder",)) -> Arrays:
    """All of a model that answers. prompts: (raw prompt, its images); answer: of the first prompt, for the loss; texts: only tokenised.
    trainable: components whose gradients are compared."""
    out: Arrays = {}
    for i, (prompt, images) in enumerate(prompts):
        batch, (length,) = model.raw_prompts([prompt], [images])
        out[f"tokens/{i}"] = batch["tokens"][0, :length]
        out[f"logits/{i}"] = model.logits(prompt, images)
        ids = model.answer(batch, NEW_TOKENS)[0, 0].tolist()
        ended = next((n + 1 for n, id_ in enumerate(ids) if id_ in model.tokenizer.stops), NEW_TOKENS)
        out[f"greedy/{i}"] = np.array(ids[:ended], np.int32)
        out[f"text/{i}"] = np.frombuffer(model.generate([prompt], [images], NEW_TOKENS)[0].encode(), np.uint8)
        if i == 0:
            out |= _numbered("hidden", model.run("states", _decoder_states(model), batch)[:, :, :length])
    out |= {f"tokens/{len(prompts) + i}": np.array(model.tokenizer.encode_raw(text), np.int32) for i, text in enumerate(texts)}

    prompt, images = prompts[0]
    example = Example("parity", tuple(map(str, range(len(images)))), (Turn("user", prompt), Turn("assistant", answer)))
    raw, shown = Processor(model.tokenizer, RAW, model.layout), [model.tiles(image) for image in images]
    tiles = tuple(map(len, shown))
    need = raw.lengths(example, tiles)
    row, _ = raw.row([[example]], need.head + need.tail, need.images, need.supervised, tiles=[tiles])
    batch = stack([row]) | model.pack_pixels([[tile for image in shown for tile in image]], need.images)

    next_token = build.loss_of(model.vlm, "next_token")

    def loss(params):
        total, count, _ = next_token(params, batch)
        return total / count

    return out | _loss_and_gradient(model, loss, trainable)


def vision_language_model(model: Bundle, images: Mapping[str, bytes], seen: Sequence[str], prompts: Sequence[tuple[str, Sequence[bytes]]], answer: str,
                          texts: Sequence[str] = ()) -> Arrays:
    """Both: pixels, the encoder's states, what the language model is given of an image, and its answers."""
    def image_tokens(params, batch):
        return model.vlm.image_tokens(params, batch["pixels"][:, None])

    out = _pixels(model, images) | _numbered("vision_hidden", _vision_states(model, [images[name] for name in seen]))
    out["image_tokens"] = model.run("image_tokens", image_tokens, {"pixels": np.concatenate([model.tiles(images[name]) for name in seen])})
    return out | language_model(model, prompts, answer, texts, ("projector", "decoder"))


def _pixels(model: Bundle, images: Mapping[str, bytes]) -> Arrays:
    out: Arrays = {}
    for name, data in images.items():
        tiles = model.tiles(data)
        out[f"pixels/{name}"] = tiles[0] if len(tiles) == 1 else tiles
        out[f"normalised/{name}"] = np.asarray(normalise(out[f"pixels/{name}"], model.layout.mean, model.layout.std))
    return out


def _vision_states(model: Bundle, images: Sequence[bytes]) -> np.ndarray:
    """f32[N, L+1, tokens, E], N: images, each tile of one; of a vision-language model, only the blocks that its language model reads."""
    encoder = model.vlm.encoder if model.vlm else model.clip.encoder

    def states(params, batch):
        _, captured = encoder.apply({"params": params["encoder"]}, normalise(batch["pixels"], encoder.config.mean, encoder.config.std), mutable=["intermediates"])
        return jnp.moveaxis(hidden_states(captured["intermediates"]["layers"]), 0, 1)

    return model.run("vision_states", states, {"pixels": np.concatenate([model.tiles(image) for image in images])})


def _decoder_states(model: Bundle) -> Any:
    """→ fn(params, batch) → f32[B, L+1, T, D]: the input of each block, and at the end the output after the final norm."""
    def states(params, batch):
        last, captured = model.vlm.hidden(params, batch, capture=True)
        return jnp.moveaxis(jnp.concatenate([hidden_states(captured["layers"])[:-1], last[None]]), 0, 1)

    return states


def _numbered(name: str, states: np.ndarray) -> Arrays:
    """[N, L+1, …] → {name/0: [N, …], …}."""
    return {f"{name}/{k}": states[:, k] for k in range(states.shape[1])}


def _loss_and_gradient(model: Bundle, loss: Any, components: Sequence[str]) -> Arrays:
    """The loss and its gradient in the names of the checkpoint; of `components` only, the others are constants."""
    learn = {name: model.params[name] for name in components}
    with jax.default_matmul_precision("highest"):
        value, gradients = jax.jit(jax.value_and_grad(lambda learn: loss({**model.params, **learn})))(learn)
    by_layer = {path: np.asarray(leaf) for path, leaf in stacks.expand(param_rules.flatten(gradients)).items()}
    return {"loss": np.asarray(value), **{f"gradient/{name}": tensor for name, tensor in FAMILIES[model.family].write(by_layer).items()}}
