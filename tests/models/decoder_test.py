import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from vlmjax.models import decoder, init_params
from vlmjax.models.attention import visible

CONFIG = dataclasses.replace(decoder.VARIANTS["tiny-64"], layers=2, kv_heads=2, qkv_bias=True, tied=False)
MODULE = decoder.Decoder(CONFIG, (1, 1))


@functools.cache
def params():
    return jax.jit(functools.partial(init_params, MODULE))(jax.random.key(0))


def test_cached_decoding_equals_the_full_forward():
    """A prefix of three tokens, then steps of two, one for each of two questions about it; the cache is longer than needed."""
    segments = jnp.array([[1, 1, 1, 2, 3, 2, 3]])
    parents = jnp.array([[0, 0, 0, 1, 1, 1, 1]])
    positions = jnp.array([[0, 1, 2, 3, 3, 4, 4]])
    x = jax.random.normal(jax.random.key(1), (1, 7, CONFIG.width))
    call = functools.partial(jax.jit(MODULE.apply), {"params": params()})
    full, none = call(x, positions, visible(segments, positions, parents, segments, positions))
    assert none is None

    slots = 9
    k_segments, k_positions = (jnp.pad(a, ((0, 0), (0, slots - 7))) for a in (segments, positions))
    cache, out = decoder.init_cache(CONFIG, MODULE.segments, 1, slots), []
    for start, stop in ((0, 3), (3, 5), (5, 7)):
        here = slice(start, stop)
        written = jnp.where(jnp.arange(slots) < stop, k_segments, 0)
        mask = visible(segments[:, here], positions[:, here], parents[:, here], written, k_positions)
        hidden, cache = call(x[:, here], positions[:, here], mask, cache, jnp.int32(start))
        out.append(hidden)
    np.testing.assert_allclose(jnp.concatenate(out, axis=1), full, atol=1e-5)


def test_an_id_outside_the_table_is_nan_and_not_another_token():
    vectors = MODULE.apply({"params": params()}, jnp.array([[0, CONFIG.vocab, -1]]), method="embed")
    np.testing.assert_array_equal(np.isnan(vectors).all(axis=-1), [[False, True, True]])


def test_logits_are_float32_from_bfloat16():
    module = dataclasses.replace(MODULE, dtype=jnp.bfloat16)
    out = jax.eval_shape(lambda p: module.apply({"params": p}, jnp.zeros((1, 2, 64), jnp.bfloat16), method="logits"), params())
    assert out.shape == (1, 2, CONFIG.vocab) and out.dtype == jnp.float32
