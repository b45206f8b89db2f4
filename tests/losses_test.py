import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from vlmjax import losses
from vlmjax.train import flops

ALL = np.ones(8, bool)


def test_next_token_is_the_weighted_sum_of_negative_log_likelihoods():
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(2, 3, 5)).astype("f"), rng.integers(0, 5, (2, 3))
    weights = np.array([[1, 0, 2], [1, 1, 0]], "f")
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    want = -sum(weights[b, s] * np.log(p[b, s, targets[b, s]]) for b in range(2) for s in range(3))
    total, count, _ = losses.next_token(jnp.asarray(logits), jnp.asarray(targets), jnp.asarray(weights))
    np.testing.assert_allclose([total, count], [want, 5.0], rtol=1e-6)


def read(kernels, hidden):
    """A head of two kernels, as one with added tokens is."""
    return jnp.concatenate([hidden @ kernels["head"], hidden @ kernels["added"]], axis=-1)


def case(B, S, V, seed=0):
    """→ (kernels, hidden f[B, S, 6], targets, weights with zeros among them)."""
    rng = np.random.default_rng(seed)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    weights = rng.random((B, S)) * (rng.random((B, S)) < 0.7)
    return {"head": normal(6, V - 2), "added": normal(6, 2)}, normal(B, S, 6), jnp.asarray(rng.integers(0, V, (B, S))), jnp.asarray(weights, jnp.float32)


def whole(kernels, hidden, targets, weights):
    return losses.next_token(read(kernels, hidden), targets, weights)


@hypothesis.settings(max_examples=10, deadline=None)
@hypothesis.given(B=st.sampled_from([4, 8]), S=st.integers(1, 13), V=st.integers(3, 9), chunks=st.integers(1, 13), groups=st.sampled_from([1, 2, 4]), seed=st.integers(0, 99))
def test_in_chunks_it_is_the_loss_of_all_logits(B, S, V, chunks, groups, seed):
    """Sums and gradients, whatever divides what."""
    args = case(B, S, V, seed)
    chunked = lambda *args: losses.next_token_in_chunks(read, *args, min(S, chunks), losses.Split(groups))
    np.testing.assert_allclose(chunked(*args), whole(*args), rtol=1e-5, atol=1e-5)
    of = lambda loss: jax.grad(lambda kernels, hidden: 3 * loss(kernels, hidden, *args[2:])[0], argnums=(0, 1))(*args[:2])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), of(chunked), of(whole))


@pytest.mark.parametrize("learns, products", [(("head", "added", "hidden"), 3 * 9), (("hidden",), 2 * 9), (("added", "hidden"), 2 * 9 + 2), (("head",), 2 * 9 - 2), ((), 9)], ids=str)
def test_no_logit_is_computed_twice_and_nothing_frozen_has_a_gradient(learns, products):
    """In products of one column of the vocabulary: forward, back to hidden, back to a kernel."""
    kernels, hidden, targets, weights = case(2, 12, 9)
    learned = {name: value for name, value in {**kernels, "hidden": hidden}.items() if name in learns}

    def loss(learned):
        own = {**kernels, "hidden": hidden, **learned}
        return losses.next_token_in_chunks(read, {name: own[name] for name in kernels}, own["hidden"], targets, weights, 4)[0]

    assert flops.count(jax.grad(loss) if learned else loss, learned) == products * 2 * 2 * 12 * 6
    assert jax.tree.structure(jax.grad(loss)(learned)) == jax.tree.structure(learned)


def test_logits_of_all_places_are_never_held():
    """By what the compiled program needs beside what it reads and gives back: of 32 chunks less than a quarter of all logits."""
    B, S, V, D = 2, 512, 50_000, 8
    shapes = {"head": jax.ShapeDtypeStruct((D, V - 2), jnp.float32), "added": jax.ShapeDtypeStruct((D, 2), jnp.float32)}, jax.ShapeDtypeStruct((B, S, D), jnp.float32)
    rest = jax.ShapeDtypeStruct((B, S), jnp.int32), jax.ShapeDtypeStruct((B, S), jnp.float32)
    room = lambda function: jax.jit(jax.grad(lambda *args: function(*args)[0], argnums=(0, 1))).lower(*shapes, *rest).compile().memory_analysis().temp_size_in_bytes
    assert room(functools.partial(losses.next_token_in_chunks, read, chunks=32)) < B * S * V < B * S * V * 4 < room(whole)


def test_chunks_are_made_where_they_take_less_room():
    """Each sums the gradients of the head, which have a size of their own; on a mesh a device has its rows and its part of the vocabulary."""
    places = losses.LOGITS // 4 // 1000 + 1
    assert losses.chunks(1, places - 1, 1000, 0) == 1 and losses.chunks(1, places, 1000, 0) == 2 and losses.chunks(1, places, 1000, 1000) == 1
    assert losses.chunks(8, places, 1000, 1000) == 9 and losses.chunks(8, places, 1000, 1000, losses.Split(4)) == 3
    assert losses.chunks(16, places, 1000, 1000, losses.Split(4, vocabulary=2)) == 3 and losses.chunks(8, places, 1000, 10**6 * places, losses.Split(4)) == 1
    assert losses.chunks(10**9, 3, 1000, 0) == 3
    assert losses.chunks(16, places, 1000, losses.LOGITS // 4 * 5) == 4  # five times as many at once


def test_contrastive_with_distinct_pairs_is_clips_loss():
    rng = np.random.default_rng(1)
    image, text = rng.normal(size=(2, 4, 8)).astype("f")
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    logits = 7.0 * unit(image) @ unit(text).T
    log_softmax = lambda x: x - np.log(np.exp(x).sum(1, keepdims=True))
    want = -(np.diag(log_softmax(logits)).sum() + np.diag(log_softmax(logits.T)).sum()) / 2
    total, count, _ = losses.contrastive(image, text, jnp.float32(7.0), jnp.arange(4), ALL[:4])
    np.testing.assert_allclose([total, count], [want, 4], rtol=1e-5)


def test_contrastive_positives_of_each_other_do_not_push_apart():
    """Two rows with one caption: the loss is lowest when both images are equally near it, not when they are told apart."""
    image = jnp.eye(3)[jnp.array([0, 0, 1])]
    same = losses.contrastive(image, image, jnp.float32(50.0), jnp.array([0, 0, 1]), ALL[:3])[0]
    apart = losses.contrastive(image, image, jnp.float32(50.0), jnp.array([0, 1, 2]), ALL[:3])[0]
    assert same == pytest.approx(2 * np.log(2), rel=1e-4)  # the entropy of the target itself, for two rows
    gradient = jax.grad(lambda x: losses.contrastive(x, image, jnp.float32(50.0), jnp.array([0, 0, 1]), ALL[:3])[0])(image)
    np.testing.assert_allclose(gradient, 0, atol=1e-4)
    assert apart == pytest.approx(float(same), rel=1e-4)


@pytest.mark.parametrize("real", [[1, 0, 1, 1, 0, 1], [0, 0, 0, 1, 0, 0], [1, 1, 1, 1, 1, 1]])
def test_contrastive_without_some_rows_is_that_of_a_batch_without_them(real):
    """Loss, count, hits and gradients, whatever stands in their places."""
    rng = np.random.default_rng(2)
    image, text = rng.normal(size=(2, 6, 8)).astype("f")
    pair, real = np.array([0, 0, 2, 3, 3, 0]), np.array(real, bool)
    image[~real], text[~real] = 0, np.nan
    loss = lambda image, text, scale, pair, real: losses.contrastive(image, text, scale, pair, real)[0]
    of = lambda *args: (losses.contrastive(*args), jax.grad(loss, argnums=(0, 1, 2))(*args))
    got, (d_image, d_text, d_scale) = of(image, text, jnp.float32(7.0), pair, real)
    want, (w_image, w_text, w_scale) = of(image[real], text[real], jnp.float32(7.0), pair[real], ALL[: real.sum()])
    np.testing.assert_allclose(got, want, rtol=1e-5)
    for a, b in ((d_image, w_image), (d_text, w_text)):
        np.testing.assert_allclose(a[real], b, rtol=1e-4, atol=1e-5)
        assert not np.asarray(a[~real]).any()
    np.testing.assert_allclose(d_scale, w_scale, rtol=1e-4, atol=1e-5)


def test_contrastive_without_any_row_is_nothing():
    image, text = np.random.default_rng(3).normal(size=(2, 4, 8)).astype("f")
    args = image, text, jnp.float32(7.0), np.arange(4), ~ALL[:4]
    assert [float(x) for x in losses.contrastive(*args)] == [0, 0, 0]
    gradients = jax.grad(lambda *args: losses.contrastive(*args)[0], argnums=(0, 1, 2))(*args)
    assert all(np.isfinite(g).all() and not np.asarray(g).any() for g in gradients)
