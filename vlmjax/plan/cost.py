"""Compiles the step that training runs for the chips of a slice, and reads what it needs: memory, FLOPs, collectives, time. Nothing is allocated."""
import dataclasses
import math
import re
import time
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax

from vlmjax import param_rules, sharding
from vlmjax.errors import UserError
from vlmjax.plan import hlo, kept
from vlmjax.plan.topologies import Topology
from vlmjax.sharding import MeshConfig, make_mesh
from vlmjax.train import build, floor, flops

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def stage(name: str, config: build.StageConfig, available: Mapping[str, nn.Module], precision: build.Precision, mesh: MeshConfig, topology: Topology, steps: int) -> dict[str, Any]:
    """What one stage costs on a slice. Bytes are of one device, FLOPs of one step on all of them, times in seconds.

    fits: whether the compiler found room; then `peak` is the most the program holds at once, and `activations` what of it is neither parameters,
    optimizer nor batch; `kept`, see kept.py, is by component what of that the program as it is written keeps from forward to backward;
    `schedule` the cycles that the compiler expects of its instructions, and how many attention kernels it expects nothing of. Where
    there is no room, `needs` is what the compiler says it wanted, less than everything.
    flops: `counted` on the traced step, scans and attention included; `passes` the same where each pass of a product counts; `remat` what of it is computed a second time, also inside an attention kernel; `floor` see train/floor.py.
    """
    made = build.stage(name, config, available, precision, make_mesh(mesh, topology.devices()), steps)
    out = {"mesh": dict(made.mesh.shape), "batch": config.batch, "length": config.length, "images": config.images, "targets": config.targets, "accumulate": config.accumulate,
           "remat": sorted({part.remat for part in available.values() if hasattr(part, "remat")}), "steps": steps, **held(made), "kept": kept.stage(made)}
    attention = "plain" if "decoder" in made.components else "auto"  # what a stage without a language model has
    counted, plain = count(made), count(build.stage(name, dataclasses.replace(config, attention=attention), without_remat(available), precision, made.mesh, steps))
    out["flops"] = {"counted": counted, "passes": count(made, passes=True), "remat": counted - plain, "floor": floor.stage(made)}
    began = time.monotonic()
    try:
        compiled = made.compile()
    except jax.errors.JaxRuntimeError as error:
        if not is_refusal(error):
            raise
        return {**out, "fits": False, "usable": topology.chip.usable, **refusal(str(error)), "compile_seconds": round(time.monotonic() - began, 1)}
    out["compile_seconds"] = round(time.monotonic() - began, 1)
    memory, program = compiled.memory_analysis(), hlo.Program(compiled.as_text())
    out |= {"fits": True, "usable": topology.chip.usable, "peak": memory.peak_memory_in_bytes, "temporaries": memory.temp_size_in_bytes}
    out["activations"] = out["peak"] - sum(out["parameters"].values()) - sum(out["optimizer"].values()) - out["batch_bytes"]
    out |= {"schedule": schedule(*program.cycles(), topology), "collectives": program.collectives(), "dcn": program.between_slices(topology.slices), "traffic": program.traffic()}
    return {**out, "roofline": roofline(out, topology)}


def schedule(cycles: float, kernels: float, topology: Topology) -> dict[str, Any]:
    """What the compiler expects of its instructions, one after the other, but of the kernels, of which it expects nothing (hlo.Program.cycles)."""
    return {"cycles": cycles, "seconds": cycles / topology.chip.clock, "kernels": kernels}


def count(made: build.Stage, passes: bool = False) -> int:
    return flops.of_jaxpr(made.traced.jaxpr.jaxpr, passes)


def without_remat(available: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    return {name: part.clone(remat="none") if hasattr(part, "remat") else part for name, part in available.items()}


def held(made: build.Stage) -> dict[str, Any]:
    """Bytes that lie on each device from step to step, by component, from the shardings of the abstract state."""
    def sum_up(tree):
        out = dict.fromkeys(made.components, 0)
        for path, leaf in param_rules.flatten(tree).items():
            owner = next((key for key in path.split("/") if key in out), None)
            if owner and leaf.ndim + (tree is not made.abstract.learned.opt_state):
                out[owner] += sharding.held(leaf)
        return out

    learned = sum_up(made.abstract.learned.trainable)
    frozen = sum_up(made.abstract.frozen)
    return {"parameters": {name: learned[name] + frozen[name] for name in made.components}, "trainable": learned, "optimizer": sum_up(made.abstract.learned.opt_state),
            "unsharded": {"bytes": made.unsharded.whole, "share": made.unsharded.share, "most": next(iter(made.unsharded.leaves), "")}, "batch_bytes": sum(map(sharding.held, made.abstract_batch().values()))}


def is_refusal(error: jax.errors.JaxRuntimeError) -> bool:
    """Whether the compiler found no room."""
    return "RESOURCE_EXHAUSTED" in str(error) or "HbmOom" in str(error)


def refusal(message: str) -> dict[str, Any]:
    """What the compiler says when there is no room → {"needs": bytes, "message": its first line}."""
    numbers = [float(number) * _UNITS[unit] for number, unit in re.findall(r"(?:temporaries \(|Used |exhausted: )([\d.]+)([KMGT]?)", message)]
    if not numbers:
        numbers = [float(number) * _UNITS[unit] for number, unit in re.findall(r"\b([\d.]+\d)([KMGT])", message)]
    return {"needs": int(max(numbers, default=0)), "message": message.splitlines()[0][:300]}


def roofline(cost: Mapping[str, Any], topology: Topology) -> dict[str, Any]:
    """A lower bound of the step's time: the longest of computing at the bf16 peak, HBM, ICI (all ports at once) and DCN at their full bandwidth, as if
    they overlapped perfectly. Never checked against a TPU."""
    bound = bounds(cost["flops"]["passes"], cost["traffic"], cost["collectives"], cost["dcn"], topology)
    return {**bound, "mfu": mfu(cost, topology, bound["step"])}


def bounds(work: int, traffic: int, collectives: Mapping[str, Mapping[str, int]], dcn: Mapping[str, Mapping[str, int]], topology: Topology) -> dict[str, Any]:
    """Seconds of each of the four alone, and which of them is the longest. work: FLOPs in bf16 of all chips, each pass counted; traffic and what the collectives bring, within a slice and
    between slices: bytes of one chip."""
    chip, brought = topology.chip, lambda kinds: sum(kind["bytes"] for kind in kinds.values())
    seconds = {"compute": work / (topology.chips * chip.peak), "hbm": traffic / chip.hbm_bandwidth, "ici": brought(collectives) / (chip.ici_bandwidth / 2), "dcn": brought(dcn) / chip.dcn_bandwidth}
    return {**seconds, "step": max(seconds.values()), "bound": max(seconds, key=seconds.get), "calibrated": False}


def mfu(cost: Mapping[str, Any], topology: Topology, step: float) -> float:
    """The FLOPs that count (train/floor.py: useful) over what the chips could do in the `step` seconds of a step."""
    return floor.useful(cost["flops"]["floor"]) / (step * topology.chips * topology.chip.peak)


def run_time(cost: Mapping[str, Any], topology: Topology, share: float, per_row: float = 1.0) -> dict[str, float]:
    """Seconds per step and of the stage, chip-hours and examples per day, where the chips do `share` of their peak of the FLOPs that were counted, pass by pass, and never less than the roofline's time."""
    step = max(cost["flops"]["passes"] / (share * topology.chips * topology.chip.peak), cost.get("roofline", {}).get("step", 0.0))
    return {"step": step, "stage": step * cost["steps"], "chip_hours": step * cost["steps"] * topology.chips / 3600, "examples_per_day": 86400 / step * cost["batch"] * per_row, "share": share}


def choose_mesh(mesh: MeshConfig, chips: int, stages: Mapping[str, build.StageConfig]) -> tuple[MeshConfig, str]:
    """The config's mesh with −1 filled; where a batch does not divide over it, with the smallest `tensor` that makes every batch divide → (mesh, what
    was changed, or empty). One mesh serves all stages of a run."""
    rows = {name: config.batch // config.accumulate for name, config in stages.items() if config.batch % config.accumulate == 0}
    sizes = [mesh.replica, mesh.fsdp, mesh.tensor]
    if -1 in sizes and (rest := math.prod(size for size in sizes if size != -1)) > 0 and chips % rest == 0:
        sizes[sizes.index(-1)] = chips // rest
    filled = MeshConfig(*sizes)
    if math.prod(sizes) != chips or min(sizes) < 1:
        raise UserError(f"mesh: replica {mesh.replica}, fsdp {mesh.fsdp}, tensor {mesh.tensor} does not use exactly the {chips} chips of the slice")
    short = [f"{name}'s {count} rows" for name, count in rows.items() if count % (filled.replica * filled.fsdp)]
    if not short:
        return filled, ""
    what = f"{' and '.join(short)} do not divide over replica x fsdp {filled.replica * filled.fsdp}"
    for tensor in (size for size in (2, 4, 8, 16) if size > filled.tensor and chips % (filled.replica * size) == 0):
        fsdp = chips // (filled.replica * tensor)
        if all(count % (filled.replica * fsdp) == 0 for count in rows.values()):
            return MeshConfig(filled.replica, fsdp, tensor), f"{what}: planned with tensor {tensor}, fsdp {fsdp}"
    used = max(n for n in range(1, chips + 1) if all(count % n == 0 for count in rows.values()))
    raise UserError(f"mesh: {what}, nor with a tensor axis: {used} chips would have rows, {max(chips - used, 0)} of {chips} no work; give a batch that divides")
