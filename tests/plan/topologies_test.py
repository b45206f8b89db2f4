import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vlmjax.__main__ import main
from vlmjax.plan.hlo import Program
from vlmjax.plan.topologies import TOPOLOGIES, find, larger


@pytest.mark.parametrize("name, chips, hosts, shape", [("v4-64", 32, 8, "2x4x4"), ("v4-8", 4, 1, "2x2x1"), ("v5e-16", 16, 4, "4x4"), ("v5litepod-64", 64, 16, "8x8"), ("v5e-256", 256, 64, "16x16"),
                                                       ("v5p-64", 32, 8, "2x4x4"), ("v6e-64", 64, 16, "8x8")])
def test_names_count_what_cloud_counts(name, chips, hosts, shape):
    """v4 and v5p count cores, two to a chip; v5e and v6e count chips."""
    found = find(name)
    assert (found.chips, found.hosts, found.shape) == (chips, hosts, shape)


def test_an_unknown_slice_is_refused_with_the_nearest():
    with pytest.raises(Exception, match=r"no slice 'v5e-63'; did you mean 'v5e-64' or .*vlmjax list topologies") as error:
        find("v5e-63")
    assert "\n" not in str(error.value)


def test_larger_slices_come_in_order():
    assert [t.name for t in larger(find("v5e-64"))] == ["v5e-128", "v5e-256"]


def test_without_libtpu_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Exception, match=r"pip install 'vlmjax\[tpu\]'"):
        find("v5e-4").devices()


def test_they_are_listed(capsys):
    assert main(["list", "topologies"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(TOPOLOGIES) and any(line.startswith("v4-64 ") and "32 chips (2x4x4), 8 hosts" in line for line in lines)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed: pip install 'vlmjax[tpu]'")
@pytest.mark.parametrize("name", ["v4-8", "v5e-16", "v5p-64", "v6e-8"])
def test_the_compiler_has_as_many_devices_as_the_slice_has_chips(name):
    devices = find(name).devices()
    assert len(devices) == find(name).chips and len({d.process_index for d in devices}) == find(name).hosts
    assert find(name).chip.usable > 0 and {d.device_kind for d in devices} <= set(find(name).chip.kinds)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed: pip install 'vlmjax[tpu]'")
def test_the_compiler_makes_an_all_reduce_and_a_slice_of_a_reduce_scatter():
    """Why a plan shows twice the bytes for gradients that are split over 64 chips and more (launch/README.md): the program cannot ask for less. When this fails,
    that paragraph is out of date."""
    mesh = Mesh(np.array(find("v5e-64").devices()), ("fsdp",))
    rows = jax.ShapeDtypeStruct((64 * 512, 256), jnp.bfloat16, sharding=NamedSharding(mesh, PartitionSpec("fsdp")))
    scatter = jax.shard_map(lambda x: jax.lax.psum_scatter(x, "fsdp", scatter_dimension=0, tiled=True), mesh=mesh, in_specs=PartitionSpec("fsdp"), out_specs=PartitionSpec("fsdp"))
    lowered = jax.jit(scatter).lower(rows)
    assert "reduce_scatter" in lowered.as_text()
    found = Program(lowered.compile().as_text()).collectives()
    assert set(found) == {"all-reduce"} and found["all-reduce"]["count"] == 1
