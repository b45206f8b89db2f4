import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlmjax.errors import UserError
from vlmjax.models import decoder, init_params
from vlmjax.param_rules import flatten, unflatten
from vlmjax.stacks import collect, expand

CONFIG = decoder.VARIANTS["tiny-64"]
X = jax.random.normal(jax.random.key(1), (2, 3, CONFIG.width))
POSITIONS = jnp.broadcast_to(jnp.arange(3), (2, 3))
MASK = jnp.tril(jnp.ones((2, 3, 3), bool))


@functools.cache
def whole():
    """Parameters with the four layers in one segment, the output, and the gradient of a loss, all by layer."""
    module = decoder.Decoder(CONFIG, (4,))
    params = jax.jit(functools.partial(init_params, module))(jax.random.key(0))
    return expand(flatten(params)), *run(module, params)


def run(module, params):
    def loss(params):
        hidden, _ = module.apply({"params": params}, X, POSITIONS, MASK)
        return (hidden * X).sum(), hidden

    (_, hidden), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return hidden, expand(flatten(gradient))


@pytest.mark.parametrize("segments, unroll, remat", [((2, 1, 1), 1, "none"), ((3, 1), True, "full"), ((4,), 2, "dots")])
def test_segments_unroll_and_remat_change_nothing(segments, unroll, remat):
    by_layer, hidden, gradient = whole()
    module = decoder.Decoder(CONFIG, segments, unroll=unroll, remat=remat)
    like = flatten(jax.eval_shape(functools.partial(init_params, module), jax.random.key(0)))
    params = collect(by_layer, like)
    assert {path: leaf.shape for path, leaf in params.items()} == {path: leaf.shape for path, leaf in like.items()}
    got, got_gradient = run(module, unflatten(params))
    np.testing.assert_allclose(got, hidden, rtol=1e-5, atol=1e-5)
    for path, leaf in gradient.items():
        np.testing.assert_allclose(got_gradient[path], leaf, rtol=1e-4, atol=1e-4, err_msg=path)


@pytest.mark.parametrize("remat", ["none", "full"])
def test_asked_tokens_have_the_values_and_gradients_of_all(remat):
    by_layer, hidden, _ = whole()
    module, asked = decoder.Decoder(CONFIG, (3, 1), remat=remat), jnp.array([[2, 0], [1, 1]])
    params = collect(by_layer, flatten(jax.eval_shape(functools.partial(init_params, module), jax.random.key(0))))
    weigh = jax.random.normal(jax.random.key(2), (2, 2, CONFIG.width))
    pick = lambda x: jnp.take_along_axis(x, asked[:, :, None], axis=1)

    def loss(params, x, asked):
        out = module.apply({"params": unflatten(params)}, x, POSITIONS, MASK, asked=asked)[0]
        out = pick(out) if asked is None else out
        return jnp.sum(out * weigh), out

    (_, want), wanted = jax.jit(jax.value_and_grad(lambda p, x: loss(p, x, None), argnums=(0, 1), has_aux=True))(params, X)
    (_, got), gotten = jax.jit(jax.value_and_grad(lambda p, x: loss(p, x, asked), argnums=(0, 1), has_aux=True))(params, X)
    np.testing.assert_allclose(want, pick(hidden), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    for leaf, other in zip(jax.tree.leaves(gotten), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(leaf, other, rtol=1e-4, atol=1e-4)


def test_a_last_layer_that_does_not_stand_alone_is_not_computed_for_some_tokens():
    with pytest.raises(ValueError, match="does not stand alone"):
        jax.eval_shape(lambda p: decoder.Decoder(CONFIG, (4,)).apply({"params": p}, X, POSITIONS, MASK, asked=1), unflatten(whole()[0]))


def test_full_remat_keeps_inputs_and_two_numbers_per_query_and_head():
    """Of four layers, beside what it is given: f32[4, B, T, D], and the largest logit and the sum of each softmax."""
    module = decoder.Decoder(CONFIG, (4,), remat="full")
    params = jax.eval_shape(functools.partial(init_params, module), jax.random.key(0))
    kept = jax.eval_shape(lambda params: jax.vjp(lambda params: module.apply({"params": params}, X, POSITIONS, MASK)[0], params)[1], params)
    shapes = sorted(leaf.shape for leaf in jax.tree.leaves(kept) if leaf.shape[:2] == (4, 2))
    assert shapes == [(4, 2, 3, CONFIG.width), (4, 2, 4, 3, 1), (4, 2, 4, 3, 1)]


def test_layers_start_different():
    by_layer, *_ = whole()
    assert not np.allclose(by_layer["layers/0/attention/q/kernel"], by_layer["layers/1/attention/q/kernel"])


def test_an_unknown_remat_is_named():
    with pytest.raises(UserError, match="remat: 'ful' .* did you mean 'full'"):
        jax.eval_shape(functools.partial(init_params, decoder.Decoder(CONFIG, (4,), remat="ful")), jax.random.key(0))
