"""`vlmjax report`: writes report.html of a run."""
from collections.abc import Callable

from vlmjax import files, report
from vlmjax.commands import common
from vlmjax.errors import UserError
from vlmjax.evaluate.tasks import TASKS


def main(argv: list[str]) -> None:
    flags = common.Flags("report", "Writes report.html into a run's directory: one file that opens without a network.").data_dir()
    flags.add_argument("--workdir", required=True)
    args = flags.read(argv)
    workdir = common.run_directory(args.workdir)
    held = files.read_json(workdir / "config.json")
    if held is None:
        raise UserError(f"{workdir}: holds no run")
    print(report.write(workdir, image_reader(args.data_dir, held["config"].get("evaluate", {}).get("split", ""))))


def image_reader(data_dir: str, split: str) -> Callable[[str, str], bytes | None]:
    """(task, image key) → the image as its data set holds it; None where the data set is not here."""
    opened = {}

    def read(task: str, key: str) -> bytes | None:
        if task not in opened:
            try:
                opened[task] = TASKS[task].read(data_dir, split)[0] if task in TASKS else None
            except UserError:
                opened[task] = None
        try:
            return opened[task].read_image(key) if opened[task] else None
        except KeyError:
            return None

    return read
