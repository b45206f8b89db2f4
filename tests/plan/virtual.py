"""Virtual CPU devices that stand for a slice's chips, so that no libtpu is needed."""
import dataclasses

import jax

from vlmjax.plan import topologies


@dataclasses.dataclass(frozen=True)
class Slice(topologies.Topology):
    def devices(self):
        return jax.devices()[: self.chips]


FOUR = Slice("v5e-4", "v5e", "2x2")
