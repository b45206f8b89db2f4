import jax
import jax.numpy as jnp
import pytest

from tests.train import tiny
from vlmjax.train import build, flops


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


def test_a_product_of_float32_takes_the_passes_of_its_precision():
    x, w = jnp.ones((4, 8)), jnp.ones((8, 8))
    passes = lambda x, precision: flops.of_jaxpr(jax.make_jaxpr(lambda x, w: jnp.matmul(x, w.astype(x.dtype), precision=precision))(x, w).jaxpr, passes=True) / (2 * 4 * 8 * 8)
    assert [passes(x, precision) for precision in ("highest", "high", "default")] == [6, 3, 1]
    assert passes(x.astype(jnp.bfloat16), "highest") == 1
    mixed = jax.make_jaxpr(lambda x, w: jax.lax.dot_general(x, w.astype(jnp.bfloat16), (((1,), (0,)), ((), ())), precision="highest"))(x, w)
    assert flops.of_jaxpr(mixed.jaxpr, passes=True) == 3 * flops.of_jaxpr(mixed.jaxpr)


@pytest.mark.parametrize("attention", ["plain", "splash"])
def test_a_stage_that_computes_in_bfloat16_multiplies_nothing_else(attention):
    """Not even backwards, where a softmax and a loss in float32 hand their gradients to products."""
    stage = tiny.stage(trainable=((".*", True),), attention=attention, precision=build.Precision(compute="bfloat16"), parts=tiny.modules("bfloat16"))
    with jax.default_matmul_precision("highest"):
        jaxpr = stage.traced.jaxpr.jaxpr
    assert flops.of_jaxpr(jaxpr, passes=True) == flops.of_jaxpr(jaxpr)
    with jax.default_matmul_precision("highest"):
        exact = tiny.stage(trainable=((".*", True),)).traced.jaxpr.jaxpr
    assert flops.of_jaxpr(exact, passes=True) == 6 * flops.of_jaxpr(exact)
