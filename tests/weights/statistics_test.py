import jax.numpy as jnp
import numpy as np
import pytest

from vlmjax.errors import UserError
from vlmjax.weights import statistics


def flat(**more):
    draw = np.random.default_rng(0)
    return {"decoder/embed": jnp.asarray(draw.normal(size=(30, 20)) * 0.5), "decoder/norm/scale": jnp.full(20, 3.0), "encoder/kernel": jnp.asarray(draw.normal(size=(20, 20)) * 0.02), **more}


def test_numbers_per_component():
    found = statistics.check(flat(), "m")
    assert found["decoder"].parameters == 620 and found["decoder"].largest == 3.0 and abs(found["decoder"].rms - 0.5) < 0.03
    assert abs(found["encoder"].rms - 0.02) < 0.002 and "400 parameters" in str(found["encoder"])


@pytest.mark.parametrize("damage, message", [
    ({"encoder/kernel": jnp.full((2, 2), jnp.nan)}, "encoder/kernel holds NaN"),
    ({"encoder/bias": jnp.array([1.0, jnp.inf])}, "encoder/bias holds NaN or infinity"),
    ({"encoder/kernel": jnp.zeros((2, 2))}, "encoder/kernel is zero everywhere"),
    ({"encoder/kernel": jnp.full((20, 20), 3e4)}, "matrices of encoder have a root mean square of 3e"),
])
def test_what_no_training_leaves_behind_is_refused(damage, message):
    with pytest.raises(UserError, match=f"^m: .*{message}"):
        statistics.check(flat(**damage), "m")
