"""The Q-Former beside the parity table: what its queries read, and that its stack is one like the others."""
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from vlmjax.models import init_params, qformer
from vlmjax.param_rules import flatten, unflatten
from vlmjax.stacks import collect, expand

CONFIG = qformer.QFormerConfig(queries=3, width=24, layers=4, heads=2, mlp=40)
IMAGE = jax.random.normal(jax.random.key(1), (2, 5, 16))


def module(segments=(2,), **more):
    return qformer.QFormer(CONFIG, segments, 16, 8, **more)


@functools.cache
def whole():
    """Parameters by layer, the output, and the gradient of a loss by layer."""
    params = jax.jit(functools.partial(init_params, module()))(jax.random.key(0))
    return expand(flatten(params)), *run(module(), params)


def run(module, params):
    def loss(params):
        out = module.apply({"params": params}, IMAGE)
        return (out * jnp.arange(out.size).reshape(out.shape)).sum(), out

    (_, out), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return out, expand(flatten(gradient))


def test_segments_unroll_and_remat_change_nothing():
    by_layer, out, gradient = whole()
    other = module((1, 1), unroll=True, remat="full")
    params = collect(by_layer, flatten(jax.eval_shape(functools.partial(init_params, other), jax.random.key(0))))
    got, got_gradient = run(other, unflatten(params))
    np.testing.assert_allclose(got, out, rtol=1e-5, atol=1e-5)
    for path, leaf in gradient.items():
        np.testing.assert_allclose(got_gradient[path], leaf, rtol=1e-4, atol=1e-3, err_msg=path)


def test_every_second_layer_reads_the_image_and_all_of_it():
    by_layer, out, gradient = whole()
    assert out.shape == (2, 3, 8) and not any("odd/cross" in path for path in by_layer)
    assert {path: leaf.shape for path, leaf in by_layer.items() if path.startswith("layers/1/even/cross_attention") and path.endswith("kernel")} == {
        f"layers/1/even/cross_attention/{name}/kernel": dims for name, dims in (("q", (24, 2, 12)), ("k", (16, 2, 12)), ("v", (16, 2, 12)), ("o", (2, 12, 24)))}
    params = unflatten(collect(by_layer, flatten(jax.eval_shape(functools.partial(init_params, module()), jax.random.key(0)))))
    answer = jax.jit(lambda image: module().apply({"params": params}, image))
    for place in range(5):  # each token of the image, the first (a class token) too, and their order does not matter
        assert np.abs(answer(IMAGE.at[0, place].add(1.0)) - out)[0].min() > 1e-5
    np.testing.assert_allclose(answer(IMAGE[:, ::-1]), out, atol=1e-5)
    blind = {path: leaf * (0 if "cross_attention/o/" in path else 1) for path, leaf in flatten(params).items()}
    np.testing.assert_allclose(*module().apply({"params": unflatten(blind)}, IMAGE), atol=1e-5)  # without it both images are the same


def test_without_a_language_model_the_queries_come_out():
    params = jax.eval_shape(functools.partial(init_params, dataclasses.replace(module(), out_width=None)), jax.random.key(0))
    assert "linear_0" not in params
    assert jax.eval_shape(lambda p: dataclasses.replace(module(), out_width=None).apply({"params": p}, IMAGE), params).shape == (2, 3, 24)
