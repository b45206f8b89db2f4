"""Where parameters and moments lie on a mesh, and what is refused of one."""
import types

import jax
import pytest

from tests.train import tiny
from vlmjax import sharding
from vlmjax.errors import UserError
from vlmjax.models import decoder, vit

INSTRUCT = (("encoder/.*", False), (".*", True))


def test_only_replicas_may_lie_on_several_slices():
    """Devices by slice, as a job on two of them lists them."""
    devices = [types.SimpleNamespace(slice_index=number // 4) for number in range(8)]
    for shape in (dict(), dict(replica=1, tensor=4), dict(replica=4, fsdp=1, tensor=2, order=(0, 4, 1, 5, 2, 6, 3, 7))):
        order = shape.pop("order", range(8))
        with pytest.raises(UserError, match="over 2 slices, .*; set mesh.replica to a multiple of 2"):
            sharding.make_mesh(sharding.MeshConfig(**shape), [devices[n] for n in order])


@pytest.mark.parametrize("shape, message", [(dict(fsdp=3), "does not use exactly the 8 devices"), (dict(replica=-1, fsdp=-1), "at most one may be -1")])
def test_a_mesh_that_does_not_fit_the_devices_is_refused(shape, message):
    with pytest.raises(Exception, match=message):
        sharding.make_mesh(sharding.MeshConfig(**shape))


def test_a_dimension_that_an_axis_does_not_divide_stays_whole():
    mesh = sharding.make_mesh(sharding.MeshConfig(fsdp=4, tensor=2))
    place = sharding.parameters({"decoder/embed": jax.ShapeDtypeStruct((47, 16), "float32")}, mesh)["decoder/embed"]
    assert place.spec == jax.sharding.PartitionSpec(None, "fsdp")


@pytest.fixture
def wide(monkeypatch):
    """A language model of 80 MiB in float32, whose vocabulary is odd."""
    monkeypatch.setitem(decoder.VARIANTS, "test", decoder.DecoderConfig(vocab=40001, width=512, layers=2, heads=2, kv_heads=2, head_dim=8, mlp=32, tied=True))


def test_what_is_split_over_every_axis_is_not_counted():
    """Biases and norms are, and each moment beside its parameter; what learns nothing has none."""
    stage = tiny.stage(mesh=sharding.make_mesh(sharding.MeshConfig(fsdp=4, tensor=2)), trainable=INSTRUCT)
    leaves = stage.unsharded.leaves
    assert not [path for path in leaves if path.endswith(("q/kernel", "mlp/up/kernel", "decoder/embed", "linear_0/kernel"))]
    assert leaves["encoder/layers/0-2/norm1/bias"] == 2 * 16 * 4 * 7 // 8 and leaves["decoder/layers/0-1/norm1/scale"] == 3 * 16 * 4 * 7 // 8
    assert leaves["encoder/patch_embed/kernel"] == 8 * 8 * 3 * 16 * 4 * (2 - 1) // 8  # over fsdp alone
    assert list(leaves.values()) == sorted(leaves.values(), reverse=True)


@pytest.mark.parametrize("shape", [dict(fsdp=1), dict(replica=8, fsdp=1)], ids=str)
def test_a_mesh_that_splits_nothing_has_nothing_whole(shape):
    devices = jax.devices()[:shape.get("replica", 1)]
    assert not tiny.stage(mesh=sharding.make_mesh(sharding.MeshConfig(**shape), devices)).unsharded.leaves


def test_each_device_holds_what_is_counted(wide):
    """Of the state as it is placed, by the bytes of its shards."""
    mesh = sharding.make_mesh(sharding.MeshConfig(fsdp=4, tensor=2))
    stage = tiny.stage(mesh=mesh, trainable=INSTRUCT, max_unsharded=1.0)
    state = jax.jit(lambda: jax.tree.map(lambda leaf: jax.numpy.zeros(leaf.shape, leaf.dtype), stage.abstract), out_shardings=jax.tree.map(lambda leaf: leaf.sharding, stage.abstract))()
    leaves = [leaf for leaf in jax.tree.leaves((state.learned.trainable, state.learned.opt_state, state.frozen)) if leaf.ndim]
    assert stage.unsharded.held == sum(leaf.addressable_shards[0].data.nbytes for leaf in leaves)
    assert stage.unsharded.whole == pytest.approx(stage.unsharded.held - sum(leaf.nbytes for leaf in leaves) / 8, abs=len(leaves))


def test_what_should_have_been_split_is_refused(wide):
    """An odd vocabulary on a tensor axis is whole along it: three copies of it, the parameter and its moments."""
    mesh = sharding.make_mesh(sharding.MeshConfig(fsdp=2, tensor=4))
    assert tiny.stage(mesh=sharding.make_mesh(sharding.MeshConfig(fsdp=8)), trainable=INSTRUCT).unsharded.share < 0.01
    with pytest.raises(UserError) as refused:
        tiny.stage(mesh=mesh, trainable=INSTRUCT)
    message = str(refused.value)
    assert message.startswith("stages.align.max_unsharded: of the ") and "\n" not in message and "at most 5 % are tolerated" in message
    assert "MiB of decoder/embed [40001, 512]: 40001 does not divide over tensor 4" in message and message.endswith("take a mesh that divides these sizes, or raise stages.align.max_unsharded")
    assert tiny.stage(mesh=mesh, trainable=INSTRUCT, max_unsharded=0.8).unsharded.share > 0.7
    tiny.stage(mesh=mesh)  # frozen and without moments it is no more than 64 MiB


def test_a_leaf_that_no_rule_splits_says_so(monkeypatch):
    monkeypatch.setattr(sharding, "NEGLIGIBLE", 0)
    monkeypatch.setitem(vit.VARIANTS, "test", vit.ViTConfig(size=512, patch=8, width=16, layers=3, heads=2, mlp=32))
    with pytest.raises(UserError, match=r"MiB of encoder/position_embed \[409[67], 16\]: no rule splits it over fsdp;"):
        tiny.stage(mesh=sharding.make_mesh(sharding.MeshConfig(fsdp=8)))
