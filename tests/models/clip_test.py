import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from vlmjax.models import clip, init_params, vit

VISION = dataclasses.replace(vit.VARIANTS["tiny-64"], size=16, layers=1)
TEXT = dataclasses.replace(clip.VARIANTS["tiny"], layers=1)
MODEL = clip.CLIP(vit.ViT(VISION, (1,)), clip.TextTower(TEXT, (1,)), clip.ContrastHead(VISION.width, TEXT.width, TEXT.joint))


@functools.cache
def params():
    def init(key):
        return {name: init_params(getattr(MODEL, name), key) for name in ("encoder", "text_tower", "contrast_head")}

    return jax.jit(init)(jax.random.key(0))


def test_padding_never_changes_a_text():
    text = jax.jit(functools.partial(MODEL.text_features, params()))
    short = text(jnp.array([[1, 5, 9]]), jnp.ones((1, 3), int))
    padded = text(jnp.array([[1, 5, 9, 0, 0], [1, 5, 9, 7, 63], [1, 5, 8, 0, 0]]), jnp.array([[1, 1, 1, 0, 0]] * 3))
    np.testing.assert_allclose(padded[:2], np.repeat(short, 2, axis=0), atol=1e-5)
    assert not np.allclose(padded[2], short[0], atol=1e-3)
    assert short.shape == (1, TEXT.joint) and short.dtype == jnp.float32


def test_image_features_of_the_class_token_and_without_one():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 1, 16, 16, 3)).astype(np.uint8)
    features = jax.jit(MODEL.image_features)(params(), pixels)
    assert features.shape == (2, TEXT.joint) and features.dtype == jnp.float32
    encoder = vit.ViT(dataclasses.replace(VISION, class_token=False), (1,))
    model = dataclasses.replace(MODEL, encoder=encoder)
    abstract = {**params(), "encoder": jax.eval_shape(functools.partial(init_params, encoder), jax.random.key(0))}
    assert jax.eval_shape(model.image_features, abstract, pixels).shape == features.shape


def test_the_scale_starts_at_one_over_the_temperature_and_is_clipped():
    np.testing.assert_allclose(MODEL.logit_scale(params()), 1 / 0.07, rtol=1e-5)
    large = {"contrast_head": {**params()["contrast_head"], "logit_scale": jnp.float32(9.0)}}
    assert MODEL.logit_scale(large) == 100
