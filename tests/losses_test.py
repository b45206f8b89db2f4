import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlmjax import losses

ALL = np.ones(8, bool)


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
