"""`vlmjax ablate`: every row of a config's sweep under several seeds, each a `vlmjax train` of its own → one table. Run it again and it goes on."""
import dataclasses
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from vlmjax import ablate, files
from vlmjax import config as configs
from vlmjax.commands import common
from vlmjax.commands.prepare import RunConfig
from vlmjax.commands.train import moved
from vlmjax.errors import Stopped, UserError, did_you_mean
from vlmjax.report import ablation
from vlmjax.train.metrics import say

# Keys of `evaluate` that say what is asked: runs that differ in them cannot be compared, and a finished run is not asked again.
ASKED = ("split", "sample", "seed", "controls")
# Of a run that was told to stop, also before it had begun to listen.
TOLD = (128 + signal.SIGINT, 128 + signal.SIGTERM, -signal.SIGINT, -signal.SIGTERM)


@dataclasses.dataclass(frozen=True)
class Planned:
    """One run: of a row, under a seed. arguments: of `vlmjax train`; node: its config."""

    row: str
    seed: int
    workdir: epath.Path
    arguments: tuple[str, ...]
    node: ConfigDict = dataclasses.field(compare=False)

    @property
    def command(self) -> str:
        return shlex.join(["vlmjax", "train", *self.arguments])

    @property
    def ended(self) -> bool:
        return ablate.ended(files.read_json(self.workdir / "record.json"))


def main(argv: list[str]) -> None:
    flags = common.Flags("ablate", "Trains every row of the config's get_sweep() under several seeds, and writes one table with intervals; run it again to go on. "
                                   "--config.KEY=VALUE overrides a key in all rows.").data_dir()
    flags.add_argument("--config", required=True, help="FILE.py or FILE.py:ARG, with get_config and get_sweep")
    flags.add_argument("--workdir", required=True, help="where runs and tables go")
    flags.add_argument("--seeds", type=int, default=1, help="runs of each row (default: 1, which says nothing of the spread between seeds)")
    flags.add_argument("--rows", default="", help="only these rows, as 'a;b', by their names (default: all); the table has all that are there")
    flags.add_argument("--dry_run", action="store_true", help="print the commands, and run none")
    overrides = [a for a in argv if a.startswith("--config.")]
    args = flags.read([a for a in argv if not a.startswith("--config.")])
    if args.seeds < 1:
        raise UserError(f"--seeds: {args.seeds} is less than 1")
    workdir = common.run_directory(args.workdir)
    rows = configs.sweep(args.config)
    planned = plan(args.config, rows, workdir, args.seeds, overrides, args.data_dir)
    asked = chosen([name for name, _ in rows], args.rows)
    mine = [run for run in planned if run.row in asked]
    if args.dry_run:
        print("\n".join(run.command for run in mine))
        return
    files.check_writable(workdir)
    check_directories(planned)
    failed = work(mine)
    say(write(workdir, args.config, rows, planned, failed))
    if failed:
        raise Stopped("ablate: " + "; ".join(f"{run.row}, seed {run.seed}, ended with status {status}" for run, status in failed.items()) + ": the same command tries again", 1)


def plan(spec: str, rows: Sequence[tuple[str, dict[str, Any]]], workdir: epath.Path, seeds: int, overrides: Sequence[str], data_dir: str) -> list[Planned]:
    """All runs, seed by seed, so that a table of few seeds is whole before there is one of more. Every row's config is read and checked before anything runs."""
    out: dict[str, Planned] = {}
    folders: dict[str, str] = {}
    for name, changes in rows:
        folder = re.sub(r"[^A-Za-z0-9.=+-]+", "-", name).strip("-.") or "row"
        if folder in folders:
            raise UserError(f"get_sweep: the rows {folders[folder]!r} and {name!r} would share the directory {folder}; give one another name")
        folders[folder] = name
        if "seed" in changes:
            raise UserError(f"get_sweep: the row {name!r} sets seed, which --seeds does for every row")
    for k in range(seeds):
        for name, changes in rows:
            try:
                first = configs.read(spec, [*overrides, *configs.arguments(changes)], RunConfig)[0].get("seed", 0)
                own = [*overrides, *configs.arguments({**changes, "seed": first + k})]
                node = configs.read(spec, own, RunConfig)[0]
                configs.build(RunConfig, node)
            except UserError as error:
                raise UserError(f"get_sweep: row {name!r}: {error}") from None
            if out and (differ := otherwise(next(iter(out.values())).node, node)):
                raise UserError(f"get_sweep: row {name!r} would be asked other questions than the first: {differ}; evaluate.{', evaluate.'.join(ASKED)} are the same in all rows")
            place = workdir / "runs" / next(folder for folder, of in folders.items() if of == name) / f"seed-{first + k}"
            run = Planned(name, first + k, place, (f"--config={spec}", f"--workdir={place}", f"--data_dir={data_dir}", *own), node)
            if (mark := configs.fingerprint(node)) in out:
                raise UserError(f"get_sweep: the rows {out[mark].row!r} and {name!r} are the same training: they differ in nothing that can change its result")
            out[mark] = run
    return list(out.values())


def otherwise(held: Any, node: Any) -> str:
    """What of `evaluate` differs between two configs, so that their answers cannot be compared; empty: nothing."""
    said = [[configs.plain((config.get("evaluate") or {}).get(key)) for key in ASKED] for config in (held, node)]
    return "; ".join(f"evaluate.{key} {a!r}, {b!r}" for key, a, b in zip(ASKED, *said) if a != b)


def chosen(names: Sequence[str], asked: str) -> list[str]:
    """The rows that `--rows` names."""
    parts = [part.strip() for part in asked.split(";") if part.strip()] or list(names)
    for part in parts:
        if part not in names:
            raise UserError(f"--rows: no row {part!r}{did_you_mean(part, names)}")
    return parts


def check_directories(planned: Sequence[Planned]) -> None:
    """Refuses a directory with runs of other configs before anything is trained in it."""
    for run in planned:
        held = files.read_json(run.workdir / "config.json")
        if held is not None:
            moved(run.workdir, held, run.node)
            if run.ended and (differ := otherwise(held["config"], run.node)):
                raise UserError(f"{run.workdir}: was asked other questions than this command would ask: {differ}; give another --workdir")


def work(runs: Sequence[Planned]) -> dict[Planned, int]:
    """Trains what has not ended. → {run that failed: its status}; one that was told to stop ends all, and the same command goes on."""
    failed: dict[Planned, int] = {}
    left = [run for run in runs if not run.ended]
    if len(left) < len(runs):
        say(f"ablate: {len(runs) - len(left)} of {len(runs)} runs have ended before")
    began = time.monotonic()
    for number, run in enumerate(left):
        eta = f"; about {(time.monotonic() - began) / number * (len(left) - number) / 60:.0f} min left" if number else ""
        say(f"ablate: run {number + 1} of {len(left)}{eta}: {run.command}")
        status = train(run)
        if status in TOLD:
            raise Stopped(f"ablate: stopped in {run.row}, seed {run.seed}; the same command goes on from there", 128 - status if status < 0 else status)
        if status:
            say(f"ablate: {run.row}, seed {run.seed}, ended with status {status}; the other rows go on")
            failed[run] = status
    return failed


def train(run: Planned) -> int:
    """`vlmjax train` as a process of its own, with this one's output. SIGTERM goes on to it, and it saves. → its exit status."""
    told: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: told.append(number))  # before there is a child, which would be left alone
    try:
        with subprocess.Popen([sys.executable, "-m", "vlmjax", "train", *run.arguments], env=os.environ) as process:
            signal.signal(signal.SIGTERM, lambda number, _: process.send_signal(number))
            for number in told:
                process.send_signal(number)
            while True:
                try:
                    return process.wait()
                except KeyboardInterrupt:  # a terminal sends it to both, a supervisor to this one alone
                    try:
                        return process.wait(1)
                    except subprocess.TimeoutExpired:
                        process.send_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGTERM, before)


def write(workdir: epath.Path, spec: str, rows: Sequence[tuple[str, dict[str, Any]]], planned: Sequence[Planned], failed: dict[Planned, int]) -> str:
    """`ablation.json`, `ablation.md` and `ablation.html` of all runs that have ended. → what is said of them. On a pod every process writes the same."""
    runs = {name: [run for one in planned if one.row == name and (run := ablate.read(one.workdir, one.seed))] for name, _ in rows}
    names, having = [name for name, _ in rows], {name: found for name, found in runs.items() if found}
    absent = {name: f"status {next(status for run, status in failed.items() if run.row == name)}" if any(run.row == name for run in failed) else "not run"
              for name in names if name not in having}
    missing = [f"{run.row}, seed {run.seed}" for run in planned if not run.ended]
    if names[0] in absent and having:
        say(f"ablate: the first row, {names[0]}, has no result: nothing is compared with it yet")
    tables = ablate.table({name: runs[name] for name in names} if having else {})
    unlike = ablate.unlike([run for found in having.values() for run in found])
    notes = [f"not in the table: {'; '.join(missing)}"] if missing else []
    notes += [f"runs differ in {key}: {' | '.join(map(str, values))}" for key, values in unlike.items()]
    if any(len(found) == 1 for found in having.values()):
        notes.append("of a row with one seed nothing is known of the spread between seeds: its interval is for other questions only")
    data = {"config": spec, "rows": {name: {"overrides": changes, "runs": {run.seed: run.about | {"workdir": run.workdir} for run in runs[name]}} for name, changes in rows},
            "tasks": tables, "notes": notes}
    text = ablate.markdown(tables, names, absent) + "".join(f"\n{note}\n" for note in notes)
    files.write_json(workdir / "ablation.json", configs.plain(data))
    files.write(workdir / "ablation.md", text)
    files.write(workdir / "ablation.html", ablation.page(workdir.name, data, names))
    return f"{text}\n{workdir / 'ablation.md'}, ablation.html and ablation.json"
