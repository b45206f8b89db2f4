"""Reads a run's directory (`design.md`, "A run's directory"). A part that is not there is empty; a part that is broken is an error."""
import dataclasses
import functools
import json
import re
from typing import Any

from etils import epath

from vlmjax.errors import UserError

NOT_CONTROLS = ("unparsed", "provenance")


@dataclasses.dataclass(frozen=True)
class Task:
    """One entry of results.json. controls: {control: {metric: {"value", "stderr", "n", "variant"}}}."""
    name: str
    controls: dict[str, dict[str, dict]]
    unparsed: Any
    provenance: dict

    @functools.cached_property
    def metric(self) -> str:
        """The metric that stands for the whole task."""
        names = [name for metrics in self.controls.values() for name in metrics]
        return next((name for name in ("exact_match", "accuracy") if name in names), names[0] if names else "")

    def score(self, control: str, metric: str | None = None) -> dict | None:
        return self.controls.get(control, {}).get(metric or self.metric)


@dataclasses.dataclass(frozen=True)
class Stage:
    """record: the stage's entry in record.json, {} while it has not finished. metrics: its lines, one per step, in order."""
    name: str
    record: dict
    metrics: list[dict]

    def series(self, key: str) -> list[tuple[int, float]]:
        """The (step, value) pairs of one metric; NaN and infinities are in it."""
        return [(line["step"], line[key]) for line in self.metrics
                if isinstance(line.get(key), (int, float)) and not isinstance(line[key], bool)]

    def keys(self) -> list[str]:
        return list(dict.fromkeys(key for line in self.metrics for key in line if key != "step"))

    @property
    def frozen_is_equal(self) -> bool | None:
        """Did the frozen parameters keep their hash? None when nothing was frozen or the stage has no record."""
        if not self.record.get("frozen"):
            return None
        hashes = self.record.get("frozen_sha256") or {}
        return bool(hashes.get("before")) and hashes.get("before") == hashes.get("after")


@dataclasses.dataclass(frozen=True)
class Run:
    name: str
    config: dict          # all of config.json: "fingerprint", "config", "differences"
    record: dict
    stages: list[Stage]
    tasks: list[Task]     # the one to show first comes first
    predictions: dict[str, list[dict]]
    preflight: dict = dataclasses.field(default_factory=dict)   # preflight.json: "stages", "notes"
    maps: dict[str, dict] = dataclasses.field(default_factory=dict)   # maps/TASK.json: "mean_of", "maps", "left_out"

    @property
    def unfinished(self) -> list[str]:
        return [stage.name for stage in self.stages if not stage.record]

    @property
    def components(self) -> list[str]:
        """Every component that a stage computed, in the order of appearance; of an unfinished stage, those whose gradients it logged."""
        return list(dict.fromkeys(
            name for stage in self.stages
            for name in (*(stage.record.get("trainable") or {}), *(stage.record.get("frozen") or {}),
                         *(key.removeprefix("grad_norm/") for key in stage.keys() if key.startswith("grad_norm/")))))


def parse(text: str, place: str) -> dict:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{place}: not readable as JSON ({error.msg}); restore the file or run the command that wrote it again") from None
    if not isinstance(value, dict):
        raise UserError(f"{place}: expected a JSON object, found {type(value).__name__}")
    return value


def read_json(path: epath.Path) -> dict:
    return parse(path.read_text(), str(path)) if path.exists() else {}


def read_lines(path: epath.Path) -> list[dict]:
    return [parse(line, f"{path}:{number}") for number, line in enumerate(path.read_text().splitlines(), 1) if line.strip()]


def read_metrics(directory: epath.Path) -> dict[str, list[dict]]:
    """{stage: lines by step}. Growing files are numbered parts; a later part repeats the steps after the checkpoint it resumed from."""
    parts = []
    for path in directory.iterdir() if directory.exists() else ():
        if match := re.fullmatch(r"(.+)-(\d+)\.jsonl", path.name):
            parts.append((match[1], int(match[2]), path))
    steps: dict[str, dict[int, dict]] = {}
    for stage, _, path in sorted(parts):
        steps.setdefault(stage, {}).update({line["step"]: line for line in read_lines(path) if "step" in line})
    return {stage: [lines[step] for step in sorted(lines)] for stage, lines in steps.items()}


def read_tasks(results: dict) -> list[Task]:
    tasks = [Task(name, {key: value for key, value in entry.items() if key not in NOT_CONTROLS and isinstance(value, dict)},
                  entry.get("unparsed"), entry.get("provenance") or {})
             for name, entry in results.items() if isinstance(entry, dict)]
    return sorted(tasks, key=lambda task: (-len(task.controls), -max(map(len, task.controls.values()), default=0)))


def read(workdir) -> Run:
    root = epath.Path(workdir)
    config_path = root / "config.json"
    if not config_path.exists():
        raise UserError(f"{workdir}: not a run's directory (no config.json); give the --workdir of a `vlmjax train`")
    config, record = read_json(config_path), read_json(root / "record.json")
    metrics = read_metrics(root / "metrics")
    records = {entry["name"]: entry for entry in record.get("stages") or []}
    names = dict.fromkeys([*(config.get("config", {}).get("run") or []), *records, *metrics])
    stages = [Stage(name, records.get(name, {}), metrics.get(name, [])) for name in names]
    tasks = read_tasks(read_json(root / "results.json"))
    files = {task.name: root / "predictions" / f"{task.name}.jsonl" for task in tasks}
    predictions = {name: read_lines(path) for name, path in files.items() if path.exists()}
    return Run(root.resolve().name if "://" not in str(root) else root.name, config, record, stages, tasks, predictions,
               read_json(root / "preflight.json"), {task.name: read_json(root / "maps" / f"{task.name}.json") for task in tasks})
