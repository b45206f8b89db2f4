import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlmjax import optim, param_rules
from vlmjax.errors import UserError

PATHS = ["encoder/layers/0/w", "encoder/layers/1/w", "projector/kernel", "projector/bias"]
CONFIG = optim.OptimizerConfig(lr=0.1, decay=0.5)


def test_labels_carry_decay_and_learning_rate_by_rules():
    config = optim.OptimizerConfig(lr=0.1, decay=0.5, lr_scale=(("encoder/layers/1/.*", 0.1), (".*", 1.0)))
    labels = optim.labels(PATHS, (("encoder/layers/0/.*", False), (".*", True)), config, "s")
    assert labels["encoder/layers/0/w"] == optim.Label(False)
    assert labels["encoder/layers/1/w"] == optim.Label(True, 0.5, 0.1)
    assert labels["projector/bias"].decay == 0.0 and labels["projector/kernel"].decay == 0.5


@pytest.mark.parametrize("change, message", [
    (dict(decay=(("projector/krnel", 0.1), (".*", 0.0))), "s.optimizer.decay: the rule 'projector/krnel' matches no parameter"),
    (dict(lr_scale=(("projector/.*", 0.1),)), "s.optimizer.lr_scale: no rule covers the parameter 'encoder/layers/0/w'"),
])
def test_bad_rules(change, message):
    with pytest.raises(UserError, match=message):
        optim.labels(PATHS, ((".*", True),), optim.OptimizerConfig(lr=0.1, **change), "s")


def test_unknown_names_are_refused_with_the_nearest():
    labels = {p: optim.Label(True) for p in PATHS}
    with pytest.raises(UserError, match="optimizer.name: 'adam' is not known; did you mean 'adamw'"):
        optim.make(optim.OptimizerConfig(lr=1.0, name="adam"), labels, 10)
    with pytest.raises(UserError, match="schedule: 'cosin' is not known; did you mean 'cosine'"):
        optim.make(optim.OptimizerConfig(lr=1.0, schedule="cosin"), labels, 10)


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_every_optimizer_moves_the_trainable_and_keeps_no_state_for_the_rest(name):
    params = param_rules.unflatten({"encoder/layers/0-2/w": jnp.ones((2, 130, 140)), "projector/kernel": jnp.ones((130, 140))})
    labels = optim.labels([*PATHS[:3]], (("encoder/.*", False), (".*", True)), CONFIG, "s")
    trainable, frozen = optim.split(params, labels)
    assert trainable["encoder"]["layers"]["0-2"]["w"] is None and frozen["projector"]["kernel"] is None
    tx = optim.make(optim.OptimizerConfig(lr=0.1, name=name, decay=0.1, clip=1.0, warmup=0.0), labels, 10)
    state = tx.init(trainable)
    updates, state = tx.update(jax.tree.map(jnp.ones_like, trainable), state, trainable)
    assert jax.tree.structure(updates) == jax.tree.structure(trainable)
    assert float(jnp.abs(updates["projector"]["kernel"]).min()) > 0
    assert not [p for p in param_rules.flatten(state) if "encoder" in p]
    merged = optim.merge(trainable, frozen)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), merged, params))


def test_the_clip_sees_trainable_gradients_only_and_lr_scale_scales():
    labels = {"a/w": optim.Label(True), "b/w": optim.Label(True, lr_scale=0.5)}
    tx = optim.make(optim.OptimizerConfig(lr=1.0, name="sgd", betas=(0.0,), clip=1.0, warmup=0.0, schedule="constant"), labels, 10)
    params = {"a": {"w": jnp.zeros(1)}, "b": {"w": jnp.zeros(1)}}
    updates, _ = tx.update({"a": {"w": jnp.array([3.0])}, "b": {"w": jnp.array([4.0])}}, tx.init(params), params)
    np.testing.assert_allclose([updates["a"]["w"][0], updates["b"]["w"][0]], [-0.6, -0.4], rtol=1e-6)


def test_schedules_warm_up_from_zero_and_end_at_zero():
    for name, middle in (("cosine", 0.5), ("linear", 0.5), ("constant", 1.0)):
        lr = optim.schedule(optim.OptimizerConfig(lr=1.0, schedule=name, warmup=0.2), 100)
        assert float(lr(0)) == 0.0 and float(lr(20)) == 1.0
        np.testing.assert_allclose(lr(60), middle, atol=1e-6)
        np.testing.assert_allclose(lr(100), 1.0 if name == "constant" else 0.0, atol=1e-6)


@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_a_schedule_comes_down_to_the_last_rate(name):
    lr = optim.schedule(optim.OptimizerConfig(lr=1.0, schedule=name, warmup=0.2, last=0.4), 100)
    np.testing.assert_allclose([lr(20), lr(60), lr(100)], [1.0, 0.7, 0.4], rtol=1e-6)
    for wrong in (dict(last=2.0), dict(last=-0.1), dict(last=0.5, schedule="constant")):
        with pytest.raises(UserError, match="optimizer.last: .* is not what a .* schedule comes down to from 1.0"):
            optim.schedule(optim.OptimizerConfig(lr=1.0, **{"schedule": name, **wrong}), 100)


def test_a_warm_up_is_a_share_of_the_steps_or_a_number_of_them():
    share, number = (optim.schedule(optim.OptimizerConfig(lr=1.0, warmup=warmup), 100) for warmup in (0.05, 5.0))
    assert [float(share(step)) for step in range(100)] == [float(number(step)) for step in range(100)]
    with pytest.raises(UserError, match="optimizer.warmup: 2000 steps are more than the 100 of the stage"):
        optim.schedule(optim.OptimizerConfig(lr=1.0, warmup=2000.0), 100)
