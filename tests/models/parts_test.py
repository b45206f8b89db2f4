import jax
import jax.numpy as jnp
import numpy as np

from vlmjax import sharding
from vlmjax.models.decoder import MLP
from vlmjax.models.parts import as_one_row


def on(count, function, *args):
    """A function in the context of a step for so many CPU devices."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:count]).reshape(1, count, 1), sharding.AXES)
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        return function(*args)


def test_rows_become_one_on_one_cpu_device_and_nowhere_else():
    x = jnp.arange(24.0).reshape(2, 3, 4)
    np.testing.assert_array_equal(on(1, as_one_row, x), x.reshape(1, 6, 4))
    np.testing.assert_array_equal(on(8, as_one_row, x), x)
    np.testing.assert_array_equal(as_one_row(x), x)


def test_a_layer_of_one_row_has_the_same_gradients():
    mlp, x = MLP(mlp=16), jax.random.normal(jax.random.key(0), (2, 3, 8))
    params = mlp.init(jax.random.key(1), x)
    grad = jax.grad(lambda params, x: jnp.sum(mlp.apply(params, x) ** 2), argnums=(0, 1))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), on(1, grad, params, x), grad(params, x))
