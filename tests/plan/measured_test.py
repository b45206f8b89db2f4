"""A run's metrics beside a plan, as files."""
import json

import pytest

from vlmjax.errors import UserError
from vlmjax.plan import measured, table
from vlmjax.plan.topologies import TOPOLOGIES

COST = {"fits": True, "batch": 64, "peak": 8 * 2**30, "roofline": {"step": 1.0}}


def plan():
    return {"fingerprint": "f", "stages": {name: {"per_row": 2.0, "cost": COST, "run": {"step": 1.6}} for name in ("align", "instruct")}}


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"step": i, "loss": 1.0, **row}) + "\n" for i, row in enumerate(rows)))


def test_a_runs_directory_is_compared_stage_by_stage(tmp_path):
    write(tmp_path / "metrics" / "align-000.jsonl", [{"step_seconds": s, "mfu": 0.4, "hbm_peak": 6 * 2**30} for s in (9.0, 2.0, 2.0)])
    (tmp_path / "record.json").write_text(json.dumps({"fingerprint": "g", "devices": {"count": 32, "kind": "TPU v4"}}))
    made = plan()
    measured.check(str(tmp_path), ["align", "instruct"])
    measured.add(made, str(tmp_path))
    assert "measured" not in made["stages"]["instruct"]
    assert made["stages"]["align"]["measured"] == {"steps": 3, "step": 2.0, "from": "step_seconds", "mfu": 0.4, "hbm_peak": 6 * 2**30}
    assert measured.line(made["stages"]["align"]) == ("2,000 ms per step, from step_seconds of 3 steps: 1.25 of the planned 1,600 ms, 2.00 of the roofline; MFU 40 %; "
                                                      "HBM peak 0.75 of the plan's")
    assert measured.about(made, str(tmp_path)) == f"measured: {tmp_path}: 32 TPU v4 device(s), another config"


def test_one_file_and_examples_per_second_will_do(tmp_path):
    """128 examples a step at 40 a second: 3.2 s."""
    write(tmp_path / "instruct-001.jsonl", [{"examples_per_second": rate} for rate in (1.0, 40.0)])
    made = plan()
    made["stages"]["instruct"] = {"per_row": 2.0, "cost": {"fits": False}, "change": {"cost": COST, "run": {"step": 1.6}}}
    measured.add(made, str(tmp_path / "instruct-001.jsonl"))
    assert made["stages"]["instruct"]["measured"] == {"steps": 2, "step": 3.2, "from": "examples_per_second"} and "measured" not in made["stages"]["align"]
    assert "2.00 of the planned 1,600 ms, 3.20 of the roofline" in measured.line(made["stages"]["instruct"])
    assert measured.about(made, str(tmp_path / "instruct-001.jsonl")) == ""


def test_a_part_of_a_run_that_was_cut_is_named_with_its_line(tmp_path):
    write(tmp_path / "metrics" / "align-000.jsonl", [{"step_seconds": 1.0}])
    with open(tmp_path / "metrics" / "align-000.jsonl", "a") as part:
        part.write('{"step": 1, "lo')
    with pytest.raises(UserError, match="--measured: .*/metrics/align-000.jsonl: line 2 is no row of metrics") as error:
        measured.check(str(tmp_path), ["align"])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name, text", [("other-000.jsonl", "{}\n"), ("align-000.jsonl", "{"), ("align-000.jsonl", "")])
def test_what_is_no_metrics_is_one_line(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match="--measured: ") as error:
        measured.check(str(tmp_path / name), ["align", "instruct"])
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="holds no metrics of align"):
        measured.check(str(tmp_path / "nothing"), ["align"])


def test_the_table_says_it():
    entry = {"examples_from": "given", "per_row": 2.0, "measured": {"steps": 3, "step": 2.0, "from": "step_seconds"},
             "run": {"step": 1.6, "stage": 1600.0, "chip_hours": 1.0, "examples_per_day": 1e6, "share": 0.5},
             "cost": {**COST, "mesh": {"replica": 1, "fsdp": 4, "tensor": 1}, "length": 8, "accumulate": 1, "remat": ["full"], "steps": 3, "usable": 2**34, "parameters": {"decoder": 1}, "trainable": {"decoder": 2**30}, "optimizer": {"decoder": 0}, "activations": 1, "unsharded": {"bytes": 0, "share": 0.0, "most": ""}, "schedule": {"cycles": 0, "seconds": 0.0, "kernels": 0},
                      "kept": {"decoder": 1}, "batch_bytes": 0, "collectives": {}, "dcn": {}, "roofline": {"step": 1.0, "compute": 1.0, "hbm": 0.5, "ici": 0.1, "dcn": 0.0, "mfu": 0.5, "bound": "compute"},
                      "flops": {"counted": 2e12, "passes": 2e12, "remat": 0, "floor": {"matrices": {"decoder": 2e12}, "attention": {}, "similarity": 0, "total": 2e12}}}}
    assert "  measured       2,000 ms per step, from step_seconds of 3 steps: 1.25 of the planned 1,600 ms, 2.00 of the roofline" in table.stage_lines("align", entry, TOPOLOGIES["v5e-4"])
