"""Every variant at its true size, abstractly: parameter counts and token counts as published."""
import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import pytest

from vlmjax.models import clip, decoder, init_params, projector, vit


def count(module) -> int:
    params = jax.eval_shape(functools.partial(init_params, module), jax.random.key(0))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def encoder(name: str) -> vit.ViT:
    return vit.ViT(vit.VARIANTS[name], (vit.VARIANTS[name].layers,))


def contrast_head(vision: str, text: str) -> clip.ContrastHead:
    config = clip.VARIANTS[text]
    return clip.ContrastHead(vit.VARIANTS[vision].width, config.width, config.joint)


def text_tower(name: str) -> clip.TextTower:
    return clip.TextTower(clip.VARIANTS[name], (clip.VARIANTS[name].layers,))


@pytest.mark.parametrize(
    "name, tokens",
    [("vit-b16", 196), ("clip-b32", 49), ("clip-l14", 256), ("clip-l14-336", 576), ("eva-g14", 256), ("tiny-64", 64)],
)
def test_image_tokens(name, tokens):
    module = encoder(name)
    config = module.config
    assert config.tokens_per_image == tokens
    images = jax.ShapeDtypeStruct((2, config.size, config.size, 3), jnp.float32)
    out, _ = jax.eval_shape(module.init_with_output, jax.random.key(0), images)
    assert out.shape == (2, tokens + 1, config.width)  # a class token in front


@pytest.mark.parametrize(
    "vision, text, parameters",
    [
        ("clip-b32", "clip-b", 151_277_313),
        ("clip-b16", "clip-b", 149_620_737),
        ("clip-l14", "clip-l", 427_616_513),
        ("clip-l14-336", "clip-l", 427_944_193),
    ],
)
def test_clip(vision, text, parameters):
    assert count(encoder(vision)) + count(text_tower(text)) + count(contrast_head(vision, text)) == parameters


@pytest.mark.parametrize("name, parameters", [("eva-g14", 985_894_528), ("eva-g14-hf", 985_952_256)])
def test_eva(name, parameters):
    assert count(encoder(name)) == parameters
    assert vit.VARIANTS[name].feature_blocks == 39


@pytest.mark.parametrize(
    "name, parameters",
    [
        ("llama-7b", 6_738_415_616),
        ("llama-13b", 13_015_864_320),
        ("llama2-7b", 6_738_415_616),
        ("vicuna-7b", 6_738_415_616),
        ("llama2-13b", 13_015_864_320),
        ("qwen2.5-0.5b", 494_032_768),
        ("qwen2.5-7b", 7_615_616_512),
        ("mistral-7b", 7_241_732_096),
        ("smollm2-135m", 134_515_008),
    ],
)
def test_decoder(name, parameters):
    config = decoder.VARIANTS[name]
    assert count(decoder.Decoder(config, (config.layers,))) == parameters


def test_internvl():
    """By hand: of each layer four matrices of attention and two of the MLP with their biases, two norms, two scales; class token, places and patches below; InternVL3-1B's projector."""
    E, F, tokens = 1024, 4096, (448 // 14) ** 2 + 1
    layer = 4 * (E * E + E) + 2 * E * F + F + E + 2 * 2 * E + 2 * E
    assert count(encoder("internvit-300m")) == 24 * layer + E + tokens * E + 14 * 14 * 3 * E + E == 304_012_288
    assert count(projector.Projector(projector.VARIANTS["internvl"], E, 896)) == 2 * 4 * E + 4 * E * 896 + 896 + 896 * 896 + 896


def test_qformer():
    """By hand: attention and MLP of all twelve layers, a cross-attention to 1408 wide patches in six, a norm behind each, queries and their norm; the map to a 7B alone learns."""
    W, F, E, layers = 768, 3072, 1408, 12
    layer, cross = 4 * (W * W + W) + 2 * W * F + F + W + 2 * 2 * W, 2 * (W * W + W) + 2 * (E * W + W) + 2 * W
    bridge = layers * layer + layers // 2 * cross + 32 * W + 2 * W
    assert count(projector.make(projector.VARIANTS["qformer"], E, None)) == bridge == 105_162_240
    assert count(projector.make(projector.VARIANTS["qformer"], E, 4096)) == bridge + 3_149_824


@pytest.mark.parametrize("encoder_width, parameters", [(1024, 20_979_712), (1408, 22_552_576)])
def test_projector(encoder_width, parameters):
    assert count(projector.Projector(projector.VARIANTS["mlp2x"], encoder_width, 4096)) == parameters


def test_llava():
    """The hub's count holds the whole vision model of CLIP: the block above the feature layer and the norm of its class token."""
    config = dataclasses.replace(decoder.VARIANTS["vicuna-7b"], vocab=32064)
    language = count(decoder.Decoder(config, (config.layers,)))
    bridge = count(projector.Projector(projector.VARIANTS["mlp2x"], 1024, 4096))
    whole = encoder("clip-l14-336")
    vision_norm = 2 * 1024
    assert count(whole) + vision_norm + bridge + language == 7_063_427_072

    used = vit.ViT(whole.config, (whole.config.feature_blocks,))
    assert whole.config.feature_blocks == 23
    assert count(whole) - count(used) == 12_596_224  # one block, neither computed nor in the state
