import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlmjax import sharding
from vlmjax.models.decoder import MLP
from vlmjax.models.parts import products, wide
from vlmjax.train import flops


def on(count, function, *args):
    """A function in the context of a step for so many CPU devices."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:count]).reshape(1, count, 1), sharding.AXES)
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        return function(*args)


@pytest.mark.parametrize("contract, kernel", [(((2,), (0,)), (4, 5)), (((2,), (0,)), (4, 2, 3)), (((1, 2), (0, 1)), (3, 4, 5)), (((2,), (1,)), (5, 4))], ids=str)
def test_matrices_have_the_values_of_the_product(contract, kernel):
    x, kernel = (np.random.default_rng(i).normal(size=shape).astype(np.float32) for i, shape in enumerate(((2, 3, 4), kernel)))
    multiply = lambda *args: products()(*args, (contract, ((), ())))
    np.testing.assert_allclose(on(1, multiply, x, kernel), multiply(x, kernel), rtol=1e-5, atol=1e-6)
    shapes = {n: {eqn.invars[0].aval.ndim for eqn in on(n, jax.make_jaxpr(multiply), x, kernel).eqns if eqn.primitive.name == "dot_general"} for n in (1, 8)}
    assert shapes == {1: {2}, 8: {3}}


def test_layers_on_one_cpu_device_have_the_same_gradients():
    mlp, x = MLP(mlp=16), jax.random.normal(jax.random.key(0), (2, 3, 8))
    params = mlp.init(jax.random.key(1), x)
    grad = jax.grad(lambda params, x: jnp.sum(mlp.apply(params, x) ** 2), argnums=(0, 1))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), on(1, grad, params, x), grad(params, x))


def test_gradients_of_kernels_need_no_transposed_copy():
    """On one CPU device each is one product, of matrices as they lie in memory."""
    mlp, x = MLP(mlp=96), jax.ShapeDtypeStruct((2, 40, 64), jnp.float32)
    params = jax.eval_shape(mlp.init, jax.random.key(1), x)
    compiled = lambda: jax.jit(jax.grad(lambda params, x: jnp.sum(mlp.apply(params, x) ** 2))).lower(params, x).compile().as_text()
    written = lambda text: set(re.findall(r"= f32\[(?:96,80|64,80)\]", text))
    assert not written(on(1, compiled)) and written(compiled())


PAIR = functools.partial(jnp.einsum, "btd,bsd->bts")


def of_pair(dtype, function=lambda a, b: wide(PAIR, a, b)):
    """→ (the product of two random arrays, the gradients of a sum of its squares)."""
    a, b = (jax.random.normal(jax.random.key(i), shape, jnp.float32).astype(jnp.bfloat16).astype(dtype) for i, shape in enumerate(((2, 3, 16), (2, 5, 16))))
    return function(a, b), jax.grad(lambda a, b: jnp.sum(function(a, b) ** 2), argnums=(0, 1))(a, b)


def test_a_wide_product_of_bfloat16_is_that_of_the_same_numbers_in_float32():
    """The product itself up to the order of sums; a gradient up to one rounding of what comes back and one of what goes out."""
    (y, grads), (want, exact) = of_pair(jnp.bfloat16), of_pair(jnp.float32)
    assert y.dtype == jnp.float32 and {g.dtype.name for g in grads} == {"bfloat16"}
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)
    for got, ref in zip(grads, exact):
        assert np.linalg.norm(np.asarray(got, np.float32) - ref) <= 2**-7 * np.linalg.norm(ref)
    plain = of_pair(jnp.float32, lambda a, b: PAIR(a, b, preferred_element_type=jnp.float32))
    jax.tree.map(np.testing.assert_array_equal, of_pair(jnp.float32), plain)


@pytest.mark.parametrize("argnums, count", [(0, 2), (1, 2), ((0, 1), 3)])
def test_no_gradient_is_computed_that_nobody_asked_for(argnums, count):
    """Nor does any product read float32, also where a layer is computed again."""
    a, b = jnp.ones((2, 3, 16), jnp.bfloat16), jnp.ones((2, 5, 16), jnp.bfloat16)
    for function in (lambda a, b: wide(PAIR, a, b), jax.checkpoint(lambda a, b: wide(PAIR, a, b))):
        program = jax.make_jaxpr(jax.grad(lambda a, b: jnp.sum(function(a, b)), argnums=argnums))(a, b)
        assert flops.of_jaxpr(program.jaxpr, passes=True) == flops.of_jaxpr(program.jaxpr) == count * 2 * 2 * 3 * 5 * 16
