import dataclasses

import pytest

from tests.train import tiny
from vlmjax.plan import cost, kept
from vlmjax.sharding import MeshConfig, make_mesh
from vlmjax.train import floor

B, T, S, P, D, L = 8, 12, 4, 4, 16, 2  # tests/train/tiny.py
INSTRUCT = (("encoder/.*", False), (".*", True))


def parts(remat):
    return {name: part.clone(remat=remat) if hasattr(part, "remat") else part for name, part in tiny.modules().items()}


def stack(found, name):
    """Shapes of what the layers of a component keep."""
    return sorted(shape for shape, _, scope in found if f"{name})/layers" in scope and kept.ROWS in shape)


def test_with_full_remat_a_layer_keeps_its_input_and_its_softmaxs_two_numbers():
    found = kept.residuals(tiny.stage(parts=parts("full"), trainable=INSTRUCT, targets=T))
    assert stack(found, "Decoder") == [(L, kept.ROWS, 2, T, 1), (L, kept.ROWS, 2, T, 1), (L, kept.ROWS, T, D)]
    # Where few places are supervised, the last layer has queries at these alone.
    alone = kept.residuals(tiny.stage(parts=parts("full"), trainable=INSTRUCT))
    assert stack(alone, "Decoder") == sorted([(1, kept.ROWS, 2, n, 1) for n in (S, S, T, T)] + 2 * [(1, kept.ROWS, T, D)])
    assert not stack(found, "ViT")  # frozen, and nothing below it learns


def test_bytes_are_those_of_a_micro_batch_on_one_device():
    stage = tiny.stage(parts=parts("full"), trainable=INSTRUCT)
    layers = 4 * L * (B * T * D + 2 * B * 2 * T)
    whole = kept.stage(stage)
    assert set(whole) == {"encoder", "projector", "decoder", kept.REST} and whole["encoder"] == 0 and whole["decoder"] > layers
    assert whole["decoder"] < layers + 6 * 4 * B * T * D and whole["projector"] > 4 * B * P * D
    eight = kept.stage(tiny.stage(parts=parts("full"), trainable=INSTRUCT, mesh=make_mesh(MeshConfig())))
    four = kept.stage(tiny.stage(parts=parts("full"), trainable=INSTRUCT, accumulate=4))
    assert eight == pytest.approx({name: size / 8 for name, size in whole.items()}, abs=8) and four == pytest.approx({name: size / 4 for name, size in whole.items()}, abs=8)


def test_without_remat_more_is_kept_and_less_learns_less():
    full, none = (kept.stage(tiny.stage(parts=parts(remat), trainable=INSTRUCT)) for remat in ("full", "none"))
    assert none["decoder"] > 2 * full["decoder"]
    last = kept.stage(tiny.stage(trainable=(("decoder/norm/.*", True), (".*", False))))
    assert last["projector"] == 0 and last["decoder"] < full["decoder"]


def test_a_stage_that_reads_features_is_planned_without_its_encoder():
    whole, apart = (tiny.stage(parts=parts("full"), trainable=INSTRUCT, encode_once=once) for once in (False, True))
    found, plain = kept.stage(apart), kept.stage(whole)
    assert set(found) == {"projector", "decoder", kept.REST} and found["decoder"] == plain["decoder"] and found["projector"] <= plain["projector"] + 4 * B * P * D
    before, after = floor.stage(whole), floor.stage(apart)
    assert after["total"] == before["total"] - before["matrices"]["encoder"] - before["attention"]["encoder"] and after["matrices"]["projector"] == before["matrices"]["projector"]
    assert cost.held(apart)["batch_bytes"] - cost.held(whole)["batch_bytes"] == B * (P * D * 4 - 16 * 16 * 3) and "encoder" not in cost.held(apart)["parameters"]
    assert cost.count(apart) < cost.count(whole)


def test_similarities_are_divided_once():
    stage = tiny.stage("contrast", objective="contrastive", trainable=((".*", True),), mesh=make_mesh(MeshConfig()))
    found = kept.stage(stage)
    assert set(found) == {"encoder", "text_tower", "contrast_head", kept.REST} and min(found["encoder"], found["text_tower"], found[kept.REST]) > 0
    assert any(sum(dim == kept.ROWS for dim in shape) == 2 for shape, _, _ in kept.residuals(dataclasses.replace(stage)))
