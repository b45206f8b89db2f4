"""A stage that trains adapters: the same proofs, and a model that without them is the one it was."""
import dataclasses

import jax
import numpy as np
import pytest

from tests.train import tiny
from vlmjax import param_rules, sharding, stacks
from vlmjax.errors import UserError
from vlmjax.models import lora
from vlmjax.train import build, loop, step
from vlmjax.train.truth import Truth

LORA = lora.LoRAConfig(rank=2, alpha=4.0, dropout=0.1, targets=("attention/[qv]", "mlp/down"))
ADAPTERS = (("projector/.*", True), (".*_lora/.*", True), (".*", False))


def modules(config=LORA, encoder=None):
    component = lambda config: build.Component("test", lora=config)
    return build.modules(dataclasses.replace(tiny.MODEL, decoder=component(config), encoder=component(encoder), text_tower=None), 48, "float32")


def stage(mesh=None, config=LORA, encoder=None, **more):
    return tiny.stage("adapt", mesh, parts=modules(config, encoder), trainable=ADAPTERS, **more)


def begin(made, *configs):
    return Truth("unused", modules(*configs), {}, 0, made.mesh).load(made.components, ())


@pytest.fixture(scope="module")
def adapted():
    made = stage(steps=6)
    return made, made.compile()


def test_only_adapters_learn_and_the_rest_is_bitwise_what_it_was(tmp_path, adapted):
    made, compiled = adapted
    start = begin(made)
    before = {path: np.asarray(leaf) for path, leaf in start.items()}
    outcome = tiny.run(made, tmp_path, compiled=compiled, start=start)
    # q: 16 → 2·8, v: 16 → 2·8, down: 32 → 16, in each of 2 layers
    assert outcome.record["trainable"] == {"projector": 2 * (16 * 16 + 16), "decoder": 2 * 2 * ((16 + 16) * 2 + 32 + 16)}
    assert outcome.record["frozen_sha256"]["before"] == outcome.record["frozen_sha256"]["after"]
    assert outcome.record["optimizer_bytes"] == {"encoder": 0, "projector": 2 * 4 * 544, "decoder": 2 * 4 * 448}
    after = stacks.expand(param_rules.flatten(outcome.state.learned.trainable) | param_rules.flatten(outcome.state.frozen))
    learns = lambda path: path.startswith("projector/") or lora.is_adapter(path)
    assert all((learns(path) != np.array_equal(before[path], leaf)) for path, leaf in after.items())


def test_a_step_costs_less_than_one_of_everything(adapted):
    everything = tiny.stage(parts=modules(None), trainable=((".*", True),))
    assert loop.prove_before(adapted[0])["flops_per_step"] < 0.85 * loop.prove_before(everything)["flops_per_step"]


def test_an_interrupted_stage_draws_the_same_dropout(tmp_path, adapted):
    made, compiled = adapted
    start = lambda: begin(made)
    whole = tiny.run(made, tmp_path / "whole", compiled=compiled, every=2, start=start())

    def die(number, batch):
        if number == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny.run(made, tmp_path / "cut", data=tiny.FakeData(made, die), compiled=compiled, every=2, start=start())
    again = tiny.run(made, tmp_path / "cut", compiled=compiled, every=2, start=start())
    for a, b in zip(tiny.leaves(whole.state), tiny.leaves(again.state), strict=True):
        np.testing.assert_array_equal(a, b)


def test_only_a_stage_with_dropout_draws():
    draws = lambda made: "random_bits" in str(jax.make_jaxpr(made.step)(made.abstract.learned, made.abstract.frozen, made.abstract_batch()))
    assert draws(stage()) and not draws(stage(config=dataclasses.replace(LORA, dropout=0.0)))


@pytest.mark.slow
def test_eight_devices_have_the_gradients_of_one():
    everywhere = dataclasses.replace(LORA, dropout=0.0, targets=(".*",))
    rng = np.random.default_rng(0)

    def gradients(mesh):
        made = stage(mesh, everywhere, everywhere)
        train = loop.start_state(made, begin(made, everywhere, everywhere) | drawn)
        with build.context(mesh):
            found = jax.jit(step.gradients(made.loss, 1))(train.learned.trainable, train.frozen, jax.device_put(tiny.FakeData(made).batch(0), sharding.batch(mesh)))[1]
        return {path: np.asarray(leaf) for path, leaf in param_rules.flatten(found).items()}

    alone = tiny.one_device()
    paths = begin(stage(alone, everywhere, everywhere), everywhere, everywhere)
    drawn = {path: rng.normal(0, 0.1, leaf.shape).astype(np.float32) for path, leaf in paths.items() if path.endswith("_lora/b")}
    want, got = gradients(alone), gradients(sharding.make_mesh(sharding.MeshConfig(replica=2, fsdp=2, tensor=2)))
    assert len([path for path in want if lora.is_adapter(path)]) == 2 * 6 + 2 * 2 * 7  # the last layer of the decoder lies apart
    for path in want:
        assert np.linalg.norm(got[path] - want[path]) <= 1e-5 * np.linalg.norm(want[path]), path


def test_each_component_has_its_own_rate():
    def update(**more):
        made = stage(optimizer={"name": "sgd", "betas": (0.0, 0.0), "schedule": "constant", "warmup": 0.0, **more})
        ones = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), made.abstract.learned.trainable)
        return param_rules.flatten(made.optimizer.update(ones, made.optimizer.init(ones), ones)[0])

    even, slow = update(), update(lr_scale=(("projector/.*", 0.1), (".*", 1.0)))
    for path in even:
        np.testing.assert_allclose(slow[path], even[path] * (0.1 if path.startswith("projector/") else 1.0), rtol=1e-6)


def test_adapters_beside_nothing_are_refused():
    with pytest.raises(UserError, match="model.decoder.lora.targets: 'mlp/upp' matches no projection; nearest: mlp/up"):
        modules(dataclasses.replace(LORA, targets=("mlp/upp",)))
    with pytest.raises(UserError, match="model.projector.lora: adapters go beside the projections of layers, and a projector has none"):
        build.modules(dataclasses.replace(tiny.MODEL, projector=build.Component("mlp2x", lora=LORA)), 48, "float32")
