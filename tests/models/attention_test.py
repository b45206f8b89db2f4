import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmjax.models.attention import Attention, BySegments, attend, rotary, rotations, softmax, visible


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from([None, 1, 3]))
def test_visible_is_the_rule_of_the_contract(seed, with_prefix, window):
    rng = np.random.default_rng(seed)
    B, T, S = 2, 4, 5
    q_segments, q_parents, q_positions = (rng.integers(0, n, (B, T)) for n in (4, 4, 6))
    k_segments, k_positions = (rng.integers(0, n, (B, S)) for n in (4, 6))
    k_prefix = rng.integers(0, 2, (B, S)).astype(bool) if with_prefix else None
    mask = visible(q_segments, q_positions, q_parents, k_segments, k_positions, k_prefix, window)
    for b, t, s in np.ndindex(B, T, S):
        same = k_segments[b, s] != 0 and k_segments[b, s] in (q_segments[b, t], q_parents[b, t])
        order = k_positions[b, s] <= q_positions[b, t] or (with_prefix and k_prefix[b, s])
        near = window is None or q_positions[b, t] - k_positions[b, s] < window
        assert mask[b, t, s] == (same and order and near)


def test_attend_against_a_loop_over_heads():
    rng = np.random.default_rng(0)
    B, T, S, N, K, H = 2, 3, 5, 6, 2, 4
    q, k, v = (rng.normal(size=shape).astype(np.float32) for shape in ((B, T, N, H), (B, S, K, H), (B, S, K, H)))
    mask = rng.random((B, T, S)) < 0.6
    mask[:, :, 0] = True
    mask[1, 2] = False  # a padded query
    out = np.asarray(jax.jit(attend)(q, k, v, mask))
    for b, t, n in np.ndindex(B, T, N):
        logits = k[b, :, n // (N // K)] @ q[b, t, n] / np.sqrt(H)
        weights = np.exp(logits) * mask[b, t] if mask[b, t].any() else np.ones(S)
        np.testing.assert_allclose(out[b, t, n], weights / weights.sum() @ v[b, :, n // (N // K)], rtol=1e-5, atol=1e-6)


def test_attend_in_bfloat16_keeps_a_float32_softmax_and_finite_gradients():
    q, k, v = (jax.random.normal(key, (1, 2, 2, 4), jnp.bfloat16) for key in jax.random.split(jax.random.key(0), 3))
    mask = jnp.array([[[True, False], [False, False]]])
    loss = lambda *qkv: attend(*qkv, mask).astype(jnp.float32).sum()
    gradients = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(q, k, v)
    assert all(g.dtype == jnp.bfloat16 and np.isfinite(np.asarray(g, np.float32)).all() for g in gradients)
    assert "f32[1,2,2,2]" in str(jax.make_jaxpr(attend)(q, k, v, mask))


def test_softmax_is_jaxs_bit_for_bit_with_its_gradient():
    x, g = (jax.random.normal(key, (3, 5, 7)) * 10 for key in jax.random.split(jax.random.key(0)))
    x = x.at[0, 0, :4].set(jnp.finfo(jnp.float32).min).at[1, 1].set(jnp.finfo(jnp.float32).min)
    (ours, ours_back), (theirs, theirs_back) = (jax.jit(lambda x, f=f: (f(x), jax.vjp(f, x)[1](g)))(x) for f in (softmax, jax.nn.softmax))
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(ours_back[0], theirs_back[0])


def test_rotary_rotates_each_pair_by_its_own_angle():
    x = np.random.default_rng(0).normal(size=(2, 3, 2, 6)).astype(np.float32)
    positions = np.array([[0, 1, 2], [7, 100, 4000]])
    out = np.asarray(jax.jit(lambda x: rotary(x, rotations(positions, 1e4, 6, 4001)))(x))
    for b, t, n, i in np.ndindex(2, 3, 2, 3):
        turned = complex(x[b, t, n, i], x[b, t, n, i + 3]) * np.exp(1j * positions[b, t] * 1e4 ** (-2 * i / 6))
        np.testing.assert_allclose(out[b, t, n, [i, i + 3]], [turned.real, turned.imag], atol=1e-3)
    np.testing.assert_array_equal(out[0, 0], x[0, 0])


def test_a_position_that_no_row_can_have_gives_nan_and_not_another_angle():
    turns = np.asarray(jax.jit(lambda p: rotations(p, 1e4, 6, 3))(np.array([[0, 2, 3, -1]])))
    assert np.isfinite(turns[:, :, :2]).all() and np.isnan(turns[:, :, 2:]).all()


@pytest.mark.parametrize("asked", [2, np.array([[3, 0, 3], [1, 1, 4]])], ids=["front", "places"])
@pytest.mark.parametrize("kernel", [attend, BySegments(attend)], ids=["plain", "all queries"])
def test_tokens_that_do_not_ask_are_keys_all_the_same(asked, kernel):
    x = np.random.default_rng(0).normal(size=(2, 5, 12)).astype(np.float32)
    positions = np.broadcast_to(np.arange(5), (2, 5))
    mask = np.random.default_rng(1).random((2, 5, 5)) < 0.7
    module = Attention(width=12, heads=2, kv_heads=1, head_dim=6, biases=("q", "o"), attend=kernel)
    args = x, rotations(positions, 1e4, 6, 5), mask
    params = module.init(jax.random.key(0), *args)
    whole, some = module.apply(params, *args)[0], jax.jit(lambda: module.apply(params, *args, asked=asked)[0])()
    places = np.broadcast_to(np.arange(asked), (2, asked)) if isinstance(asked, int) else asked
    assert some.shape == (2, places.shape[1], 12)
    for b, n in np.ndindex(*places.shape):
        np.testing.assert_allclose(some[b, n], whole[b, places[b, n]], rtol=1e-5, atol=1e-6)
