import jax
import jax.numpy as jnp

from vlmjax.train import flops


def test_products_scans_branches_and_remat_are_counted():
    x, w = jnp.ones((4, 8)), jnp.ones((3, 8, 8))
    product = 2 * 4 * 8 * 8
    assert flops.count(lambda x, w: x @ w[0], x, w) == product
    scan = lambda x, w: jax.lax.scan(lambda c, wi: (jnp.tanh(c @ wi), None), x, w)[0]
    assert flops.count(scan, x, w) == 3 * product
    assert flops.count(jax.grad(lambda w, x: scan(x, w).sum()), w, x) == 9 * product
    assert flops.count(lambda x, w: jax.lax.cond(True, lambda: x @ w[0], lambda: x @ w[0] @ w[1]), x, w) == 2 * product
    assert flops.count(jax.jit(jax.checkpoint(lambda x, w: x @ w[0])), x, w) == product


def test_the_gradient_of_the_inputs_alone_is_cheaper_than_of_all():
    x, w = jnp.ones((4, 8)), jnp.ones((3, 8, 8))
    scan = lambda x, w: jax.lax.scan(lambda c, wi: (jnp.tanh(c @ wi), None), x, w)[0].sum()
    assert flops.count(jax.grad(scan), x, w) == 6 * 2 * 4 * 8 * 8
