import functools
import re

import jax
import numpy as np

from tests.evaluate import tiny
from vlmjax import decode
from vlmjax.bundle import stack
from vlmjax.data.example import Turn

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
