"""Answers with a KV cache, greedy or sampled: one prefill of the whole row, then one token per question and step.

Several questions about one image share a row (data/batch.py): each is a segment of its own whose parent holds the image, so the
image is read once and the questions do not see each other. Their answers grow together. The cache of a row with Q questions:

    slots       0 … T-1                 T … T+Q-1               T+Q … T+2Q-1
    hold        the row of prompts      first answer tokens     second answer tokens     …
    segments    as in the batch         of question 1 … Q       of question 1 … Q

Each new key carries its question's segment and its own position, so the batch contract's rule of visibility is all that
keeps the questions apart: the order of slots means nothing.
"""
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vlmjax.errors import UserError
from vlmjax.models import attention, decoder
from vlmjax.models.vlm import VLM, pick
from vlmjax.stacks import segment_bounds, segment_name

TOKENS = "tokens"  # the scope of the loop over an answer's tokens, in profiles and for plan/answers.py
AFTER_END = 0  # the id that fills an answer's places behind its end token


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How a token is drawn: logits over `temperature`; of these the `top_k` largest (0: all); of these the fewest whose probabilities together reach `top_p`."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self):
        if not self.temperature > 0:
            raise UserError(f"temperature: {self.temperature} is not above 0 (greedy answers take no sampling)")
        if not 1e-6 <= self.temperature <= 1e6:
            raise UserError(f"temperature: {self.temperature} is not between 1e-6 and 1e6")
        if self.top_k < 0:
            raise UserError(f"top_k: {self.top_k} is less than 0 (0: all tokens)")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p: {self.top_p} is not a probability, above 0 and at most 1")


    def drawn(self, seed: int) -> "Drawn":
        return Drawn(np.uint32(seed), np.float32(self.temperature), np.int32(self.top_k), np.float32(self.top_p))


class Drawn(NamedTuple):
    """How the tokens of a batch are drawn, as scalars that a program reads: it is compiled once for all temperatures. Fields: seed u32, and those of `Sampling`."""

    seed: jax.Array
    temperature: jax.Array
    top_k: jax.Array
    top_p: jax.Array


def narrow(logits: jax.Array, drawn: Drawn) -> jax.Array:
    """f32[…, V] → the logits that are drawn from, −inf for tokens that cannot be; in transformers' order: temperature, top_k, top_p."""
    logits = (logits - jnp.max(logits, axis=-1, keepdims=True)) / drawn.temperature

    def cut(logits):
        falling = -jnp.sort(-logits, axis=-1)
        place = jnp.clip(drawn.top_k - 1, 0, logits.shape[-1] - 1)
        least = jnp.where(drawn.top_k > 0, jnp.take(falling, place, axis=-1)[..., None], -jnp.inf)
        logits, falling = (jnp.where(x < least, -jnp.inf, x) for x in (logits, falling))
        likely = jax.nn.softmax(falling, axis=-1)
        kept = (jnp.cumsum(likely, axis=-1) - likely < drawn.top_p) | (drawn.top_p >= 1)  # what stands in front of a token does not reach it yet
        return jnp.where(logits < jnp.min(jnp.where(kept, falling, jnp.inf), axis=-1, keepdims=True), -jnp.inf, logits)

    return jax.lax.cond((drawn.top_k > 0) | (drawn.top_p < 1), cut, lambda logits: logits, logits)  # sorting a vocabulary takes its time


def choose(logits: jax.Array, drawn: Drawn | None, step: jax.Array | int) -> jax.Array:
    """f32[B, Q, V] → i32[B, Q]: the likeliest tokens, or drawn ones, by (seed, place of the question in the batch, step) and nothing else."""
    if drawn is None:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    logits = narrow(logits, drawn)
    B, Q = logits.shape[:2]
    keys = jax.vmap(lambda place: jax.random.fold_in(jax.random.fold_in(jax.random.key(drawn.seed), place), step))(jnp.arange(B * Q))
    return jax.vmap(jax.random.categorical)(keys, logits.reshape(B * Q, -1)).reshape(B, Q).astype(jnp.int32)


class Growing(NamedTuple):
    """Answers as far as they are. step: tokens of each; answers: i32[B, Q, max_new_tokens]; ended: bool[B, Q], nothing more comes; k_segments, k_positions: i32[B, S]; cache: of all S slots."""

    step: jax.Array
    answers: jax.Array
    ended: jax.Array
    k_segments: jax.Array
    k_positions: jax.Array
    cache: Any


class Asked(NamedTuple):
    """What does not change while answers grow. own: segments, parents and positions of the questions' last tokens, i32[B, Q]; k_prefix: bool[B, S]."""

    own: dict[str, jax.Array]
    k_prefix: jax.Array


def make_generate(vlm: VLM, max_new_tokens: int, stops: Sequence[int]) -> Callable[..., jax.Array]:
    """→ fn(params, batch[, drawn]) -> i32[B, Q, max_new_tokens], pure and jittable: answers up to and with one of `stops`, then `AFTER_END`; greedy, or as `drawn` says.

    The batch follows the contract, with `target_positions` i32[B, Q] at the last prompt token of each question and `weights`
    f32[B, Q] 0 where a row has fewer questions. A row's answers depend on nothing in the other rows; drawn ones also on its place.
    """
    begin, extend = make_steps(vlm, max_new_tokens, stops)

    def generate(params, batch, drawn=None):
        growing, asked = begin(params, batch, drawn)
        if max_new_tokens == 1:
            return growing.answers  # no loop is compiled that would never turn
        return extend(params, growing, asked, max_new_tokens, drawn).answers

    return generate


def make_steps(vlm: VLM, max_new_tokens: int, stops: Sequence[int]) -> tuple[Callable[..., tuple[Growing, Asked]], Callable[..., Growing]]:
    """The two parts of `make_generate`, for who wants to see answers grow: begin(params, batch[, drawn]) reads the prompts and writes the first tokens;
    extend(params, growing, asked, until[, drawn]) goes on until answers have so many tokens or all have ended."""
    window = vlm.decoder.config.window

    def logits(params, hidden):
        return vlm.decoder.apply({"params": params["decoder"]}, hidden, method="logits")

    def ends(token):
        return jnp.isin(token, jnp.asarray(stops, jnp.int32)) if stops else jnp.zeros(token.shape, bool)

    # Layers with leaves of their own are carried without the axis of a stack. With it XLA writes each new key twice, for the product and for what is
    # carried, and copies all slots to do so.
    single = {segment_name(a, b) for a, b in segment_bounds(vlm.decoder.segments) if b - a == 1}
    alone = lambda cache: {name: {key: leaf[0] if name in single else leaf for key, leaf in own.items()} for name, own in cache.items()}
    stacked = lambda cache: {name: {key: leaf[None] if name in single else leaf for key, leaf in own.items()} for name, own in cache.items()}

    def begin(params, batch, drawn=None):
        B, T = batch["tokens"].shape
        Q = batch["target_positions"].shape[1]
        S = T + Q * (max_new_tokens - 1)  # the last token of an answer is never read
        asked = batch["weights"] > 0
        own = {key: jnp.take_along_axis(batch[key], batch["target_positions"], axis=1) for key in ("segments", "parents", "positions")}
        own["segments"] = jnp.where(asked, own["segments"], 0)
        room = ((0, 0), (0, S - T))
        k_segments, k_positions, k_prefix = (jnp.pad(batch[key], room) for key in ("segments", "positions", "prefix"))

        x = vlm.inputs(params, batch)
        cache = decoder.init_cache(vlm.decoder.config, vlm.decoder.segments, B, T, x.dtype)
        mask = attention.visible(*(batch[key] for key in ("segments", "positions", "parents", "segments", "positions", "prefix")), window)  # [B, T, T]
        # Of the last layer only what follows the prompts is read, beside its keys and values.
        places, last_alone = batch["target_positions"], vlm.decoder.segments[-1] == 1
        hidden, cache = vlm.decoder.apply({"params": params["decoder"]}, x, batch["positions"], mask, cache=cache, start=jnp.int32(0), asked=places if last_alone else None)
        hidden = hidden if last_alone else pick(hidden, places)
        # Grown only now: places for the answers would cost the prefill time.
        cache = alone(decoder.grow_cache(cache, S - T))
        first = choose(logits(params, hidden), drawn, 0)
        first = jnp.where(asked, first, AFTER_END)
        answers = jnp.full((B, Q, max_new_tokens), AFTER_END, jnp.int32).at[:, :, 0].set(first)
        return Growing(jnp.int32(1), answers, ~asked | ends(first), k_segments, k_positions, cache), Asked(own, k_prefix)

    def extend(params, growing, asked, until, drawn=None):
        own, Q = asked.own, growing.answers.shape[1]
        T = asked.k_prefix.shape[1] - Q * (max_new_tokens - 1)

        def unfinished(growing):
            return (growing.step < until) & ~jnp.all(growing.ended)

        def token(growing):
            """Reads token step-1 of every answer and writes token `step`."""
            step, answers, ended, k_segments, k_positions, cache = growing
            token = jax.lax.dynamic_index_in_dim(answers, step - 1, axis=2, keepdims=False)  # [B, Q]
            positions, start = own["positions"] + step, T + Q * (step - 1)
            k_segments = jax.lax.dynamic_update_slice(k_segments, own["segments"], (0, start))
            k_positions = jax.lax.dynamic_update_slice(k_positions, positions, (0, start))
            mask = attention.visible(own["segments"], positions, own["parents"], k_segments, k_positions, asked.k_prefix, window)  # [B, Q, S]
            x = vlm.decoder.apply({"params": params["decoder"]}, token, method="embed")
            hidden, cache = vlm.decoder.apply({"params": params["decoder"]}, x, positions, mask, cache=stacked(cache), start=start)
            token = jnp.where(ended, AFTER_END, choose(logits(params, hidden), drawn, step))
            answers = jax.lax.dynamic_update_slice(answers, token[:, :, None], (0, 0, step))
            return Growing(step + 1, answers, ended | ends(token), k_segments, k_positions, alone(cache))

        with jax.named_scope(TOKENS):
            return jax.lax.while_loop(unfinished, token, growing)

    return begin, extend


def until(ids: list[int], stops: Sequence[int]) -> list[int]:
    """The answer's own ids: what comes before the first of `stops`, all where there is none."""
    return ids[: next((n for n, id_ in enumerate(ids) if id_ in stops), len(ids))]
