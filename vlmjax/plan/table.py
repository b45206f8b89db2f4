"""A plan as text: one block per stage, and the line that says what the run costs."""
from collections.abc import Mapping, Sequence
from typing import Any

from vlmjax.plan import kept, measured
from vlmjax.plan.cost import mfu
from vlmjax.plan.topologies import GIB, Topology, find

NOTE = ("Nothing here ran on a TPU: memory and collectives are the compiler's, times are uncalibrated estimates. FLOPs count all T² pairs of attention; "
        "MFU is the floor's FLOPs, causal attention with half of its pairs, over the peak in bf16; times are those at the assumed share of it, or the roofline's where that is longer.")

WRITE = 1e9  # bytes/s of one host into a bucket of its region; assumed


def gib(count: float) -> str:
    return f"{count / GIB:.2f}"


def lines(plan: Mapping[str, Any]) -> list[str]:
    """What the command prints of a plan, as it is saved."""
    topology = find(plan["topology"])
    out = [f"{plan['config']} on {topology.name}: {topology.about}"]
    out += [f"mesh: {plan['mesh_note']}"] if plan["mesh_note"] else []
    for name, entry in plan["stages"].items():
        out += [""] + stage_lines(name, entry, topology)
    out += ["", *answer_lines(plan["answers"])] if "answers" in plan else []
    return out + ["", NOTE] + ([total(plan)] if plan["stages"] else [])


def stage_lines(name: str, entry: Mapping[str, Any], topology: Topology) -> list[str]:
    cost = entry["cost"]
    mesh = ", ".join(f"{axis} {size}" for axis, size in cost["mesh"].items())
    out = [f"{name}: {cost['batch']} rows of {cost['length']} tokens, {mesh}, accumulate {cost['accumulate']}, remat {'/'.join(cost['remat'])}; {cost['steps']:,} steps ({entry['examples_from']})"]
    if cost["fits"]:
        out.append(f"  fits           peak {gib(cost['peak'])} of {gib(cost['usable'])} GiB per chip, {gib(cost['usable'] - cost['peak'])} spare")
    else:
        out.append(f"  DOES NOT FIT   needs more than {gib(cost['needs'])} GiB, the chip gives {gib(cost['usable'])}: {cost['message']}")
    for what in ("parameters", "optimizer"):
        out.append(f"  {what:13}  {gib(sum(cost[what].values()))} GiB per chip: " + ", ".join(f"{part} {gib(size)}" for part, size in cost[what].items()))
    out.append(unsharded_line(cost))
    out.append(checkpoint_line(cost, topology))
    if cost["fits"]:
        out.append(f"  activations    {gib(cost['activations'])} GiB per chip, with gradients and temporaries; batch {gib(cost['batch_bytes'])}")
    held_back = ", ".join(f"{'masks, merging and loss' if part == kept.REST else part} {gib(size)}" for part, size in cost["kept"].items())
    out.append(f"  kept           {gib(sum(cost['kept'].values()))} GiB per chip from forward to backward as the program is written: {held_back}")
    out += flops_lines(cost)
    if cost["fits"]:
        out.append(f"  collectives    over ICI, per chip and step: {received(cost['collectives'])}; over DCN: {received(cost['dcn'])}")
        roof = cost["roofline"]
        out.append(f"  roofline       {1e3 * roof['step']:.0f} ms per step (compute {1e3 * roof['compute']:.0f}, HBM {1e3 * roof['hbm']:.0f}, ICI {1e3 * roof['ici']:.0f}, DCN {1e3 * roof['dcn']:.0f}), "
                   f"MFU at most {100 * mfu(cost, topology, roof['step']):.0f} %, uncalibrated")
        plan = cost["schedule"]
        out.append(f"  compiler       {1e3 * plan['seconds']:.0f} ms per step, the cycles it counts for its instructions one after the other, without {plan['kernels']:,} kernels of attention and what it waits for")
        run = entry["run"]
        out.append(f"  at {100 * run['share']:.0f} %        {1e3 * run['step']:.0f} ms per step, {clock(run['stage'])}, {run['chip_hours']:.0f} chip-hours, {run['examples_per_day']:,.0f} examples per day")
    if "measured" in entry:
        out.append(f"  measured       {measured.line(entry)}")
    if change := entry.get("change"):
        out.append(f"  instead        {' '.join(change['flags'])}: fits, peak {gib(change['cost']['peak'])} GiB, {clock(change['run']['stage'])} at {100 * change['run']['share']:.0f} %{'; ' + change['note'] if 'note' in change else ''}")
    if bigger := entry.get("smallest"):
        out.append(f"  instead        {bigger['topology']}: the smallest slice that holds it as it is, peak {gib(bigger['cost']['peak'])} GiB")
    if not cost["fits"] and "tried" in entry and not (change or bigger):
        out.append(f"  instead        nothing that was tried fits: {entry['tried']}")
    return out


def answer_lines(made: Mapping[str, Any]) -> list[str]:
    """What answering costs (plan/answers.py)."""
    many = lambda count, what: f"{count} {what}{'s' * (count != 1)}"
    padded = f" (padded to {made['padded']})" if made["padded"] != made["rows"] else ""
    mesh = ", ".join(f"{axis} {size}" for axis, size in made["mesh"].items())
    out = [f"answers: {made['rows']} rows{padded} of {made['length']} tokens, {many(made['images'], 'image')} and {many(made['questions'], 'question')} each, {made['new']} new tokens, {made['dtype']}, {mesh}"]
    if not made["fits"]:
        return [*out, f"  DOES NOT FIT   needs more than {gib(made['needs'])} GiB, the chip gives {gib(made['usable'])}: {made['message']}", f"  parameters     {gib(made['parameters'])} GiB per chip"]
    out.append(f"  fits           peak {gib(made['peak'])} of {gib(made['usable'])} GiB per chip, {gib(made['usable'] - made['peak'])} spare; parameters {gib(made['parameters'])}")
    for name, what in (("prefill", "prefill"), ("token", "each token")):
        if entry := made.get(name):
            roof = entry["roofline"]
            out.append(f"  {what:13}  {1e3 * roof['step']:.1f} ms (compute {1e3 * roof['compute']:.1f}, HBM {1e3 * roof['hbm']:.1f}, ICI {1e3 * roof['ici']:.1f}, DCN {1e3 * roof['dcn']:.1f}), {entry['flops'] / 1e12:,.2f} TFLOP; compiler {1e3 * entry['schedule']['seconds']:.1f} ms; "
                       f"over ICI, per chip: {received(entry['collectives'])}; over DCN: {received(entry['dcn'])}")
    return [*out, f"  roofline       {made['seconds']:.2f} s for {made['rows'] * made['questions']:,} answers, {made['answers_per_second']:,.0f} a second at most, uncalibrated"]


def received(collectives: Mapping[str, Mapping[str, int]]) -> str:
    return ", ".join(f"{kind} {entry['count']:,} x = {gib(entry['bytes'])} GiB" for kind, entry in sorted(collectives.items())) or "none"


def unsharded_line(cost: Mapping[str, Any]) -> str:
    found = cost["unsharded"]
    return f"  unsharded      {gib(found['bytes'])} GiB of these, {100 * found['share']:.1f} %, for want of a split" + (f", most of it {found['most']}" if found["most"] else "")


def checkpoint_line(cost: Mapping[str, Any], topology: Topology) -> str:
    """What a checkpoint writes, and how long that takes: the time that a slice has when it is taken away is half a minute."""
    per_chip = sum(cost["trainable"].values()) + sum(cost["optimizer"].values())
    hosts = topology.hosts / cost["mesh"]["replica"]  # one replica writes
    total = per_chip * topology.chips / cost["mesh"]["replica"]
    return f"  checkpoint     {gib(total)} GiB, {gib(total / hosts)} per host: {total / hosts / WRITE:.0f} s at an assumed {WRITE / 1e9:g} GB/s per host"


def flops_lines(cost: Mapping[str, Any]) -> list[str]:
    flops, floor = cost["flops"], cost["flops"]["floor"]
    items = [f"{part} {size / 1e12:,.1f}" for part, size in floor["matrices"].items() if size] + [f"attention of {part} {size / 1e12:,.1f}" for part, size in floor["attention"].items()]
    over, again = flops["counted"] - flops["remat"], flops["passes"] - flops["counted"]
    return [f"  FLOPs          {flops['counted'] / 1e12:,.1f} T per step: floor {floor['total'] / 1e12:,.1f} ({', '.join(items)}), remat {flops['remat'] / 1e12:,.1f}, "
            f"beyond the floor {100 * (over / floor['total'] - 1):+.1f} %" + (f"; further passes of products of float32 {again / 1e12:,.1f}" if again else "")]


def clock(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def total(plan: Mapping[str, Any]) -> str:
    """What the whole run takes, with the changes that make a stage fit."""
    parts, hours, missing, elsewhere, share = [], 0.0, [], [], plan["share"]
    for name, entry in plan["stages"].items():
        run = entry.get("run") or (entry.get("change") or {}).get("run")
        if run is None:
            missing.append(name)
            elsewhere += [f"{name} does on {entry['smallest']['topology']}"] if entry.get("smallest") else []
            continue
        parts.append(f"{name} ≈ {clock(run['stage'])}{'' if 'run' in entry else ' (changed)'}")
        hours += run["chip_hours"]
    if missing:
        return f"{', '.join(missing)} {'does' if len(missing) == 1 else 'do'} not fit on {plan['topology']}" + (f" ({', '.join(elsewhere)})" if elsewhere else "") + (f"; {', '.join(parts)} at an assumed {100 * share:.0f} %: {hours:,.0f} chip-hours" if parts else "")
    return f"{', '.join(parts)} on {plan['topology']} at an assumed {100 * share:.0f} %: {hours:,.0f} chip-hours"


def markdown(plans: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rows of plans of one config: a line per slice and stage."""
    out = ["| slice | stage | settings | peak / chip GiB | parameters + optimizer + kept GiB | TFLOP per step (remat) | collectives GiB | roofline ms, bound | compiler ms | MFU ≤ | time | chip-hours |", "|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"]
    for plan in plans:
        for name, entry in plan["stages"].items():
            change = entry.get("change")
            if not entry["cost"]["fits"]:
                cost = entry["cost"]
                out.append(f"| {plan['topology']} | {name} | as configured | does not fit: > {gib(cost['needs'])} / {gib(cost['usable'])} | {held(cost)} | {tera(cost)} | | | | | | |")
                if bigger := entry.get("smallest"):
                    out.append(f"| {bigger['topology']} | {name} | smallest slice | {gib(bigger['cost']['peak'])} / {gib(bigger['cost']['usable'])} | {held(bigger['cost'])} | {tera(bigger['cost'])} | | | | | | |")
            for settings, cost, run in ([("as configured", entry["cost"], entry["run"])] if entry["cost"]["fits"] else []) + (
                    [(" ".join(flag.removeprefix("--config.").replace(f"stages.{name}.", "") for flag in change["flags"]), change["cost"], change["run"])] if change else []):
                settings = f"tensor {cost['mesh']['tensor']}" if settings == "as configured" and plan["mesh_note"] else settings
                roof = cost["roofline"]
                moved, far = (sum(kind["bytes"] for kind in cost[what].values()) for what in ("collectives", "dcn"))
                out.append(f"| {plan['topology']} | {name} | {settings} | {gib(cost['peak'])} / {gib(cost['usable'])} | {held(cost)} | {tera(cost)} | {moved / GIB:.1f}{f' and {gib(far)} by DCN' if far else ''} | "
                           f"{1e3 * roof['step']:.0f}, {roof['bound']} | {1e3 * cost['schedule']['seconds']:.0f} | {100 * mfu(cost, find(plan['topology']), roof['step']):.0f} % | {clock(run['stage'])} | {run['chip_hours']:,.0f} |")
    return out


def weak_scaling(plans: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of plans of one model: what each chip receives in a step of stages whose batch has as many rows as the slice chips: a line per stage, tensor axis and slice, the
    smallest slice first. No line where there is only one slice."""
    found: dict[str, dict[int, tuple[str, Mapping[str, Any]]]] = {}
    for plan in plans:
        for name, entry in plan["stages"].items():
            cost = entry["cost"]
            tensor = cost["mesh"]["tensor"]
            if cost["fits"] and cost["batch"] == cost["mesh"]["fsdp"] * tensor == plan["chips"]:
                found.setdefault(f"{name} on {find(plan['topology']).kind}{f', tensor {tensor}' if tensor > 1 else ''}", {})[plan["chips"]] = plan["topology"], cost
    kinds = sorted({kind for by_chips in found.values() for _, cost in by_chips.values() for kind in cost["collectives"]})
    out = [f"| stage | slice | rows | {' | '.join(f'{kind} GiB' for kind in kinds)} | all, GiB | of the smallest slice's |", "|---|---|---:|" + "---:|" * (len(kinds) + 2)]
    for name, by_chips in found.items():
        least = None
        for chips in sorted(by_chips) if len(by_chips) > 1 else ():
            slice_, cost = by_chips[chips]
            moved = {kind: cost["collectives"].get(kind, {"bytes": 0})["bytes"] for kind in kinds}
            least = least or sum(moved.values())
            out.append(f"| {name} | {slice_} | {cost['batch']} | {' | '.join(gib(size) for size in moved.values())} | {gib(sum(moved.values()))} | {sum(moved.values()) / least:.2f} |")
    return out if len(out) > 2 else []


def held(cost: Mapping[str, Any]) -> str:
    return " + ".join(gib(sum(cost[what].values())) for what in ("parameters", "optimizer", "kept"))


def tera(cost: Mapping[str, Any]) -> str:
    return f"{cost['flops']['counted'] / 1e12:,.0f} ({cost['flops']['remat'] / 1e12:,.0f})"


def answers_markdown(plans: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each plan with answers."""
    out = ["| slice | mesh | at once | peak / chip GiB | parameters GiB | prefill ms, bound | compiler ms | a token ms, bound | compiler ms | answers a second ≤ |", "|---|---|---|---:|---:|---:|---:|---:|---:|---:|"]
    for plan in plans:
        made = plan["answers"]
        mesh = ", ".join(f"{axis} {size}" for axis, size in made["mesh"].items() if size > 1)
        asked = f"{made['rows']} rows of {made['length']} + {made['new']}" + f", {made['questions']} questions each" * (made["questions"] > 1)
        if not made["fits"]:
            out.append(f"| {plan['topology']} | {mesh} | {asked} | does not fit: > {gib(made['needs'])} / {gib(made['usable'])} | {gib(made['parameters'])} | | | | | |")
            continue
        times = " | ".join(f"{1e3 * made[what]['roofline']['step']:.1f}, {made[what]['roofline']['bound']} | {1e3 * made[what]['schedule']['seconds']:.1f}" if what in made else " | " for what in ("prefill", "token"))
        out.append(f"| {plan['topology']} | {mesh} | {asked} | {gib(made['peak'])} / {gib(made['usable'])} | {gib(made['parameters'])} | {times} | {made['answers_per_second']:,.0f} |")
    return out
