import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlmjax import param_rules
from vlmjax.errors import UserError
from vlmjax.models import decoder, init_params
from vlmjax.models.attention import visible

CONFIG = dataclasses.replace(decoder.VARIANTS["tiny-64"], layers=2, kv_heads=2, qkv_bias=True, tied=False)
MODULE = decoder.Decoder(CONFIG, (1, 1))


@functools.cache
def params():
    return jax.jit(functools.partial(init_params, MODULE))(jax.random.key(0))


def test_rows_in_which_the_angles_would_depend_on_the_length_are_refused():
    """Up to there they are the same."""
    x, positions = jax.random.normal(jax.random.key(1), (1, 6, CONFIG.width)), jnp.arange(6)[None]
    apply = lambda module, T: module.apply({"params": params()}, x[:, :T], positions[:, :T], jnp.tril(jnp.ones((1, T, T), bool)))[0]
    module = MODULE.clone(config=dataclasses.replace(CONFIG, dynamic=(2.0, 5)))
    np.testing.assert_array_equal(apply(module, 5), apply(MODULE, 5))
    with pytest.raises(UserError, match="rows of 6 tokens .length., and beyond 5 its rotary angles depend on the length"):
        apply(module, 6)


@pytest.mark.parametrize("segments_of_layers", [(1, 1, 1), (2, 1), (3,)], ids=str)
def test_cached_decoding_equals_the_full_forward(segments_of_layers):
    """A prefix of three tokens, then steps of two, one for each of two questions about it; the cache is longer than needed."""
    module = decoder.Decoder(dataclasses.replace(CONFIG, layers=3), segments_of_layers)
    own = jax.jit(functools.partial(init_params, module))(jax.random.key(0))
    segments = jnp.array([[1, 1, 1, 2, 3, 2, 3]])
    parents = jnp.array([[0, 0, 0, 1, 1, 1, 1]])
    positions = jnp.array([[0, 1, 2, 3, 3, 4, 4]])
    x = jax.random.normal(jax.random.key(1), (1, 7, CONFIG.width))
    call = functools.partial(jax.jit(module.apply), {"params": own})
    full, none = call(x, positions, visible(segments, positions, parents, segments, positions))
    assert none is None

    slots = 9
    k_segments, k_positions = (jnp.pad(a, ((0, 0), (0, slots - 7))) for a in (segments, positions))
    cache, out = decoder.init_cache(CONFIG, segments_of_layers, 1, slots), []
    for start, stop in ((0, 3), (3, 5), (5, 7)):
        here = slice(start, stop)
        written = jnp.where(jnp.arange(slots) < stop, k_segments, 0)
        mask = visible(segments[:, here], positions[:, here], parents[:, here], written, k_positions)
        before = cache
        hidden, cache = call(x[:, here], positions[:, here], mask, before, jnp.int32(start))
        out.append(hidden)
        if segments_of_layers[-1] == 1:  # the last layer computed for one token fills the same cache
            some, filled = call(x[:, here], positions[:, here], mask, before, jnp.int32(start), jnp.array([[1]]))
            np.testing.assert_allclose(some, hidden[:, 1:2], atol=1e-5)
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), filled, cache)
    np.testing.assert_allclose(jnp.concatenate(out, axis=1), full, atol=1e-5)


def test_an_id_outside_the_table_is_nan_and_not_another_token():
    vectors = MODULE.apply({"params": params()}, jnp.array([[0, CONFIG.vocab, -1]]), method="embed")
    np.testing.assert_array_equal(np.isnan(vectors).all(axis=-1), [[False, True, True]])


def test_logits_are_float32_from_bfloat16():
    module = dataclasses.replace(MODULE, dtype=jnp.bfloat16)
    out = jax.eval_shape(lambda p: module.apply({"params": p}, jnp.zeros((1, 2, 64), jnp.bfloat16), method="logits"), params())
    assert out.shape == (1, 2, CONFIG.vocab) and out.dtype == jnp.float32


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("first, count", [(64, 3), (61, 2), (63, 4)], ids=["behind", "inside", "across"])
def test_added_rows_are_rows_of_the_table(tied, first, count):
    config = dataclasses.replace(CONFIG, tied=tied, added=(first, count))
    flat = param_rules.flatten(jax.jit(functools.partial(init_params, decoder.Decoder(config, (1, 1))))(jax.random.key(0)))
    rows = {axis: flat.pop(f"added_{name}") for name, axis in (("embed", 0), ("head", 1)) if f"added_{name}" in flat}
    join = lambda table, rows, axis: jnp.concatenate([*jnp.split(table, [first], axis)[:1], rows, jnp.split(table, [min(first + count, 64)], axis)[1]], axis)
    joined = {**flat, "embed": join(flat["embed"], rows[0], 0)} | ({} if tied else {"head": join(flat["head"], rows[1], 1)})
    plain = decoder.Decoder(dataclasses.replace(config, added=None, vocab=config.vocabulary), (1, 1))
    flat |= {f"added_{name}": rows[axis] for name, axis in (("embed", 0), ("head", 1)) if axis in rows}
    tokens = jnp.arange(config.vocabulary)[None]
    apply = lambda module, flat, *args, method: module.apply({"params": param_rules.unflatten(flat)}, *args, method=method)
    np.testing.assert_array_equal(apply(decoder.Decoder(config, (1, 1)), flat, tokens, method="embed"), apply(plain, joined, tokens, method="embed"))
    hidden = jax.random.normal(jax.random.key(1), (1, 2, config.width))
    got, want = (apply(module, leaves, hidden, method="logits") for module, leaves in ((decoder.Decoder(config, (1, 1)), flat), (plain, joined)))
    assert got.shape == (1, 2, config.vocabulary) == (1, 2, max(64, first + count))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    assert jnp.isnan(apply(plain, joined, tokens + 1, method="embed")[0, -1]).all() and jnp.isnan(apply(decoder.Decoder(config, (1, 1)), flat, tokens + 1, method="embed")[0, -1]).all()
