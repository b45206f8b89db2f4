import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from vlmjax.models import init_params, vit
from vlmjax.models.patch_embed import PatchEmbed, normalise


def test_patch_embed_reads_whole_patches_row_by_row():
    module = PatchEmbed(patch=4, width=5, bias=True)
    images = np.random.default_rng(0).normal(size=(2, 9, 11, 3)).astype(np.float32)  # one row and three columns are left over
    params = module.init(jax.random.key(0), images)["params"]
    params["bias"] = jnp.arange(5.0)
    out = jax.jit(module.apply)({"params": params}, images)
    assert out.shape == (2, 4, 5)
    for n, y, x in np.ndindex(2, 2, 2):
        patch = images[n, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4]
        np.testing.assert_allclose(out[n, 2 * y + x], patch.ravel() @ params["kernel"].reshape(-1, 5) + np.arange(5), atol=1e-5)


def test_normalise():
    pixels = np.array([[[[0, 255, 51]]]], np.uint8)
    np.testing.assert_allclose(normalise(pixels, (0.0, 0.5, 0.2), (1.0, 0.25, 0.5))[0, 0, 0], [0, 2, 0], atol=1e-6)


def test_the_final_norm_belongs_to_the_last_block():
    config = dataclasses.replace(vit.VARIANTS["tiny-64"], size=16, layers=2, final_norm=True, class_token=False, pre_norm=False)
    init = lambda segments: jax.eval_shape(functools.partial(init_params, vit.ViT(config, segments)), jax.random.key(0))
    assert set(init((2,))) == {"patch_embed", "position_embed", "layers", "final_norm"}
    assert set(init((1,))) == {"patch_embed", "position_embed", "layers"}
    assert init((2,))["position_embed"].shape == (4, 64)


def test_layer_scale_begins_small_and_scales_what_each_half_of_a_layer_adds():
    """With scales of zero a stack of layers does nothing."""
    config = dataclasses.replace(vit.VARIANTS["tiny-64"], size=16, layers=2, pre_norm=False, layer_scale=0.1)
    module = vit.ViT(config, (2,))
    params = jax.jit(functools.partial(init_params, module))(jax.random.key(0))
    layers = params["layers"]["0-2"]
    np.testing.assert_array_equal(layers["scale1"], np.full((2, 64), 0.1, np.float32))
    images = jax.random.normal(jax.random.key(1), (1, 16, 16, 3))
    run = lambda one, two: module.apply({"params": {**params, "layers": {"0-2": {**layers, "scale1": one * layers["scale1"], "scale2": two * layers["scale2"]}}}}, images)
    embedded = module.clone(segments=()).apply({"params": {key: leaf for key, leaf in params.items() if key != "layers"}}, images)
    np.testing.assert_array_equal(run(0, 0), embedded)
    assert all(np.abs(run(one, two) - embedded).max() > 1e-3 for one, two in ((1, 0), (0, 1)))


def test_keys_without_a_bias():
    config = dataclasses.replace(vit.VARIANTS["tiny-64"], qkv_bias=("q", "v"))
    params = jax.eval_shape(functools.partial(init_params, vit.ViT(config, (4,))), jax.random.key(0))
    attention = params["layers"]["0-4"]["attention"]
    assert {name for name in attention if "bias" in attention[name]} == {"q", "v", "o"}


def test_the_class_token_alone_has_the_same_values_and_gradients():
    config = dataclasses.replace(vit.VARIANTS["tiny-64"], size=16, layers=3, final_norm=True)
    images = jax.random.normal(jax.random.key(1), (2, 16, 16, 3))
    whole, alone = vit.ViT(config, (2, 1)), vit.ViT(config, (2, 1), asked_only=True)
    params = init_params(whole, jax.random.key(0))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, init_params(alone, jax.random.key(0)))
    read = lambda module, params: module.apply({"params": params}, images)[:, :1]
    assert jax.eval_shape(alone.apply, {"params": params}, images).shape == (2, 1, 64)
    weigh = jax.random.normal(jax.random.key(2), (2, 1, 64))  # the mean square of what a norm gives is constant
    (value, grads), (value_alone, grads_alone) = (jax.jit(jax.value_and_grad(lambda p, m=module: jnp.sum(read(m, p) * weigh)))(params) for module in (whole, alone))
    np.testing.assert_allclose(value_alone, value, atol=1e-4)  # of a sum of 128, each about 1
    for leaf, leaf_alone in zip(jax.tree.leaves(grads), jax.tree.leaves(grads_alone)):  # that of a key's bias is 0 but for rounding
        np.testing.assert_allclose(leaf_alone, leaf, rtol=1e-4, atol=1e-5)
