import jax

from vlmjax.plan import topologies
from vlmjax.train import chips


def test_a_device_that_is_not_in_the_table_has_no_peak():
    assert chips.peak("TPU v5 lite") == 197e12 and chips.peak("NVIDIA H100 80GB HBM3") == 989e12
    assert chips.peak(jax.devices("cpu")[0].device_kind) is None and chips.peak("TPU v2") is None


def test_every_kind_is_of_one_chip():
    kinds = [kind for chip in chips.CHIPS.values() for kind in chip.kinds]
    assert len(kinds) == len(set(kinds)) and all(chip.peak > 1e14 for chip in chips.CHIPS.values())


def test_plans_read_the_same_table_and_only_what_comes_in_slices():
    assert topologies.CHIPS is chips.CHIPS
    assert {topology.kind for topology in topologies.TOPOLOGIES.values()} == {name for name, chip in chips.CHIPS.items() if chip.platform} == {"v4", "v5e", "v5p", "v6e"}
