"""Adapters beside projections: nothing before training, what their two matrices say after it."""
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlmjax import param_rules, stacks
from vlmjax.data import batch as batches
from vlmjax.errors import UserError
from vlmjax.models import clip, decoder, init_params, lora, projector, vit
from vlmjax.models.vlm import VLM

CONFIG = lora.LoRAConfig(rank=3, alpha=6.0, targets=("attention/.*", "mlp/.*"))
ENCODER = vit.ViTConfig(size=16, patch=8, width=16, layers=2, heads=2, mlp=32, feature_layer=-1)
DECODER = decoder.DecoderConfig(vocab=48, width=16, layers=2, heads=4, kv_heads=2, head_dim=8, mlp=32, tied=True)
SHAPE = batches.BatchShape(rows=2, length=12, images=1, targets=4, size=16)


def model(config=None, segments=(2,)):
    with_lora = lambda sizes: dataclasses.replace(sizes, lora=config)
    parts = {"encoder": vit.ViT(with_lora(ENCODER), segments), "projector": projector.Projector(projector.VARIANTS["mlp2x"], 16, 16),
             "decoder": decoder.Decoder(with_lora(DECODER), segments)}
    return VLM(**parts), parts


def parameters(parts, spread=0.3):
    """{path by layer: parameter}, everything random, the b of the adapters too."""
    rng = np.random.default_rng(0)
    flat = stacks.expand(param_rules.flatten({name: init_params(module, jax.random.key(1)) for name, module in parts.items()}))
    return {path: np.asarray(leaf) if not path.endswith("_lora/b") else rng.normal(0, spread, leaf.shape).astype(np.float32) for path, leaf in flat.items()}


def logits(vlm, by_layer, key=None):
    like = param_rules.flatten(jax.eval_shape(lambda: {name: init_params(getattr(vlm, name), jax.random.key(0)) for name in ("encoder", "projector", "decoder")}))
    params = param_rules.unflatten(stacks.collect(by_layer, like))
    return np.asarray(jax.jit(vlm.logits)(params, batches.fake("next_token", SHAPE, 48, ENCODER.tokens_per_image, seed=0), key))


def test_a_model_begins_as_it_was_without_adapters():
    vlm, parts = model(CONFIG)
    flat = parameters(parts)
    fresh = {path: np.zeros_like(leaf) if path.endswith("_lora/b") else leaf for path, leaf in flat.items()}
    plain = model()[0]
    np.testing.assert_array_equal(logits(vlm, fresh), logits(plain, lora.drop(flat)))
    assert np.abs(logits(vlm, flat) - logits(plain, lora.drop(flat))).max() > 0.1


def test_merging_computes_the_same():
    vlm, parts = model(CONFIG)
    flat = parameters(parts)
    merged = lora.merge(flat, {"encoder": CONFIG, "decoder": CONFIG})
    want, got = logits(vlm, flat), logits(model()[0], merged)
    assert np.linalg.norm(got - want) <= 1e-5 * np.linalg.norm(want)


def test_an_adapter_is_b_of_a_of_x():
    x = np.random.default_rng(1).normal(size=(2, 5, 4, 8)).astype(np.float32)
    adapter = lora.Adapter(lora.LoRAConfig(rank=2, alpha=5.0), (4, 8), (16,))
    a, b = np.random.default_rng(2).normal(size=(4, 8, 2)), np.random.default_rng(3).normal(size=(2, 16))
    got = adapter.apply({"params": {"a": jnp.asarray(a, jnp.float32), "b": jnp.asarray(b, jnp.float32)}}, x)
    np.testing.assert_allclose(got, x.reshape(2, 5, 32) @ a.reshape(32, 2) @ b * 2.5, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("targets, names", [
    (("attention/[qv]",), {"attention/q_lora", "attention/v_lora"}),
    (("mlp/.*", "attention/o"), {"mlp/gate_lora", "mlp/up_lora", "mlp/down_lora", "attention/o_lora"}),
])
def test_only_targets_have_adapters(targets, names):
    config = dataclasses.replace(CONFIG, targets=targets)
    flat = param_rules.flatten(jax.eval_shape(lambda: init_params(decoder.Decoder(dataclasses.replace(DECODER, lora=config), (2,)), jax.random.key(0))))
    assert {path.split("0-2/")[1].rpartition("/")[0] for path in flat if lora.is_adapter(path)} == names


def test_a_text_tower_has_them_too():
    tower = clip.TextTower(clip.TextConfig(vocab=48, length=8, width=16, layers=1, heads=2, mlp=32, joint=16, lora=CONFIG), (1,))
    flat = param_rules.flatten(jax.eval_shape(lambda: init_params(tower, jax.random.key(0))))
    # q, k, v, o: 16 → 16; up: 16 → 32; down: 32 → 16
    assert sum(leaf.size for path, leaf in flat.items() if lora.is_adapter(path)) == 3 * (4 * (16 + 16) + 2 * (16 + 32))


def test_dropout_is_a_function_of_its_key():
    vlm, parts = model(dataclasses.replace(CONFIG, dropout=0.5))
    flat = parameters(parts)
    one, again, other, none = (logits(vlm, flat, key) for key in (jax.random.key(1), jax.random.key(1), jax.random.key(2), None))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 1e-3 and np.abs(one - none).max() > 1e-3
    np.testing.assert_array_equal(none, logits(model(CONFIG)[0], flat))
    adapter = lora.Adapter(lora.LoRAConfig(rank=2, alpha=2.0, dropout=0.25), (64,), (64,))
    params = {"a": jnp.eye(64)[:, :2], "b": jnp.ones((2, 64))}
    kept = np.asarray([adapter.apply({"params": params}, jnp.ones((1, 1, 64)), rngs={"dropout": jax.random.key(i)})[0, 0, 0] for i in range(200)])
    assert abs(kept.mean() - 2.0) < 0.2 and set(np.round(kept, 4).tolist()) <= set(np.round(np.float32([0, 4 / 3, 8 / 3]), 4).tolist())


@pytest.mark.parametrize("change, message", [
    (dict(targets=("atention/q",)), "'atention/q' matches no projection; nearest: attention/q"),
    (dict(targets=("(",)), "is not a regular expression"),
    (dict(targets=()), "names no projection"),
    (dict(rank=0), "rank is at least 1"),
    (dict(dropout=1.0), r"dropout in \[0, 1\)"),
])
def test_adapters_without_a_meaning_are_refused(change, message):
    with pytest.raises(UserError, match=f"model.decoder.lora.*{message}"):
        dataclasses.replace(CONFIG, **change).check("model.decoder.lora", decoder.DecoderConfig.projections)
