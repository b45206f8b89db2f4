"""Slices of Cloud TPU by the names Cloud has for them: an allow-list, since the compiler also accepts shapes that no product has.

Source of the shapes, read in November 2026: cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e}. What a chip can do: train/chips.py.
"""
import dataclasses
import importlib.util
import math
import re
from typing import Any

from vlmjax.errors import UserError, did_you_mean
from vlmjax.train.chips import CHIPS, GIB, Chip

_SHAPES_2D = ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_SHAPES_3D = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8")
CHIPS_PER_HOST = 4  # as the compiler's topologies have it; a v5e or v6e machine may also hold 8


@dataclasses.dataclass(frozen=True)
class Topology:
    """A slice, or several of one shape: name as Cloud has it, behind `2x` for two; shape in chips, of one slice."""

    name: str
    kind: str
    shape: str
    slices: int = 1

    @property
    def chip(self) -> Chip:
        return CHIPS[self.kind]

    @property
    def chips(self) -> int:
        """Of all slices."""
        return self.slices * math.prod(int(side) for side in self.shape.split("x"))

    @property
    def hosts(self) -> int:
        return self.slices * -(-self.chips // self.slices // CHIPS_PER_HOST)

    @property
    def about(self) -> str:
        c = self.chip
        of = f"{self.slices} slices of {self.shape}, DCN {c.dcn_bandwidth / 1e9:g} GB/s a chip" if self.slices > 1 else self.shape
        return (f"{self.chips} chips ({of}), {self.hosts} hosts, each chip {c.hbm / GIB:.0f} GiB, {c.peak / 1e12:.0f} TFLOP/s in bf16, "
                f"HBM {c.hbm_bandwidth / 1e12:.2f} TB/s, ICI {c.ici_bandwidth / 1e9:.0f} GB/s")

    def devices(self) -> list[Any]:
        """What the compiler takes for the devices of this slice; nothing can run on them."""
        if importlib.util.find_spec("libtpu") is None:
            raise UserError("plan: compiles with libtpu, which is not installed; pip install 'vlmjax[tpu]'")
        from jax.experimental import topologies

        return list(topologies.get_topology_desc(f"{self.chip.platform}:{self.shape}", "tpu", **({"num_slices": self.slices} if self.slices > 1 else {}), **dict(self.chip.options)).devices)


def _listed() -> dict[str, Topology]:
    out = {}
    for kind, chip in ((kind, chip) for kind, chip in CHIPS.items() if chip.platform):
        for shape in _SHAPES_2D if chip.per_name == 1 else _SHAPES_3D:
            number = chip.per_name * math.prod(int(side) for side in shape.split("x"))
            out[f"{kind}-{number}"] = Topology(f"{kind}-{number}", kind, shape)
    return out


TOPOLOGIES = _listed()
OTHER_NAMES = {name.replace("v5e", "v5litepod"): name for name in TOPOLOGIES if name.startswith("v5e")}


def find(name: str) -> Topology:
    """A slice by name, or so many of them: `v5e-64`, `2xv5e-64`."""
    m = re.fullmatch(r"([1-9]\d*)x(.+)", name)
    slices, one = (int(m[1]), m[2]) if m else (1, name)
    known = OTHER_NAMES.get(one, one)
    if known not in TOPOLOGIES:
        raise UserError(f"--topology: no slice {one!r}{did_you_mean(one, (*TOPOLOGIES, *OTHER_NAMES), 3)} (vlmjax list topologies)")
    return several(TOPOLOGIES[known], slices)


def several(topology: Topology, slices: int) -> Topology:
    return dataclasses.replace(topology, name=f"{slices}x{topology.name}", slices=slices) if slices > 1 else topology


def larger(topology: Topology) -> list[Topology]:
    """As many slices of the same chips with more of them each, the smallest first."""
    return sorted((t for one in TOPOLOGIES.values() if one.kind == topology.kind and (t := several(one, topology.slices)).chips > topology.chips), key=lambda t: t.chips)
