"""`vlmjax report`: writes report.html of a run."""
from collections.abc import Callable

from etils import epath

from vlmjax import files, report
from vlmjax.commands import common
from vlmjax.errors import UserError
from vlmjax.evaluate import runner
from vlmjax.evaluate.tasks import TASKS


def main(argv: list[str]) -> None:
    flags = common.Flags("report", "Writes report.html into a run's directory: one file that opens without a network.").data_dir()
    flags.add_argument("--workdir", required=True)
    args = flags.read(argv)
    workdir = common.run_directory(args.workdir)
    held = files.read_json(workdir / "config.json")
    if held is None:
        raise UserError(f"{workdir}: holds no run")
    print(report.write(workdir, image_reader(args.data_dir, workdir)))


def image_reader(data_dir: str, workdir: epath.PathLike) -> Callable[[str, str], bytes | None]:
    """(task, image key) → the image as its data set holds it, in the split that results.json was scored on; None where it is not here."""
    opened, splits = {}, {task: entry.get("provenance", {}).get("split", "") for task, entry in runner.read_results(workdir).items()}

    def read(task: str, key: str) -> bytes | None:
        if task not in opened:
            try:
                opened[task] = TASKS[task].read(data_dir, splits.get(task, ""))[0] if task in TASKS else None
            except UserError:
                opened[task] = None
        try:
            return opened[task].read_image(key) if opened[task] else None
        except (KeyError, UserError):
            return None

    return read
