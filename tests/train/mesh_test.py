"""Eight devices in three shapes compute what one device computes."""
import re

import jax
import numpy as np
import pytest

from tests.train import tiny
from vlmjax import losses, optim, param_rules, sharding
from vlmjax.models.vlm import merge, pick
from vlmjax.train import build, loop, step

MESHES = [dict(fsdp=8), dict(replica=2, fsdp=2, tensor=2), dict(replica=1, fsdp=4, tensor=2)]
INSTRUCT = (("encoder/.*", False), (".*", True))  # as in loop_test, and as many steps: on one device the same program


def five_steps(mesh, **changes):
    """→ (gradients of the first step, losses of five steps)."""
    stage = tiny.stage(mesh=mesh, trainable=INSTRUCT, steps=6, **changes)
    train, data, compiled = loop.start_state(stage, tiny.truth(stage)), tiny.FakeData(stage), stage.compile()
    place = lambda s: jax.device_put(data.batch(s), sharding.batch(mesh))
    with build.context(mesh):
        (_, count, _), grads = jax.jit(step.gradients(stage.loss, 1))(train.learned.trainable, train.frozen, place(0))
    grads = {path: np.asarray(leaf) / float(count) for path, leaf in param_rules.flatten(grads).items()}
    losses = []
    for s in range(5):
        train, values = loop.advance(compiled, train, place(s))
        losses.append(float(values["loss"]))
    return grads, losses, train


@pytest.fixture(scope="module")
def alone():
    return five_steps(tiny.one_device())


@pytest.mark.parametrize("shape", MESHES, ids=str)
def test_the_losses_of_one_device_come_out(alone, shape):
    grads, losses, train = five_steps(sharding.make_mesh(sharding.MeshConfig(**shape)))
    for path, want in alone[0].items():
        assert np.linalg.norm(grads[path] - want) <= 1e-5 * np.linalg.norm(want), path
    np.testing.assert_allclose(losses, alone[1], rtol=1e-4)
    kernel = param_rules.flatten(train.learned.trainable)["decoder/layers/0-1/mlp/up/kernel"]
    assert kernel.addressable_shards[0].data.size * 8 == kernel.size * shape.get("replica", 1)
    moments = {path: leaf for path, leaf in param_rules.flatten(train.learned.opt_state).items() if path.endswith("/0-1/mlp/up/kernel")}
    assert len(moments) == 2 and all(leaf.sharding == kernel.sharding for leaf in moments.values())


def test_splash_on_a_mesh_gives_the_losses_of_the_plain_attention(alone):
    """Interpreted, rows and heads split over devices, the row padded to the kernel's tiles; the stage says what it runs."""
    mesh = sharding.make_mesh(sharding.MeshConfig(replica=2, fsdp=2, tensor=2))
    assert tiny.stage(mesh=mesh, attention="splash").attention.startswith("splash (Pallas)") and tiny.stage(mesh=mesh).attention == "plain (XLA)"
    grads, losses, _ = five_steps(mesh, attention="splash")
    for path, want in alone[0].items():
        assert np.linalg.norm(grads[path] - want) <= 1e-5 * np.linalg.norm(want), path
    np.testing.assert_allclose(losses, alone[1], rtol=1e-4)


def test_logits_in_chunks_on_a_mesh_give_the_losses_of_all_at_once(alone, monkeypatch):
    """Two places of a row at a time, and not one collective more: gradients of the head are summed over devices once, not in each chunk."""
    mesh = sharding.make_mesh(sharding.MeshConfig(fsdp=4, tensor=2))
    made = lambda: tiny.stage(mesh=mesh, trainable=INSTRUCT, steps=6)
    collectives = lambda: len(re.findall(r" (?:all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)\(", made().compile().as_text()))
    at_once = collectives()
    monkeypatch.setattr(losses, "chunks", lambda *args: 2)
    program = str(made().traced.jaxpr)
    assert "f32[4,2,2,48]" in program and "f32[8,4,48]" not in program  # by groups of rows, rows of a group, places
    assert collectives() == at_once
    grads, found, _ = five_steps(mesh)
    for path, want in alone[0].items():
        assert np.linalg.norm(grads[path] - want) <= 1e-5 * np.linalg.norm(want), path
    np.testing.assert_allclose(found, alone[1], rtol=1e-4)


def test_gradient_accumulation_changes_nothing_but_the_order_of_sums(alone):
    stage = tiny.stage(trainable=INSTRUCT, steps=6, accumulate=4)
    train, data, compiled = loop.start_state(stage, tiny.truth(stage)), tiny.FakeData(stage), stage.compile()
    losses = []
    for s in range(5):
        train, values = loop.advance(compiled, train, data.batch(s))
        losses.append(float(values["loss"]))
    np.testing.assert_allclose(losses, alone[1], rtol=1e-4)


def test_merge_and_pick_compile_without_a_collective():
    """With rows split over the mesh each device gathers from its own rows."""
    mesh = sharding.make_mesh(sharding.MeshConfig(replica=2, fsdp=4))
    rows = lambda dtype, *dims: jax.ShapeDtypeStruct((8, *dims), dtype, sharding=sharding.batch(mesh))
    def program(text, image, slots, places):
        return pick(merge(text, image, slots), places)
    lowered = jax.jit(program, out_shardings=sharding.batch(mesh)).lower(rows("float32", 12, 16), rows("float32", 4, 16), rows("int32", 12), rows("int32", 4))
    text = lowered.compile().as_text()
    assert not [name for name in ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter") if name in text]
    control = jax.jit(program, out_shardings=sharding.replicated(mesh)).lower(rows("float32", 12, 16), rows("float32", 4, 16), rows("int32", 12), rows("int32", 4))
    assert "all-gather" in control.compile().as_text()  # the reader above would see one


def test_activations_keep_their_rows_on_their_device():
    """Without constraints the partitioner may split the width of activations as parameters are split, and gather the whole batch on every device."""
    text = tiny.stage(mesh=sharding.make_mesh(sharding.MeshConfig(fsdp=4, tensor=2)), trainable=INSTRUCT).lower().as_text()
    constraints = [line for line in text.splitlines() if "sharding_constraint" in line]
    assert any('[{"replica", "fsdp"}, {}, {}]> : tensor<8x12x16x' in line for line in constraints)  # between layers
    assert any('[{"replica", "fsdp"}, {}, {"tensor"}, {}]>' in line for line in constraints)  # heads
    assert not [line for line in constraints if "tensor<8x12x16x" in line and '{"replica", "fsdp"}' not in line]


def test_rows_must_divide():
    with pytest.raises(Exception, match="stages.align.batch: 12 rows do not divide over 8"):
        tiny.stage(mesh=sharding.make_mesh(sharding.MeshConfig()), batch=12)
    with pytest.raises(Exception, match="accumulate: 2 would change the contrastive loss"):
        tiny.stage(objective="contrastive", trainable=((".*", True),), accumulate=2)


def test_optimizer_state_of_a_frozen_component_is_never_made():
    stage = tiny.stage(optimizer={"name": "lion"})
    assert {p.split("/")[-3] for p in param_rules.flatten(stage.abstract.learned.opt_state) if "kernel" in p} == {"projector"}
    assert isinstance(stage.labels["projector/linear_0/kernel"], optim.Label)


@pytest.mark.slow
def test_the_contrastive_loss_sees_all_rows_of_all_devices():
    def losses(mesh):
        stage = tiny.stage("contrast", mesh=mesh, objective="contrastive", trainable=((".*", True),), steps=8)
        train, data, compiled = loop.start_state(stage, tiny.truth(stage)), tiny.FakeData(stage), stage.compile()
        out = []
        for s in range(3):
            train, values = loop.advance(compiled, train, jax.device_put(data.batch(s), sharding.batch(mesh)))
            out.append([float(values["loss"]), *(float(v) for k, v in values.items() if k.startswith("grad_norm"))])
        return out

    np.testing.assert_allclose(losses(sharding.make_mesh(sharding.MeshConfig(replica=2, fsdp=2, tensor=2))), losses(tiny.one_device()), rtol=1e-4)
