"""The floor by hand, and against what the traced step computes."""
import dataclasses

import jax
import pytest

from tests.train import tiny
from vlmjax import config as configs
from vlmjax.commands import plan
from vlmjax.commands.prepare import RunConfig
from vlmjax.plan import cost
from vlmjax.train import build, floor, flops

INSTRUCT = (("encoder/.*", False), (".*", True))
B, T, S, P, D, F, V = 8, 12, 4, 4, 16, 32, 48  # tests/train/tiny.py: rows, places, targets, patches, width, MLP, vocabulary
VIT_LAYER = 4 * D * D + 2 * D * F
LAYER = 4 * D * D + 3 * D * F
LAST = 2 * D * D * T + (2 * D * D + 3 * D * F) * S  # of the last layer only keys and values are computed for all places


def test_by_hand_where_the_projector_alone_learns():
    """2·N forward in the encoder; 4·N in the decoder, where gradients pass; 6·N in the projector, less what the first map reads, whose gradient nobody needs."""
    found = floor.stage(tiny.stage(trainable=tiny.ALIGN))
    patches, blocks = B * P, 2  # the third block of the encoder is not computed
    assert found["matrices"] == {"encoder": 2 * (8 * 8 * 3 * D * patches + blocks * VIT_LAYER * B * (P + 1)), "projector": (4 + 6) * D * D * patches,
                                 "decoder": 4 * (LAYER * B * T + LAST * B + V * D * B * S)}
    assert found["attention"] == {"encoder": 4 * (P + 1) ** 2 * D * B * blocks, "decoder": 3 * 4 * (T + S) * T * D * B}
    assert found["total"] == sum(found["matrices"].values()) + sum(found["attention"].values())
    assert floor.useful(found) == found["total"] - found["attention"]["decoder"] / 2  # the encoder sees all of its image


def test_by_hand_where_the_decoder_learns_too():
    found = floor.stage(tiny.stage(trainable=INSTRUCT))
    assert found["matrices"]["decoder"] == 6 * (LAYER * B * T + LAST * B + V * D * B * S)


def test_what_lies_before_a_window_does_not_count_as_useful():
    """Of T rows of T pairs each query reads at most W; W = T counts as no window does."""
    def found(window):
        parts = tiny.modules()
        parts["decoder"] = parts["decoder"].clone(config=dataclasses.replace(parts["decoder"].config, window=window))
        return floor.stage(tiny.stage(parts=parts))

    W, wide = 3, found(None)
    assert floor.useful(found(T)) == floor.useful(found(2 * T)) == floor.useful(wide) and found(W)["total"] == wide["total"]
    assert floor.useful(wide) - floor.useful(found(W)) == pytest.approx(wide["attention"]["decoder"] * (0.5 - (W / T - W**2 / (2 * T**2))))


def test_by_hand_where_most_places_are_supervised():
    """Nothing would be saved by computing the last layer for them alone."""
    found = floor.stage(tiny.stage(trainable=INSTRUCT, targets=T))
    assert found["matrices"]["decoder"] == 6 * (2 * LAYER * B * T + V * D * B * T) and found["attention"]["decoder"] == 3 * 4 * 2 * T * T * D * B


PATTERNS = {"projector": tiny.ALIGN, "all but the encoder": INSTRUCT, "all": ((".*", True),), "last block of the encoder": (("encoder/layers/1/.*", True), (".*", False)),
            "last layer": (("decoder/layers/1/.*", True), (".*", False)),
            "last norm": (("decoder/norm/.*", True), (".*", False))}


@pytest.mark.parametrize("trainable", PATTERNS.values(), ids=PATTERNS)
def test_the_traced_step_computes_the_floor_and_no_more(trainable):
    stage = tiny.stage(trainable=trainable)
    assert cost.count(stage) == pytest.approx(floor.stage(stage)["total"], rel=0.01)


@pytest.mark.parametrize("trainable", [((".*", True),), (("projector/pre_norm/.*", True), (".*", False)), ((r"encoder/layers/1/(norm1/.*|scale\d)", True), (".*", False))], ids=str)
def test_a_step_with_layer_scales_and_a_norm_before_the_projector_too(trainable):
    parts = tiny.modules()
    parts["encoder"] = parts["encoder"].clone(config=dataclasses.replace(parts["encoder"].config, layer_scale=0.1))
    parts["projector"] = parts["projector"].clone(config=dataclasses.replace(parts["projector"].config, norm=True))
    stage = tiny.stage(trainable=trainable, parts=parts)
    assert cost.count(stage) == pytest.approx(floor.stage(stage)["total"], rel=0.01)


Q, W, G = 3, 24, 40  # of tests/train/tiny.py's Q-Former: queries, width, MLP
QFORMER = {"linear map": ((r"projector/linear_0/.*", True), (".*", False)), "Q-Former": tiny.ALIGN, "all": ((".*", True),), "encoder": (("encoder/.*", True), (".*", False))}


def qformer_stage(**kwargs):
    return tiny.stage(parts=tiny.modules(projector=build.Component("test-qformer")), **kwargs)


@pytest.mark.parametrize("trainable", QFORMER.values(), ids=QFORMER)
def test_the_traced_step_of_a_qformer_too(trainable):
    stage = qformer_stage(trainable=trainable)
    assert cost.count(stage) == pytest.approx(floor.stage(stage)["total"], rel=0.01)


@pytest.mark.parametrize("learns", ["even/.*", "even/cross_attention/v/.*"])
def test_within_a_pair_a_step_computes_little_more_than_the_floor(learns):
    """The loop over pairs hands a gradient to what comes before a pair, wanted or not."""
    stage = qformer_stage(trainable=((f"projector/layers/1/{learns}", True), (".*", False)))
    assert 1.0 <= cost.count(stage) / floor.stage(stage)["total"] < 1.05


def test_by_hand_where_the_map_behind_a_qformer_learns():
    """Two pairs of layers: self-attention and MLP of all four read the queries; keys and values of two cross-attentions the patches and the class token."""
    found = floor.stage(qformer_stage(trainable=QFORMER["linear map"]))
    layers = 4 * (4 * W * W + 2 * W * G) * Q + 2 * (2 * W * W * Q + 2 * D * W * (P + 1))
    assert found["matrices"]["projector"] == B * (2 * layers + 4 * W * D * Q)
    assert found["attention"]["projector"] == 4 * B * W * (4 * Q * Q + 2 * Q * (P + 1))


@pytest.mark.parametrize("trainable", [((".*", True),), (("text_tower/.*", True), (".*", False)), (("contrast_head/.*", True), (".*", False))], ids=str)
def test_a_contrastive_step_too(trainable):
    stage = tiny.stage("contrast", objective="contrastive", trainable=trainable)
    assert cost.count(stage) == pytest.approx(floor.stage(stage)["total"], rel=0.02)


def test_accumulation_costs_nothing_and_text_alone_has_no_encoder():
    assert cost.count(tiny.stage(trainable=INSTRUCT, accumulate=4)) == cost.count(tiny.stage(trainable=INSTRUCT))
    stage = tiny.stage("language", trainable=(("decoder/.*", True), (".*", False)), images=0)
    assert set(floor.stage(stage)["matrices"]) == {"decoder"} and cost.count(stage) == pytest.approx(floor.stage(stage)["total"], rel=0.01)


def test_llava_at_its_true_size():
    """The first stage of LLaVA-1.5-7B, of which nothing is allocated: within 5 % of 2·N·n for the encoder, 4·N·T for the decoder, 6·N·n for the projector."""
    config = configs.build(RunConfig, configs.read("experiments/llava_1_5.py:vicuna-7b")[0])
    parts = cost.without_remat(plan.modules(config, "unused"))
    stage = build.stage("align", config.stages["align"], parts, config.precision, tiny.one_device(), 10)
    sizes = {name: sum(leaf.size for path, leaf in build.abstract_params(floor.parts(stage)).items() if path.startswith(name)) for name in stage.components}
    formula = 256 * (2 * sizes["encoder"] * 577 + 4 * sizes["decoder"] * 768 + 6 * sizes["projector"] * 576)
    found = floor.stage(stage)
    assert sizes["decoder"] == 6_738_415_616 and sum(found["matrices"].values()) == pytest.approx(formula, rel=0.05)
    assert cost.count(stage) == pytest.approx(found["total"], rel=0.001)
    with build.context(stage.mesh):
        shapes = set(values(jax.make_jaxpr(stage.step)(stage.abstract.learned, stage.abstract.frozen, stage.abstract_batch()).jaxpr))
    logits = {shape for shape in shapes if 32_000 in shape and len(shape) > 2}
    assert logits == {(256, 16, 32_000)}  # at sixteen of the 192 supervised places of a row at a time, and at none of the other 576
    assert cost.held(stage)["optimizer"] == {"encoder": 0, "projector": 2 * 4 * sizes["projector"], "decoder": 0}


def values(jaxpr):
    """Shapes of everything that is computed, in loops and branches too."""
    for eqn in jaxpr.eqns:
        yield from (var.aval.shape for var in eqn.outvars)
        for inner in flops._inner(eqn.params):
            yield from values(inner)
