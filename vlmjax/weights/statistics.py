"""Do loaded parameters look like parameters? Numbers per component, and errors for what no training leaves behind."""
import dataclasses
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from vlmjax.errors import UserError

# Root mean square of a component's matrices. Wide on purpose: it is for files read in the wrong type or order, which are off by far more.
SANE_RMS = (1e-4, 10.0)


@dataclasses.dataclass(frozen=True)
class Statistics:
    """parameters: how many. rms: root mean square of the leaves with more than one axis. largest: greatest absolute value of all."""

    parameters: int
    rms: float
    largest: float

    def __str__(self) -> str:
        return f"{self.parameters:,} parameters, matrices' rms {self.rms:.4g}, largest value {self.largest:.4g}"


@jax.jit
def _of_leaf(leaf: jax.Array) -> jax.Array:
    x = leaf.astype(jnp.float32)
    return jnp.stack([jnp.sum(x * x), jnp.max(jnp.abs(x))])  # NaN and infinity go through both


def check(flat: Mapping[str, jax.Array], where: str) -> dict[str, Statistics]:
    """{path in memory: leaf} → {component: Statistics}. A leaf with NaN or infinity, a matrix of zeros, and a component whose matrices are
    outside SANE_RMS are errors that name it."""
    # One leaf after the other: sums over shards of several processes wait for each other, and on CPUs programs in flight together can start in another order in each.
    measured = {path: jax.device_get(_of_leaf(leaf)) for path, leaf in flat.items()}
    out = {}
    for path, (squares, largest) in measured.items():
        if not math.isfinite(squares) or not math.isfinite(largest):
            raise UserError(f"{where}: {path} holds NaN or infinity; is the file damaged?")
        if flat[path].ndim > 1 and largest == 0 and path.endswith("kernel"):
            raise UserError(f"{where}: {path} is zero everywhere; is the file damaged?")
    for name in dict.fromkeys(path.split("/")[0] for path in flat):
        own = [path for path in flat if path.startswith(f"{name}/")]
        matrices = [path for path in own if flat[path].ndim > 1]
        size = sum(flat[path].size for path in matrices)
        rms = math.sqrt(sum(float(measured[path][0]) for path in matrices) / max(size, 1))
        out[name] = Statistics(sum(flat[path].size for path in own), rms, max(float(measured[path][1]) for path in own))
        if matrices and not SANE_RMS[0] <= rms <= SANE_RMS[1]:
            raise UserError(f"{where}: the matrices of {name} have a root mean square of {rms:.3g}, trained ones lie within {SANE_RMS[0]:g} … {SANE_RMS[1]:g}; was the file read in its own type?")
    return out
