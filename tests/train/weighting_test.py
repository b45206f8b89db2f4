"""What a supervised token counts does not depend on where it lies: packed or alone, accumulated or not, on one device or eight."""
import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.data.tiny import PROCESSOR, captions, qa, questions, texts
from tests.train import tiny
from vlmjax import optim, param_rules, sharding
from vlmjax.data import packing
from vlmjax.errors import UserError
from vlmjax.train import build, loop, step

INSTRUCT = (("encoder/.*", False), (".*", True))
B, T, M, S = 8, 40, 2, 16
# Answers of 2 to 9 tokens; up to three questions share an image.
EXAMPLES = [*questions().examples, *captions().examples, *texts().examples, qa("two", ("i1", "i2"), "is it red?", "a red square a blue square no no")]
TABLE = PROCESSOR.measure(EXAMPLES)
PACKED = [[list(piece) for piece in row] for row in packing.plan(TABLE, np.arange(len(EXAMPLES)), T, M, S, 3, 0, 0)]
ALONE = [[[i]] for i in range(len(EXAMPLES))]
# What a token of an example with n of them counts, said again.
COUNTS = {"token": lambda n: 1.0, "example": lambda n: n**-1.0, "sqrt": lambda n: n**-0.5}


@functools.cache
def stage(mesh):
    return tiny.stage(mesh=mesh, trainable=INSTRUCT)


def eight():
    return sharding.make_mesh(sharding.MeshConfig(replica=2, fsdp=2, tensor=2))


@functools.cache
def state(mesh):
    return loop.start_state(stage(mesh), tiny.truth(stage(mesh)))


@functools.cache
def program(mesh, accumulate):
    return jax.jit(step.gradients(stage(mesh).loss, accumulate))


def batches(rows, weighting):
    """Batches of B rows, the last filled up with empty ones."""
    out, keys = PROCESSOR.rows([[[EXAMPLES[i] for i in piece] for piece in row] for row in rows + [[]] * (-len(rows) % B)], T, M, S, weighting)
    size = stage(tiny.one_device()).shape.size
    out |= {"pixels": np.zeros((len(keys), M, size, size, 3), np.uint8), "image_mask": np.zeros((len(keys), M), bool)}
    for b, row in enumerate(keys):
        for m, key in enumerate(row):
            out["pixels"][b, m] = np.random.default_rng(zlib.crc32(key.encode())).integers(0, 256, (size, size, 3))
            out["image_mask"][b, m] = True
    return [{key: values[first : first + B] for key, values in out.items()} for first in range(0, len(keys), B)]


def loss_and_gradients(rows, weighting, mesh=None, accumulate=1):
    """The loss, and {path: its gradient}, over all rows."""
    mesh = mesh or tiny.one_device()
    train, sums = state(mesh), None
    for batch in batches(rows, weighting):
        with build.context(mesh):
            (total, count, _), grads = program(mesh, accumulate)(train.learned.trainable, train.frozen, jax.device_put(batch, sharding.batch(mesh)))
        part = [float(total), float(count), {path: np.asarray(leaf, np.float64) for path, leaf in param_rules.flatten(grads).items()}]
        sums = part if sums is None else jax.tree.map(np.add, sums, part)
    return sums[0] / sums[1], {path: grad / sums[1] for path, grad in sums[2].items()}


@jax.jit
def losses_of_tokens(trainable, frozen, batch):
    logits = stage(tiny.one_device()).model.logits(optim.merge(trainable, frozen), batch, None)
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), batch["targets"][..., None], axis=-1)[..., 0]


def losses_of_examples(rows):
    """{example: the losses of its tokens}."""
    train = state(tiny.one_device())
    by_row = np.concatenate([losses_of_tokens(train.learned.trainable, train.frozen, batch) for batch in batches(rows, "token")])
    out = {}
    for row, values in zip(rows, by_row):
        members = [i for piece in row for i in piece]
        ends = np.cumsum(TABLE.supervised[members])
        out.update(zip(members, np.split(values[: ends[-1]], ends[:-1])))
    return out


def same(found, wanted):
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-5)
    for path, want in wanted[1].items():
        assert np.linalg.norm(found[1][path] - want) <= 1e-5 * np.linalg.norm(want), path


def test_rows_here_share_images_and_hold_several_examples():
    pieces = [piece for row in PACKED for piece in row]
    assert len(PACKED) <= B and max(map(len, pieces)) == 3 and max(map(len, PACKED)) > 1 and len(set(TABLE.supervised.tolist())) > 2


def test_packed_and_alone_an_example_has_the_same_loss():
    packed, alone = losses_of_examples(PACKED), losses_of_examples(ALONE)
    assert sorted(packed) == sorted(alone) == list(range(len(EXAMPLES)))
    for i, want in alone.items():
        np.testing.assert_allclose(packed[i].sum(), want.sum(), rtol=1e-5, err_msg=EXAMPLES[i].id)


@pytest.mark.parametrize("weighting", COUNTS)
def test_packing_accumulation_and_devices_change_nothing(weighting):
    alone = loss_and_gradients(ALONE, weighting)
    losses = losses_of_examples(ALONE).values()
    counts = [COUNTS[weighting](len(tokens)) for tokens in losses]
    np.testing.assert_allclose(alone[0], sum(c * tokens.sum() for c, tokens in zip(counts, losses)) / sum(c * len(tokens) for c, tokens in zip(counts, losses)), rtol=1e-5)
    same(loss_and_gradients(PACKED, weighting), alone)
    same(loss_and_gradients(PACKED, weighting, accumulate=2), alone)
    same(loss_and_gradients(PACKED, weighting, eight()), alone)


def test_weightings_differ():
    losses = [loss_and_gradients(PACKED, weighting)[0] for weighting in COUNTS]
    assert min(abs(a - b) for a in losses for b in losses if a is not b) > 1e-4


def test_a_weighting_that_does_not_exist_or_has_no_meaning_is_refused():
    with pytest.raises(UserError, match="stages.align.weighting: 'examples' is not known; did you mean 'example'"):
        tiny.stage(weighting="examples")
    with pytest.raises(UserError, match="stages.align.weighting: sqrt weighs supervised tokens, and a contrastive stage has none"):
        tiny.stage(objective="contrastive", trainable=((".*", True),), weighting="sqrt")
