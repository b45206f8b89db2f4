"""The stage runner is handed wrong parts; each must stop it."""
import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.train import tiny
from vlmjax import optim, param_rules, sharding, stacks
from vlmjax.models import vit
from vlmjax.train import build, loop, proof, step
from vlmjax.train.proof import ProofError


def test_frozen_parameters_are_bitwise_unchanged_and_have_no_state(tmp_path):
    stage = tiny.stage()
    before = tiny.truth(stage)
    kept = {path: np.asarray(leaf) for path, leaf in before.items()}
    outcome = tiny.run(stage, tmp_path, start=before)
    after = stacks.expand(param_rules.flatten(optim.merge(outcome.state.learned.trainable, outcome.state.frozen)))
    for path, leaf in after.items():
        assert np.array_equal(np.asarray(leaf), kept[path]) == (not path.startswith("projector/")), path
    record = outcome.record
    assert record["frozen_sha256"]["before"] == record["frozen_sha256"]["after"]
    assert set(record["trainable"]) == {"projector"} and set(record["frozen"]) == {"encoder", "decoder"}
    assert record["optimizer_bytes"] == {"encoder": 0, "projector": 2 * 4 * record["trainable"]["projector"], "decoder": 0}


def _flip_a_bit(frozen):
    flat = param_rules.flatten(frozen)
    leaf = flat["decoder/norm/scale"]
    bits = jax.lax.bitcast_convert_type(leaf, jnp.uint32).at[3].set(jax.lax.bitcast_convert_type(leaf, jnp.uint32)[3] ^ 1)
    return flat | {"decoder/norm/scale": jax.lax.bitcast_convert_type(bits, leaf.dtype)}


def _swap_elements(frozen):
    flat = param_rules.flatten(frozen)
    leaf = flat["decoder/embed"]
    return flat | {"decoder/embed": leaf.at[0, 0].set(leaf[0, 1]).at[0, 1].set(leaf[0, 0])}


def _swap_layers(frozen):
    flat = param_rules.flatten(frozen)
    return flat | {path: leaf[::-1] for path, leaf in flat.items() if path.startswith("encoder/layers/")}


@pytest.fixture(scope="module")
def align():
    stage = tiny.stage()
    return stage, stage.compile()


@pytest.mark.parametrize("damage, named", [(_flip_a_bit, "decoder/norm/scale"), (_swap_elements, "decoder/embed"), (_swap_layers, "encoder/layers/0/attention/k/kernel")])
def test_a_step_that_changes_a_frozen_leaf_is_found_by_the_hash(tmp_path, align, damage, named):
    stage, compiled = align

    def wrong(learned, frozen, batch):
        now = int(learned.step)
        return *compiled(learned, frozen, batch), optim.split(param_rules.unflatten(damage(frozen)), stage.labels)[1] if now == 3 else frozen

    with pytest.raises(ProofError, match=f"frozen parameters changed during training, the first is {named}"):
        tiny.run(stage, tmp_path, compiled=_with_holes(stage, wrong))


def _with_holes(stage, wrong):
    """Puts the holes back that `param_rules.flatten` leaves out, so that only values differ."""
    def step(learned, frozen, batch):
        learned, values, damaged = wrong(learned, frozen, batch)
        flat = param_rules.flatten(damaged)
        return learned, values, jax.tree_util.tree_map_with_path(lambda path, _: flat["/".join(k.key for k in path)], frozen)
    return step


def test_a_step_that_differentiates_everything_is_found_by_its_flops(tmp_path):
    stage = tiny.stage()

    def gradients_of_all(trainable, frozen, batch):
        everything = jax.grad(lambda params: stage.loss(params, batch)[0])(optim.merge(trainable, frozen))
        return optim.split(everything, stage.labels)[0]

    def wrong(learned, frozen, batch):
        grads = gradients_of_all(learned.trainable, frozen, batch)
        updates, opt_state = stage.optimizer.update(grads, learned.opt_state, learned.trainable)
        return learned.replace(trainable=optax.apply_updates(learned.trainable, updates), opt_state=opt_state), {}

    with pytest.raises(ProofError, match="it differentiates frozen parameters"):
        tiny.run(dataclasses.replace(stage, step=wrong), tmp_path)


def test_an_optimizer_with_state_for_a_frozen_component_is_found_by_its_bytes(tmp_path):
    stage = tiny.stage()
    everything = optim.merge(stage.abstract.learned.trainable, stage.abstract.frozen)
    opt_state = jax.eval_shape(optax.adamw(1e-3, weight_decay=0.1).init, everything)
    wrong = dataclasses.replace(stage, abstract=stage.abstract.replace(learned=stage.abstract.learned.replace(opt_state=opt_state)))
    with pytest.raises(ProofError, match="the optimizer keeps state for the frozen parameter (encoder|decoder)/"):
        tiny.run(wrong, tmp_path)


def test_a_trainable_leaf_behind_a_stop_gradient_is_found_before_the_first_step(tmp_path):
    stage = tiny.stage(trainable=((".*", True),))
    def loss(params, batch, key=None):
        return stage.loss({**params, "encoder": jax.lax.stop_gradient(params["encoder"])}, batch)
    program = step.make(loss, stage.optimizer, optim.schedule(stage.config.optimizer, stage.steps), 1)
    with pytest.raises(ProofError, match="the loss does not depend on the trainable parameter encoder/"):
        tiny.run(dataclasses.replace(stage, loss=loss, step=program), tmp_path)


def test_a_trainable_layer_that_the_loss_does_not_reach_is_found(tmp_path):
    """The last block of the encoder is left in the state although the feature is read before it: only weight decay would move it."""
    stage = tiny.stage(trainable=((".*", True),))
    def loss(params, batch, key=None):
        layers = jax.tree.map(lambda leaf: leaf.at[1].set(jax.lax.stop_gradient(leaf[1])), params["encoder"]["layers"])
        return stage.loss({**params, "encoder": {**params["encoder"], "layers": layers}}, batch)
    program = step.make(loss, stage.optimizer, optim.schedule(stage.config.optimizer, stage.steps), 1)
    with pytest.raises(ProofError, match=r"the trainable parameter encoder/layers/1/\S+ had no gradient in 5 steps"):
        tiny.run(dataclasses.replace(stage, loss=loss, step=program), tmp_path)


def test_a_truth_that_was_stacked_in_the_wrong_order_is_found(tmp_path, monkeypatch):
    stage = tiny.stage()
    right = stacks.place
    monkeypatch.setattr(loop.stacks, "place", lambda *args: {p: leaf[::-1] if stacks.is_stacked(p) else leaf for p, leaf in right(*args).items()})
    with pytest.raises(ProofError, match="between their source and the first step"):
        tiny.run(stage, tmp_path)


@pytest.mark.parametrize("shape, stacked", [((), False), ((7,), False), ((48, 16), False), ((4,), True), ((4, 16), True), ((4, 16, 4, 8), True)])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "int8", "bool"])
def test_the_host_and_the_program_add_up_the_same(monkeypatch, shape, stacked, dtype):
    leaf = jnp.asarray(np.random.default_rng(len(shape)).integers(0, 2 if dtype == "bool" else 100, shape)).astype(dtype)
    tree = {"decoder/layers/0-4/norm1/scale" if stacked else "decoder/embed": leaf}
    want = proof.digests(param_rules.unflatten(tree))
    monkeypatch.setattr(proof, "_BLOCK", 3)
    assert want == proof.digests(param_rules.unflatten(tree))
    monkeypatch.setattr(proof, "_on_host", lambda leaf: False)
    assert want == proof.digests(param_rules.unflatten(tree))


@pytest.mark.parametrize("on_host", [True, False])
def test_the_digest_is_the_same_for_every_mesh_and_cut(monkeypatch, on_host):
    monkeypatch.setattr(proof, "_on_host", lambda leaf: on_host)
    rng = np.random.default_rng(0)
    whole = {"decoder/layers/0-4/attention/q/kernel": rng.normal(size=(4, 16, 4, 8)).astype("f"), "decoder/embed": rng.normal(size=(48, 16)).astype("f")}
    want = proof.digests(param_rules.unflatten(whole))
    mesh = sharding.make_mesh(sharding.MeshConfig(replica=2, fsdp=2, tensor=2))
    placed = jax.device_put(whole, sharding.parameters(whole, mesh))
    assert not placed["decoder/embed"].is_fully_replicated
    cut = stacks.collect(stacks.expand(whole), ["decoder/layers/0-1/attention/q/kernel", "decoder/layers/1-4/attention/q/kernel", "decoder/embed"])
    assert want == proof.digests(param_rules.unflatten(placed)) == proof.digests(param_rules.unflatten(cut))
    monkeypatch.setattr(proof, "_AT_ONCE", 40)  # large leaves go in pieces, the last of another size
    monkeypatch.setattr(proof, "_BLOCK", 40)
    assert want == proof.digests(param_rules.unflatten(placed)) == proof.digests(param_rules.unflatten(cut))
    assert proof.sha256(want) != proof.sha256(want | {"decoder/embed": want["decoder/embed"][:-1] + "x"})


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "int32", "bool"])
def test_every_type_and_element_counts(dtype):
    a = jnp.arange(6).astype(dtype).reshape(2, 3)
    b = a.at[1, 2].set((a[1, 2] + 1).astype(dtype) if dtype != "bool" else ~a[1, 2])
    assert proof.digests({"x": a}) == proof.digests({"x": a + 0 if dtype != "bool" else a})
    assert proof.digests({"x": a}) != proof.digests({"x": b})


def test_rules_that_match_nothing_or_cover_too_little_are_refused():
    with pytest.raises(Exception, match="the rule 'projektor/.*' matches no parameter; nearest: projector/linear_"):
        tiny.stage(trainable=(("projektor/.*", True), (".*", False)))
    with pytest.raises(Exception, match="stages.align.trainable: no rule covers the parameter"):
        tiny.stage(trainable=(("projector/.*", True),))
    with pytest.raises(Exception, match="nothing would learn"):
        tiny.stage(trainable=((".*", False),))
