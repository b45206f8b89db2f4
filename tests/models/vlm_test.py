import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from vlmjax.data.batch import BatchShape, fake
from vlmjax.models import decoder, init_params, projector, vit
from vlmjax.models.vlm import VLM, merge, pick

ENCODER = dataclasses.replace(vit.VARIANTS["tiny-64"], size=16, layers=1)  # 4 image tokens
DECODER = dataclasses.replace(decoder.VARIANTS["tiny-64"], layers=1)
MODEL = VLM(
    vit.ViT(ENCODER, (1,)),
    projector.Projector(projector.VARIANTS["linear"], ENCODER.width, DECODER.width),
    decoder.Decoder(DECODER, (1,)),
)
SHAPE = BatchShape(rows=2, length=12, images=2, targets=3, size=16)


@functools.cache
def params():
    def init(key):
        return {name: init_params(getattr(MODEL, name), key) for name in ("encoder", "projector", "decoder")}

    return jax.jit(init)(jax.random.key(0))


def batch():
    return fake("next_token", SHAPE, DECODER.vocab, ENCODER.tokens_per_image)


jitted_hidden = jax.jit(MODEL.hidden)


def hidden(batch):
    return jitted_hidden(params(), batch)


def test_merge_and_pick_against_loops():
    rng = np.random.default_rng(0)
    text, image = rng.normal(size=(2, 5, 3)), rng.normal(size=(2, 4, 3))
    slots = np.array([[-1, 0, 1, 3, -1], [2, 2, -1, -1, 0]])
    merged, picked = merge(text, image, slots), pick(text, np.abs(slots))
    for b, t in np.ndindex(2, 5):
        np.testing.assert_allclose(merged[b, t], text[b, t] if slots[b, t] < 0 else image[b, slots[b, t]], rtol=1e-6)
        np.testing.assert_allclose(picked[b, t], text[b, abs(slots[b, t])], rtol=1e-6)


def test_a_slot_beyond_the_images_is_nan_and_not_another_image():
    assert np.isnan(merge(jnp.zeros((1, 1, 2)), jnp.zeros((1, 3, 2)), jnp.array([[3]]))).all()


def test_logits_are_those_of_the_picked_places():
    data = batch()
    logits = jax.jit(MODEL.logits)(params(), data)
    assert logits.shape == (2, 3, DECODER.vocab)
    everywhere = MODEL.decoder.apply({"params": params()["decoder"]}, hidden(data), method="logits")
    for b, s in np.ndindex(2, 3):
        np.testing.assert_allclose(logits[b, s], everywhere[b, data["target_positions"][b, s]], atol=1e-5)


def test_logits_where_only_asked_places_are_computed():
    asked = dataclasses.replace(MODEL, decoder=MODEL.decoder.clone(asked_only=True))
    np.testing.assert_allclose(jax.jit(asked.logits)(params(), batch()), jax.jit(MODEL.logits)(params(), batch()), atol=1e-4)


def test_the_image_reaches_only_its_own_row_and_what_follows():
    data, other = batch(), batch()
    data["image_slots"][:, 8:] = other["image_slots"][:, 8:] = -1
    other["pixels"][0, 1] = 255 - other["pixels"][0, 1]  # its tokens are at places 4 … 7
    same = np.isclose(hidden(data), hidden(other), atol=1e-6).all(axis=-1)
    np.testing.assert_array_equal(same[0], [True] * 4 + [False] * 8)
    assert same[1].all()


def test_tokens_made_before_stand_for_the_pixels():
    data = batch()
    made = jax.jit(MODEL.image_tokens)(params(), data["pixels"])
    np.testing.assert_allclose(hidden({key: value for key, value in data.items() if key != "pixels"} | {"image_tokens": made}), hidden(data), atol=1e-5)


def test_packed_questions_share_an_image_and_see_neither_each_other_nor_padding():
    """Row 0 packs two questions behind one image; row 1 holds the second of them alone."""
    data = batch()
    data["pixels"][1] = data["pixels"][0]
    data["image_slots"][:] = [[0, 1, 2, 3] + [-1] * 8] * 2
    data["segments"][:] = [[1, 1, 1, 1, 2, 2, 3, 3, 3, 0, 0, 0], [1, 1, 1, 1, 2, 2, 2, 0, 0, 0, 0, 0]]
    data["parents"][:] = [[0, 0, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0]]
    data["positions"][:] = [[0, 1, 2, 3, 4, 5, 4, 5, 6, 0, 0, 0], [0, 1, 2, 3, 4, 5, 6, 0, 0, 0, 0, 0]]
    data["tokens"][1, 4:7] = data["tokens"][0, 6:9]
    out = hidden(data)
    assert np.isfinite(out).all()
    np.testing.assert_allclose(out[0, 6:9], out[1, 4:7], atol=1e-5)


def test_text_only_has_no_image_branch():
    data = fake("next_token", dataclasses.replace(SHAPE, images=0), DECODER.vocab, ENCODER.tokens_per_image)
    language = VLM(None, None, MODEL.decoder)
    only = {"decoder": params()["decoder"]}
    assert str(jax.make_jaxpr(language.logits)(only, data)) == str(jax.make_jaxpr(MODEL.logits)(only, data))
