import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.evaluate import tiny
from vlmjax import decode, param_rules
from vlmjax.bundle import stack
from vlmjax.data.example import Turn
from vlmjax.errors import UserError
from vlmjax.train import build

QUESTIONS = ("is it red?", "what color is it?", "and what shape is it?")
T, Q, NEW = 24, 4, 5
NEVER = -1  # an end token that no model emits


def row(questions, image=True):
    turns = [(Turn("user", "<image>" * image + text),) for text in questions]
    groups = [(("image",), turns)] * bool(turns) if image else [((), [turn]) for turn in turns]
    return tiny.model().processor.prompt_row(groups, T, 1, Q)[0]


@functools.cache
def batch():
    """Eight rows with zero to three questions, with images of their own or none."""
    rows = [row(QUESTIONS[: n % 4], image=n < 6) for n in range(8)]
    rng = np.random.default_rng(0)
    images = [[rng.integers(0, 256, (16, 16, 3), np.uint8)] if n < 6 else [] for n in range(8)]
    return stack(rows) | tiny.model().pack_pixels(images, 1)


@functools.cache
def generate(*stops):
    return jax.jit(decode.make_generate(tiny.model().vlm, NEW, stops))


@functools.cache
def answers():
    return np.asarray(generate()(tiny.model().params, batch()))


def test_the_cache_gives_what_a_full_forward_gives():
    """Each question alone, in a plain row without a cache that is computed anew for every token."""
    model = tiny.model()
    forward = jax.jit(model.vlm.logits)
    for b, question in ((3, 0), (3, 2), (2, 1), (7, 1)):
        one = {key: value[None] for key, value in row(QUESTIONS[question : question + 1], image=b < 6).items()}
        one |= {key: batch()[key][b : b + 1] for key in ("pixels", "image_mask")}
        for step in range(NEW):
            last = one["target_positions"][0, 0]
            token = np.asarray(forward(model.params, one))[0, 0].argmax()
            assert token == answers()[b, question, step], (b, question, step)
            for key in ("segments", "parents"):
                one[key][0, last + 1] = one[key][0, last]
            one["positions"][0, last + 1] = one["positions"][0, last] + 1
            one["tokens"][0, last + 1] = token
            one["target_positions"][0, 0] += 1
    assert len({tuple(answer) for answer in answers()[3, :3].tolist()}) > 1  # the questions do matter


def test_the_layers_of_a_loop_carry_their_cache():
    """What a loop over layers collects is written whole, for every token; into what it carries a token writes its own slots. As accelerators cut it, the decoder is one loop."""
    vlm = tiny.model().vlm
    vlm = dataclasses.replace(vlm, decoder=vlm.decoder.clone(segments=(vlm.decoder.config.layers,)))
    params = build.abstract_params({name: part for name in ("encoder", "projector", "decoder") if (part := getattr(vlm, name))})
    program = jax.make_jaxpr(decode.make_generate(vlm, NEW, (NEVER,)))(param_rules.unflatten(params), batch())
    held = T + Q * (NEW - 1)

    def collected(jaxpr):
        for eqn in jaxpr.eqns:
            if eqn.primitive.name == "scan":
                inside = eqn.params["jaxpr"].jaxpr.outvars  # what is collected has a dimension more outside, what is carried has not
                yield from (var.aval.shape for var, one in zip(eqn.outvars, inside, strict=True) if var.aval.shape != one.aval.shape)
            for inner in jax.tree.leaves(list(eqn.params.values())):
                if hasattr(inner, "eqns"):
                    yield from collected(getattr(inner, "jaxpr", inner))

    carried = [var.aval.shape for eqn in program.jaxpr.eqns if eqn.primitive.name == "while" for var in eqn.outvars if held in var.aval.shape and len(var.aval.shape) == 5]
    assert len(carried) == 2 and not [shape for shape in collected(program.jaxpr) if T in shape or held in shape]


def test_a_row_does_not_depend_on_the_others():
    for b in (3, 6):
        alone = generate()(tiny.model().params, {key: value[b : b + 1] for key, value in batch().items()})
        np.testing.assert_array_equal(alone[0], answers()[b])


def test_answers_stop_at_the_end_token_and_padding_asks_nothing():
    eos = int(answers()[3, 0, 1])
    ended = np.asarray(generate(NEVER, eos)(tiny.model().params, batch()))
    for before, after, asked in zip(answers().reshape(-1, NEW), ended.reshape(-1, NEW), batch()["weights"].reshape(-1)):
        if not asked:
            assert not before.any() and not after.any()
            continue
        cut = before.tolist().index(eos) + 1 if eos in before else NEW
        np.testing.assert_array_equal(after, np.where(np.arange(NEW) < cut, before, decode.AFTER_END))
    assert decode.until([5, 7, eos, 0], (NEVER, eos)) == [5, 7] and decode.until([5, 7], (NEVER,)) == [5, 7]


def test_no_token_copies_the_cache():
    """What the loop carries is written in place and read as it lies."""
    model, B, S = tiny.model(), len(batch()["tokens"]), T + Q * (NEW - 1)
    config = model.vlm.decoder.config
    text = generate().lower(model.params, batch()).compile().as_text()
    body = text.split("ENTRY")[0]  # the loop stands before it
    K, H = config.kv_heads, config.head_dim
    shapes = {re.escape(f"f32[{','.join(map(str, dims))}]") for axes in ((B, K, H, S), (B, K, S, H), (B, S, K, H)) for dims in (axes, (1, *axes))}
    moved = re.findall(rf"%\S+ = (?:{'|'.join(shapes)})\S* (?:copy|transpose)\(.*", body)
    assert re.search("|".join(shapes), body) and not moved, moved[:3]


LOGITS = np.log(np.array([0.05, 0.4, 0.15, 0.3, 0.1]))


def drawn(sampling, count=4000, seed=0):
    """Shares of the five tokens among so many draws: each question of a batch is a place of its own."""
    logits = jnp.broadcast_to(jnp.asarray(LOGITS, jnp.float32), (count // 2, 2, 5))
    tokens = np.asarray(jax.jit(lambda drawn: decode.choose(logits, drawn, 3))(sampling.drawn(seed)))
    assert tokens.shape == (count // 2, 2) and tokens.dtype == np.int32
    return np.bincount(tokens.ravel(), minlength=5) / count


@pytest.mark.parametrize("sampling, expected", [
    (decode.Sampling(), [0.05, 0.4, 0.15, 0.3, 0.1]),
    (decode.Sampling(temperature=0.5), np.array([0.05, 0.4, 0.15, 0.3, 0.1]) ** 2 / 0.285),
    (decode.Sampling(top_k=2), [0, 4 / 7, 0, 3 / 7, 0]),
    (decode.Sampling(top_p=0.75), [0, 0.4 / 0.85, 0.15 / 0.85, 0.3 / 0.85, 0]),  # 0.4 + 0.3 do not reach it, the third does
    (decode.Sampling(top_p=0.7 - 1e-4), [0, 4 / 7, 0, 3 / 7, 0]),
    (decode.Sampling(top_k=3, top_p=0.5), [0, 4 / 7, 0, 3 / 7, 0]),  # of the three 0.4 / 0.85 does not reach it
    (decode.Sampling(top_p=1e-6), [0, 1, 0, 0, 0]), (decode.Sampling(temperature=1e-4), [0, 1, 0, 0, 0]), (decode.Sampling(top_k=50), [0.05, 0.4, 0.15, 0.3, 0.1])])  # fmt: skip
def test_tokens_are_drawn_as_often_as_their_probability_says(sampling, expected):
    np.testing.assert_allclose(drawn(sampling), expected, atol=4 * np.sqrt(0.25 / 4000))


def test_what_is_drawn_hangs_on_seed_place_and_step_alone():
    model, sampling = tiny.model(), decode.Sampling(temperature=3.0)
    draw = lambda batch, seed: np.asarray(jax.jit(decode.make_generate(model.vlm, NEW, ()))(model.params, batch, sampling.drawn(seed)))
    one = draw(batch(), 1)
    np.testing.assert_array_equal(one, draw(batch(), 1))
    assert (one != draw(batch(), 2)).any() and (one != answers()).any()
    changed = {key: value.copy() for key, value in batch().items()}
    for key in changed:
        changed[key][4:] = changed[key][:4]  # other rows behind the first four
    np.testing.assert_array_equal(one[:4], draw(changed, 1)[:4])
    asked = batch()["weights"] > 0
    assert len({tuple(answer) for answer in one[asked].tolist()}) > asked.sum() // 2 and not one[~asked].any()


def test_nearly_nothing_left_to_draw_from_is_greedy():
    model = tiny.model()
    found = jax.jit(decode.make_generate(model.vlm, NEW, ()))(model.params, batch(), decode.Sampling(top_k=1).drawn(5))
    np.testing.assert_array_equal(found, answers())


@pytest.mark.parametrize("wrong, message", [({"temperature": 0.0}, "temperature: 0.0 is not above 0"), ({"temperature": float("nan")}, "temperature: nan"), ({"top_k": -1}, "top_k: -1"), ({"top_p": 0.0}, "top_p: 0.0"), ({"top_p": 1.5}, "top_p: 1.5")])
def test_a_mistake_in_sampling_is_said(wrong, message):
    with pytest.raises(UserError, match=message):
        decode.Sampling(**wrong)
