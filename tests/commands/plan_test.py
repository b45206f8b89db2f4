"""`vlmjax plan` as a user meets it: the whole path where libtpu is installed, and every mistake in one line."""
import importlib.util
import json
import os
import subprocess
import sys

import pytest

from vlmjax import config as configs
from vlmjax.__main__ import main
from vlmjax.commands import plan
from vlmjax.commands.prepare import RunConfig
from vlmjax.data.datasets import catalogue
from vlmjax.errors import UserError
from vlmjax.plan import environment, table

needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed: pip install 'vlmjax[tpu]'")
LLAVA = "experiments/llava_1_5.py"


@needs_libtpu
def test_a_tiny_run_is_planned_printed_and_saved(tmp_path):
    command = [sys.executable, "-m", "vlmjax", "plan", f"--config={LLAVA}:tiny", "--topology=v5e-4", "--stages=align", "--answers=rows:8,length:96,new:9", f"--output={tmp_path}", f"--data_dir={tmp_path}"]
    done = subprocess.run(command, env={**os.environ, "XLA_FLAGS": ""}, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = tmp_path.glob("v5e-4-*.json")
    made = json.loads(path.read_text())
    assert done.stdout.splitlines()[-2] == table.total(made) and "on v5e-4 at an assumed 50 %" in table.total(made)
    cost = made["stages"]["align"]["cost"]
    assert cost["fits"] and 0 < cost["peak"] < cost["usable"] and cost["steps"] == -(-558_128 // 8)
    assert cost["flops"]["counted"] - cost["flops"]["remat"] == pytest.approx(cost["flops"]["floor"]["total"], rel=0.01)
    answers = made["answers"]
    assert answers["fits"] and 0 < answers["token"]["flops"] < answers["prefill"]["flops"] / 9 and "answers: 8 rows of 96 tokens" in done.stdout
    assert cost["collectives"]["all-gather"]["bytes"] > 0 and cost["optimizer"]["decoder"] == 0 and cost["optimizer"]["projector"] > 0


@pytest.mark.parametrize("flags, message", [
    ([f"--config={LLAVA}:tiny", "--topology=v5e-65"], "no slice 'v5e-65'; did you mean 'v5e-64'"),
    ([f"--config={LLAVA}:tiny", "--topology=v5e-4", "--share=50"], "--share: 50.0 is not a share of the peak"),
    ([f"--config={LLAVA}:tiny", "--topology=v5e-4", "--answers=rows:8"], "--answers: 'rows:8' lacks length: rows:N,length:N"),
    ([f"--config={LLAVA}:tiny", "--topology=v5e-4", "--answers=rows:8,length:0"], "--answers: length is 0"),
    ([f"--config={LLAVA}:tiny", "--topology=v5e-4", "--answers=lines:8"], "--answers: 'lines:8' is not NAME:SIZE with a name of rows, length, new, images, questions"),
    ([f"--config={LLAVA}:tiny", "--topology=v5e-4", "--stages=none"], "--stages: none, and no --answers: there is nothing to plan"),
    ([f"--config={LLAVA}:tiny"], "the following arguments are required: --topology")])  # fmt: skip
def test_a_mistake_is_one_line(capsys, flags, message):
    assert main(["plan", *flags]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is not None, reason="libtpu is installed")
def test_without_libtpu_one_line_says_what_to_install(capsys):
    assert main(["plan", f"--config={LLAVA}:tiny", "--topology=v5e-4"]) == 2
    assert "pip install 'vlmjax[tpu]'" in capsys.readouterr().err


def test_libtpu_never_asks_the_metadata_server():
    assert os.environ["TPU_SKIP_MDS_QUERY"] == "1" and environment.VARIABLES["JAX_PLATFORMS"] == "cpu"


def config(*overrides):
    node, _ = configs.read(f"{LLAVA}:vicuna-7b", overrides)
    return configs.build(RunConfig, node)


def test_sizes_come_from_the_variants_and_the_hub_is_not_asked(tmp_path):
    parts = plan.modules(config(), str(tmp_path))
    assert parts["decoder"].config.layers == 32 and parts["encoder"].config.layers == 24 and parts["decoder"].remat == "full"
    with pytest.raises(Exception, match="model.decoder: a plan reads nothing from the hub; name the variant that hf://lmsys/vicuna-7b-v1.5 is"):
        plan.modules(config("--config.model.decoder.variant="), str(tmp_path))
    with pytest.raises(Exception, match="tokenizer: a plan reads nothing from the hub"):
        plan.modules(config("--config.model.decoder.vocab=-1"), str(tmp_path))


def test_steps_come_from_the_flag_the_data_or_the_catalogue(tmp_path):
    stage = config().stages["align"]
    assert plan.count_steps("align", stage, {}, str(tmp_path)) == (2181, "558,128 examples, as published; one per row")
    assert plan.count_steps("align", stage, {"align": 1000}, str(tmp_path)) == (4, "1,000 examples, given; one per row")
    (tmp_path / "LLaVA-Pretrain" / "images").mkdir(parents=True)
    conversation = [{"from": "human", "value": "<image>\nSay it."}, {"from": "gpt", "value": "a dog"}]
    (tmp_path / "LLaVA-Pretrain" / "blip_laion_cc_sbu_558k.json").write_text(json.dumps([{"id": str(i), "image": "a.jpg", "conversations": conversation} for i in range(300)]))
    assert plan.count_steps("align", stage, {}, str(tmp_path)) == (2, "300 examples, in the data; one per row")
    assert plan.count_steps("instruct", config().stages["instruct"], {}, str(tmp_path))[0] == 10396
    assert catalogue.published("llava:mine.json:images") == 0
    assert plan.count_steps("instruct", config().stages["instruct"], {}, str(tmp_path), 2.02) == (5147, "665,298 examples, as published; 2.02 per row, given")
    assert plan.given("--examples", ["align:10"], int) == {"align": 10} and plan.given("--per_row", ["align:2.5"], float) == {"align": 2.5}
    for wrong in ("align", "align:0", "align:x", "align:1.5"):
        with pytest.raises(Exception, match=f"--examples: '{wrong}' is not STAGE:N"):
            plan.given("--examples", [wrong], int)


MESHES = []


def fake(fits):
    """Stands for cost.stage: no compiler, room where `fits(its config, slice)`; MESHES holds those it was asked for."""
    def stage(name, config, available, precision, mesh, topology, steps):
        MESHES.append(vars(mesh))
        flops = {"counted": 2e15, "passes": 2e15, "remat": 0, "floor": {"matrices": {"decoder": 2e15}, "attention": {}, "similarity": 0, "total": 2e15}}
        out = {"mesh": vars(mesh), "batch": config.batch, "length": config.length, "accumulate": config.accumulate, "remat": ["full"], "steps": steps, "parameters": {"decoder": 1}, "trainable": {"decoder": 2**30}, "optimizer": {"decoder": 0}, "unsharded": {"bytes": 0, "share": 0.0, "most": ""}, "schedule": {"cycles": 0, "seconds": 0.0, "kernels": 0},
               "flops": flops, "usable": 2**34, "batch_bytes": 0, "kept": {"decoder": 2**20, "between": 2**10}}
        if not fits(config, topology):
            return {**out, "fits": False, "needs": 2**35, "message": "no room"}
        roof = {"step": 0.1, "compute": 0.1, "hbm": 0.0, "ici": 0.0, "dcn": 0.0, "bound": "compute", "mfu": 1.0}
        return {**out, "fits": True, "peak": 2**33, "activations": 2**32, "collectives": {}, "dcn": {}, "roofline": roof}
    return stage


def only_four(config, topology):
    """Other settings do not even divide."""
    if config.accumulate == 2:
        raise UserError("stages.align.attention: splash cannot be")
    return config.accumulate == 4


@pytest.mark.parametrize("fits, key, expected", [(lambda config, topology: config.accumulate >= 4, "flags", ["--config.stages.align.accumulate=4"]),
                                                 (only_four, "flags", ["--config.stages.align.accumulate=4"]),
                                                 (lambda config, topology: topology.chips == 16 and config.accumulate == 1 and MESHES[-1]["tensor"] == 2, "flags", ["--config.mesh.tensor=2", "--config.mesh.fsdp=8"]),
                                                 (lambda config, topology: topology.chips >= 64, "topology", "v5e-64"), (lambda config, topology: False, None, None)])
def test_where_a_stage_does_not_fit_only_what_was_compiled_is_offered(monkeypatch, tmp_path, capsys, fits, key, expected):
    monkeypatch.setattr(plan.cost, "stage", fake(fits))
    node, _ = configs.read(f"{LLAVA}:vicuna-7b")
    made = plan.plan(node, LLAVA, plan.topologies.find("v5e-16"), 0.5, {}, str(tmp_path), ("align",))
    entry = made["stages"]["align"]
    assert not entry["cost"]["fits"] and "run" not in entry
    found = entry.get("change") or entry.get("smallest")
    assert (found and found[key]) == expected and ("note" in (found or {})) == (key == "flags" and "mesh" in expected[0])
    assert key != "topology" or table.total(made) == "align does not fit on v5e-16 (align does on v5e-64)"
    assert any(line.startswith("  instead ") for line in table.lines(made)) and len(table.markdown([made])) == (3 if key is None else 4)
    assert plan.file_name({**made, "versions": {"jax": "1", "libtpu": "2"}}).startswith("v5e-16-")


def test_answers_are_planned_on_the_mesh_that_evaluation_takes(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(plan.answers, "plan", lambda asked, available, dtype, mesh, topology, where: seen.append((asked, dtype, vars(mesh))) or {"mesh": vars(mesh)})
    names = set()
    for flags in ((), ("--config.mesh.replica=4",), ("--config.evaluate.mesh=replica:8,tensor:2",)):
        node, _ = configs.read(f"{LLAVA}:vicuna-7b", flags)
        made = plan.plan(node, LLAVA, plan.topologies.find("v5e-16"), 0.5, {}, str(tmp_path), (), asked=plan.questions("rows:8,length:700,new:3"))
        names.add(plan.file_name({**made, "versions": {"jax": "1", "libtpu": "2"}}))
        assert not made["stages"] and table.lines({**made, "answers": {**ANSWERS, "mesh": made["answers"]["mesh"]}})[-1] == table.NOTE
    assert [mesh for *_, mesh in seen] == [{"replica": 1, "fsdp": 16, "tensor": 1}, {"replica": 4, "fsdp": 4, "tensor": 1}, {"replica": 8, "fsdp": -1, "tensor": 2}] and len(names) == 3
    assert seen[0][0] == plan.answers.Questions(8, 700, 3) and seen[0][1] == "bfloat16"


ANSWERS = {"fits": False, "rows": 8, "padded": 8, "length": 700, "images": 1, "questions": 1, "new": 3, "dtype": "bfloat16", "needs": 2**35, "usable": 2**34, "message": "no room", "parameters": 2**33}


def test_a_stage_that_does_not_fit_is_said_so_in_the_last_line():
    flops = {"counted": 2e12, "passes": 2e12, "remat": 5e11, "floor": {"matrices": {"decoder": 1e12}, "attention": {"decoder": 4e11}, "similarity": 0, "total": 1.4e12}}
    cost = {"fits": False, "needs": 40 * 2**30, "usable": 15.75 * 2**30, "message": "RESOURCE_EXHAUSTED: no room", "parameters": {"decoder": 2**30}, "trainable": {"decoder": 2**30}, "optimizer": {"decoder": 0}, "unsharded": {"bytes": 2**29, "share": 0.5, "most": "decoder/embed"}, "schedule": {"cycles": 3 * 10**9, "seconds": 1.5, "kernels": 96}, "flops": flops,
            "mesh": {"replica": 1, "fsdp": 16, "tensor": 1}, "batch": 16, "length": 8, "accumulate": 1, "remat": ["full"], "steps": 10,
            "kept": {"decoder": 2**30, "between": 0}}
    made = {"config": "F", "topology": "v5e-16", "mesh_note": "", "share": 0.5, "stages": {"align": {"examples_from": "the config's steps", "per_row": 1.0, "cost": cost, "tried": "everything"}}}
    lines = table.lines(made)
    assert lines[-1] == "align does not fit on v5e-16" and any("DOES NOT FIT   needs more than 40.00 GiB" in line for line in lines)
    assert "  unsharded      0.50 GiB of these, 50.0 %, for want of a split, most of it decoder/embed" in lines
    assert "  checkpoint     16.00 GiB, 4.00 per host: 4 s at an assumed 1 GB/s per host" in lines
    roof = {"step": 1.0, "compute": 1.0, "hbm": 0.5, "ici": 0.5, "dcn": 0.0, "bound": "compute", "mfu": 0.4}
    fits = {**cost, "fits": True, "peak": 2**33, "activations": 2**32, "batch_bytes": 2**20, "collectives": {"all-gather": {"count": 3, "bytes": 2**30}}, "dcn": {}, "roofline": roof}
    run = {"step": 2.0, "stage": 7200.0, "chip_hours": 32.0, "examples_per_day": 1e6, "share": 0.5}
    made["stages"]["align"] |= {"change": {"flags": ["--config.stages.align.accumulate=2"], "cost": fits, "run": run}}
    assert table.total(made) == "align ≈ 2.0 h (changed) on v5e-16 at an assumed 50 %: 32 chip-hours"
    assert any("accumulate=2: fits" in line for line in table.lines(made))
    assert len(table.markdown([made])) == 4 and "does not fit" in table.markdown([made])[2]
    made["stages"]["align"] = {"examples_from": "given", "per_row": 1.0, "cost": fits, "run": run}
    assert "  compiler       1500 ms per step, the cycles it counts for its instructions one after the other, without 96 kernels of attention and what it waits for" in table.lines(made)
