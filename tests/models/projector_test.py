import jax
import numpy as np
import pytest

from tests.train import tiny  # noqa: F401: it has a small Q-Former among the variants
from vlmjax.commands import common
from vlmjax.errors import UserError
from vlmjax.models import decoder, init_params, projector, vit
from vlmjax.models.vlm import VLM


def test_neighbouring_patches_become_one_token():
    """Four by four patches of three channels, squares of two by two."""
    grid = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype(np.float32)
    tokens = np.asarray(projector.shuffle(grid.reshape(2, 16, 3), 2)).reshape(2, 2, 2, 12)
    for n, i, j in np.ndindex(2, 2, 2):
        square = grid[n, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        np.testing.assert_array_equal(tokens[n, i, j], np.concatenate([square[0, 0], square[0, 1], square[1, 0], square[1, 1]]))
    x = grid.reshape(2, 16, 3)
    assert projector.shuffle(x, 1) is x


@pytest.mark.parametrize("variant, tokens", [("test-qformer", 3), ("linear-join4", 4), ("linear", 16), ("mlp3x", 16), ("mlp2x-shuffle2", 4), ("mlp2x-shuffle4", 1)])
def test_layout_and_model_count_the_same_tokens(variant, tokens):
    encoder = vit.ViTConfig(size=32, patch=8, width=16, layers=1, heads=2, mlp=32, feature_layer=-1)
    kind = projector.VARIANTS[variant]
    parts = vit.ViT(encoder, (1,)), projector.make(kind, 16, 64), decoder.Decoder(decoder.VARIANTS["tiny-64"], (4,))
    params = jax.eval_shape(lambda: {name: init_params(part, jax.random.key(0)) for name, part in zip(("encoder", "projector", "decoder"), parts)})
    out = jax.eval_shape(VLM(*parts).image_tokens, params, jax.ShapeDtypeStruct((2, 3, 32, 32, 3), "uint8"))
    assert out.shape == (2, 3 * tokens, 64) and common.layout(encoder, kind, "crop").tokens_per_image == tokens
    assert params["projector"]["linear_0"]["kernel"].shape == (kind.width if kind.kind == "qformer" else 16 * kind.shuffle**2 * kind.join, 64)


def test_patches_of_a_row_become_one_token():
    """Two by four patches of three channels: runs of four are whole rows."""
    patches = np.random.default_rng(0).normal(size=(2, 8, 3)).astype(np.float32)
    module = projector.Projector(projector.VARIANTS["linear-join4"], 3, 5)
    params = jax.tree.map(np.asarray, init_params(module, jax.random.key(0)))
    want = patches.reshape(2, 2, 12) @ params["linear_0"]["kernel"] + params["linear_0"]["bias"]
    np.testing.assert_allclose(module.apply({"params": params}, patches), want, rtol=1e-5)


def test_patches_that_are_not_whole_squares_are_refused():
    with pytest.raises(UserError, match="3 patches in a row are not whole squares of 2"):
        common.layout(vit.ViTConfig(size=24, patch=8, width=16, layers=1, heads=2, mlp=32), projector.VARIANTS["mlp2x-shuffle2"], "crop")
    with pytest.raises(UserError, match="projector: 3 patches in a row are not whole runs of 4"):
        common.layout(vit.ViTConfig(size=24, patch=8, width=16, layers=1, heads=2, mlp=32), projector.VARIANTS["linear-join4"], "crop")
