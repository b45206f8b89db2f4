"""A run's own metrics beside what was planned for it."""
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from vlmjax import files
from vlmjax.errors import UserError
from vlmjax.train import metrics


def rows(where: str, stage: str) -> list[dict[str, Any]]:
    """The metrics of a stage; none where it has none. where: a run's directory, or one of the parts of its metrics, `STAGE-000.jsonl`."""
    path = epath.Path(where)
    try:
        if path.is_dir():
            return metrics.read(path, stage)
        return metrics.read_part(path) if re.fullmatch(rf"{re.escape(stage)}(-\d+)?", path.stem) else []
    except UserError as error:
        raise UserError(f"--measured: {error}") from None


def stage(where: str, name: str, batch: int, per_row: float) -> dict[str, Any] | None:
    """{"steps", "step": median seconds, "from": the key they are read from, "mfu" and "hbm_peak" where the run has them}, or None. A run without
    `step_seconds` has examples per second since it began; its last step is taken, whose `per_row` examples a row are the plan's."""
    found = rows(where, name)
    column = {key: [row[key] for row in found if row.get(key)] for key in ("step_seconds", "examples_per_second", "mfu", "hbm_peak")}
    if column["step_seconds"]:
        out = {"steps": len(found), "step": statistics.median(column["step_seconds"]), "from": "step_seconds"}
    elif column["examples_per_second"]:
        out = {"steps": len(found), "step": batch * per_row / column["examples_per_second"][-1], "from": "examples_per_second"}
    else:
        return None
    return out | ({"mfu": statistics.median(column["mfu"])} if column["mfu"] else {}) | ({"hbm_peak": max(column["hbm_peak"])} if column["hbm_peak"] else {})


def check(where: str, names: Sequence[str]) -> None:
    """UserError: there is nothing of any of these stages."""
    if not any(rows(where, name) for name in names):
        raise UserError(f"--measured: {where} holds no metrics of {', '.join(names)}; give a run's directory, or metrics/STAGE-000.jsonl in it")


def add(plan: Mapping[str, Any], where: str) -> None:
    """Puts `measured` into every stage that fits, as it is or changed, and that the run has."""
    for name, entry in plan["stages"].items():
        cost = entry["cost"] if entry["cost"]["fits"] else (entry.get("change") or {}).get("cost")
        if cost and (found := stage(where, name, cost["batch"], entry["per_row"])):
            entry["measured"] = found


def about(plan: Mapping[str, Any], where: str) -> str:
    """What ran, from the record beside the metrics, since a ratio says nothing of other chips or of another config. Empty without one."""
    path = epath.Path(where)
    record = files.read_json((path if path.is_dir() else path.parent.parent) / "record.json")
    if not record:
        return ""
    same = "this config" if record["fingerprint"] == plan["fingerprint"] else "another config"
    return f"measured: {where}: {record['devices']['count']} {record['devices']['kind']} device(s), {same}"


def line(entry: Mapping[str, Any]) -> str:
    """measured over planned."""
    found, fits = entry["measured"], entry["cost"]["fits"]
    cost, run = (entry["cost"], entry["run"]) if fits else (entry["change"]["cost"], entry["change"]["run"])
    more = [f"MFU {100 * found['mfu']:.0f} %"] if "mfu" in found else []
    more += [f"HBM peak {found['hbm_peak'] / cost['peak']:.2f} of the plan's"] if "hbm_peak" in found else []
    return (f"{1e3 * found['step']:,.0f} ms per step, from {found['from']} of {found['steps']:,} steps: {found['step'] / run['step']:.2f} of the planned {1e3 * run['step']:,.0f} ms, "
            f"{found['step'] / cost['roofline']['step']:.2f} of the roofline" + "".join(f"; {text}" for text in more))
