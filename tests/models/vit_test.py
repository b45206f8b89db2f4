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


def test_keys_without_a_bias():
    config = dataclasses.replace(vit.VARIANTS["tiny-64"], qkv_bias=("q", "v"))
    params = jax.eval_shape(functools.partial(init_params, vit.ViT(config, (4,))), jax.random.key(0))
    attention = params["layers"]["0-4"]["attention"]
    assert {name for name in attention if "bias" in attention[name]} == {"q", "v", "o"}
