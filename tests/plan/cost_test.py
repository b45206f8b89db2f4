import dataclasses
import re

import pytest

from tests.plan.virtual import FOUR
from tests.train import tiny
from vlmjax.errors import UserError
from vlmjax.models import decoder, vit
from vlmjax.plan import changes, cost
from vlmjax.plan.topologies import find
from vlmjax.sharding import MeshConfig, make_mesh
from vlmjax.train import build

INSTRUCT = (("encoder/.*", False), (".*", True))


@pytest.mark.parametrize("mesh, chips, batches, expected, note", [
    (MeshConfig(), 32, (256, 128), MeshConfig(1, 32, 1), ""),
    (MeshConfig(replica=2), 64, (128,), MeshConfig(2, 32, 1), ""),
    (MeshConfig(), 256, (256, 128), MeshConfig(1, 128, 2), "b's 128 rows do not divide over replica x fsdp 256: planned with tensor 2, fsdp 128"),
    (MeshConfig(), 256, (32,), MeshConfig(1, 32, 8), "a's 32 rows do not divide over replica x fsdp 256: planned with tensor 8, fsdp 32"),
])  # fmt: skip
def test_the_mesh_is_the_configs_or_has_a_tensor_axis(mesh, chips, batches, expected, note):
    assert cost.choose_mesh(mesh, chips, {name: tiny.config(batch=batch) for name, batch in zip("ab", batches)}) == (expected, note)


def test_rows_that_cannot_divide_name_the_idle_chips():
    with pytest.raises(UserError, match="a's 12 rows do not divide over replica x fsdp 256, nor with a tensor axis: 12 chips would have rows, 244 of 256 no work"):
        cost.choose_mesh(MeshConfig(), 256, {"a": tiny.config(batch=12)})
    with pytest.raises(UserError, match="fsdp 8, tensor 1 does not use exactly the 32 chips"):
        cost.choose_mesh(MeshConfig(fsdp=8), 32, {"a": tiny.config(batch=64)})


def test_micro_batches_must_divide_too():
    assert cost.choose_mesh(MeshConfig(), 64, {"a": tiny.config(batch=128, accumulate=4)})[0] == MeshConfig(1, 32, 2)


def test_bytes_held_are_those_of_one_device():
    """Frozen parameters have no optimizer bytes; what fsdp divides is an eighth on each of eight devices."""
    one, eight = (cost.held(tiny.stage(mesh=mesh, trainable=tiny.ALIGN)) for mesh in (tiny.one_device(), make_mesh(MeshConfig())))
    assert one["optimizer"]["encoder"] == one["optimizer"]["decoder"] == 0 and one["optimizer"]["projector"] == 2 * one["parameters"]["projector"]
    assert one["trainable"] == {"encoder": 0, "projector": one["parameters"]["projector"], "decoder": 0}
    assert eight["batch_bytes"] * 8 == one["batch_bytes"] and one["parameters"]["projector"] / 8 < eight["parameters"]["projector"] < one["parameters"]["projector"] / 4


@pytest.mark.parametrize("message, gib", [
    ("RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (42.82G) exceeds available HBM (30.75G).", 42.82),
    ("RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 34.43G of 15.75G hbm. Exceeded hbm capacity by 18.68G.\nTotal hbm usage", 34.43),
    ("CompileTimeHbmOom: the program needs 34.43G which exceeds 15.75G", 34.43)])  # fmt: skip
def test_a_refusal_for_memory_gives_its_number(message, gib):
    found = cost.refusal(message)
    assert found["needs"] == int(gib * 2**30) and "\n" not in found["message"]


def test_the_roofline_is_the_longest_of_three():
    counted = {"counted": 32 * 275e12, "passes": 32 * 275e12, "floor": {"total": 20 * 275e12, "attention": {"encoder": 275e12, "decoder": 8 * 275e12}}}  # of 8, 4 count: half of causal attention
    one = {"flops": counted, "traffic": 0, "dcn": {}}
    roof = cost.roofline({**one, "collectives": {"all-gather": {"count": 1, "bytes": 0}}}, find("v4-64"))
    assert roof["step"] == pytest.approx(1.0) and roof["bound"] == "compute" and roof["mfu"] == pytest.approx(0.5) and roof["calibrated"] is False
    far = cost.roofline({**one, "collectives": {}, "dcn": {"all-reduce": {"count": 1, "bytes": 25e9}}}, find("2xv4-32"))
    assert far["step"] == pytest.approx(4.0) and far["bound"] == "dcn" and far["compute"] == pytest.approx(1.0)
    roof = cost.roofline({**one, "collectives": {"all-gather": {"count": 1, "bytes": 600e9}}}, find("v4-64"))
    assert roof["step"] == pytest.approx(2.0) and roof["bound"] == "ici" and roof["mfu"] == pytest.approx(0.25)
    run = cost.run_time({"flops": counted, "steps": 900, "batch": 4, "roofline": roof}, find("v4-64"), 0.5)
    assert run["stage"] == pytest.approx(1800) and run["chip_hours"] == pytest.approx(16) and run["examples_per_day"] == pytest.approx(86400 * 2)


def test_changes_keep_the_global_batch_and_divide():
    parts = {name: part.clone(remat="dots") if hasattr(part, "remat") else part for name, part in tiny.modules().items()}
    found = list(changes.candidates("align", tiny.config(batch=128), parts, MeshConfig(1, 32, 1)))
    assert found[0].flags == ("--config.compile.remat=full",) and all(change.remat == "full" for change in found)
    assert found[0].modules(parts)["decoder"].remat == "full"
    assert all(change.config.batch == 128 and 128 % (change.mesh.replica * change.mesh.fsdp * change.config.accumulate) == 0 for change in found)
    assert {change.config.accumulate for change in found} == {1, 2, 4, 8} and {change.mesh.tensor for change in found} == {1, 2, 4}
    assert not [c for c in changes.candidates("c", tiny.config(objective="contrastive", batch=128), parts, MeshConfig(1, 32, 1)) if c.config.accumulate > 1]


def operations(layers: int) -> dict[str, int]:
    """{operation: how often the lowered step has it}, with so many layers in encoder and decoder."""
    sizes = {"encoder": dataclasses.replace(vit.VARIANTS["test"], layers=layers + 1), "decoder": dataclasses.replace(decoder.VARIANTS["test"], layers=layers)}
    plain = tiny.modules()
    parts = plain | {name: plain[name].clone(config=config, segments=(config.layers,)) for name, config in sizes.items()}
    names = re.findall(r"= \"?((?:stablehlo|sdy|func|chlo)\.\w+)", tiny.stage(parts=parts, trainable=INSTRUCT, mesh=make_mesh(MeshConfig())).lower().as_text())
    return {name: names.count(name) for name in set(names)}


def test_the_program_does_not_grow_with_depth():
    assert operations(16) == operations(32)


@pytest.mark.parametrize("name, more", [("align", {}), ("contrast", dict(objective="contrastive", trainable=((".*", True),)))])
def test_a_stage_of_each_objective_is_planned(name, more):
    """On virtual devices that stand for a slice's chips."""
    made = cost.stage(name, tiny.config(**more), tiny.modules(), build.Precision(compute="float32"), MeshConfig(), FOUR, 5)
    assert made["fits"] and made["flops"]["remat"] == 0 and made["roofline"]["step"] > 0


def test_count_is_of_the_whole_step():
    assert cost.count(tiny.stage(trainable=INSTRUCT)) == cost.count(tiny.stage(trainable=INSTRUCT, mesh=make_mesh(MeshConfig())))
