import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlmjax import losses


def test_next_token_is_the_weighted_sum_of_negative_log_likelihoods():
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(2, 3, 5)).astype("f"), rng.integers(0, 5, (2, 3))
    weights = np.array([[1, 0, 2], [1, 1, 0]], "f")
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    want = -sum(weights[b, s] * np.log(p[b, s, targets[b, s]]) for b in range(2) for s in range(3))
    total, count, _ = losses.next_token(jnp.asarray(logits), jnp.asarray(targets), jnp.asarray(weights))
    np.testing.assert_allclose([total, count], [want, 5.0], rtol=1e-6)


def test_contrastive_with_distinct_pairs_is_clips_loss():
    rng = np.random.default_rng(1)
    image, text = rng.normal(size=(2, 4, 8)).astype("f")
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    logits = 7.0 * unit(image) @ unit(text).T
    log_softmax = lambda x: x - np.log(np.exp(x).sum(1, keepdims=True))
    want = -(np.diag(log_softmax(logits)).sum() + np.diag(log_softmax(logits.T)).sum()) / 2
    total, count, _ = losses.contrastive(image, text, jnp.float32(7.0), jnp.arange(4))
    np.testing.assert_allclose([total, count], [want, 4], rtol=1e-5)


def test_contrastive_positives_of_each_other_do_not_push_apart():
    """Two rows with one caption: the loss is lowest when both images are equally near it, not when they are told apart."""
    image = jnp.eye(3)[jnp.array([0, 0, 1])]
    same = losses.contrastive(image, image, jnp.float32(50.0), jnp.array([0, 0, 1]))[0]
    apart = losses.contrastive(image, image, jnp.float32(50.0), jnp.array([0, 1, 2]))[0]
    assert same == pytest.approx(2 * np.log(2), rel=1e-4)  # the entropy of the target itself, for two rows
    gradient = jax.grad(lambda x: losses.contrastive(x, image, jnp.float32(50.0), jnp.array([0, 0, 1]))[0])(image)
    np.testing.assert_allclose(gradient, 0, atol=1e-4)
    assert apart == pytest.approx(float(same), rel=1e-4)
