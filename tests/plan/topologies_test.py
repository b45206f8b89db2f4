import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vlmjax.__main__ import main
from vlmjax.errors import UserError
from vlmjax.plan.hlo import Program
from vlmjax.plan.topologies import TOPOLOGIES, find, larger
from vlmjax.sharding import MeshConfig, make_mesh
from vlmjax.train.flops import PASSES


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


def test_several_slices_are_named_in_front():
    two = find("2xv5litepod-64")
    assert (two.name, two.slices, two.chips, two.hosts, two.shape) == ("2xv5e-64", 2, 128, 32, "8x8") and "128 chips (2 slices of 8x8, DCN 3.125 GB/s a chip), 32 hosts" in two.about
    assert find("1xv5e-64") == find("v5e-64") and find(two.name) == two and [t.name for t in larger(two)] == ["2xv5e-128", "2xv5e-256"]
    for wrong in ("0xv5e-64", "2xv5e-63"):
        with pytest.raises(Exception, match="no slice"):
            find(wrong)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed: pip install 'vlmjax[tpu]'")
def test_a_sum_over_replicas_goes_between_slices_and_over_fsdp_stays_within():
    mesh = make_mesh(MeshConfig(replica=2), find("2xv5e-4").devices())
    assert dict(mesh.shape) == {"replica": 2, "fsdp": 4, "tensor": 1}
    rows = jax.ShapeDtypeStruct((8 * 128, 256), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(("replica", "fsdp"))))
    total = lambda axis: Program(jax.jit(jax.shard_map(lambda x: jax.lax.psum(x, axis), mesh=mesh, in_specs=PartitionSpec(("replica", "fsdp")), out_specs=PartitionSpec(), check_vma=False)).lower(rows).compile().as_text())
    size = 128 * 256 * 4
    far, near = total("replica"), total("fsdp")
    assert far.between_slices(2) == {"all-reduce": {"count": 1, "bytes": size}} and not far.collectives()
    assert near.between_slices(2) == {} and near.collectives()["all-reduce"]["count"] == 1
    with pytest.raises(UserError, match="replica 1, fsdp -1, tensor 1 splits what one replica holds over 2 slices.*set mesh.replica to a multiple of 2"):
        make_mesh(MeshConfig(), find("2xv5e-4").devices())


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed: pip install 'vlmjax[tpu]'")
@pytest.mark.parametrize("name", ["v4-8", "v5e-4", "v5p-8", "v6e-4"])
def test_a_big_product_takes_the_cycles_of_the_peak(name):
    """What ties a chip's clock to its peak: the compiler expects 85 to 100 % of it; and what a plan takes for a product that reads float32."""
    topology, size = find(name), 4096
    one = jax.sharding.SingleDeviceSharding(topology.devices()[0])

    def cycles(*dtypes):
        arrays = [jax.ShapeDtypeStruct((size, size), dtype, sharding=one) for dtype in dtypes]
        product = jax.jit(lambda a, b: jax.lax.dot_general(a, b, (((1,), (0,)), ((), ())), precision="highest", preferred_element_type=jnp.float32).astype(jnp.bfloat16))
        return Program(product.lower(*arrays).compile().as_text()).cycles()[0]

    least = 2 * size**3 / topology.chip.peak * topology.chip.clock
    assert 0.85 < least / cycles(jnp.bfloat16, jnp.bfloat16) < 1
    if name == "v5e-4":
        for passes, dtypes in zip(PASSES[jax.lax.Precision.HIGHEST], ((jnp.float32, jnp.float32), (jnp.float32, jnp.bfloat16))):
            assert cycles(*dtypes) / cycles(jnp.bfloat16, jnp.bfloat16) == pytest.approx(passes, rel=0.05)
