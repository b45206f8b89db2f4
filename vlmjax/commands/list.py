"""`vlmjax list KIND`: what exists."""
import dataclasses

from vlmjax.commands.common import Flags
from vlmjax.data.datasets import DATASETS
from vlmjax.evaluate.tasks import TASKS
from vlmjax.models import clip, decoder, projector, vit
from vlmjax.plan.topologies import TOPOLOGIES

KINDS = {"encoders": vit.VARIANTS, "projectors": projector.VARIANTS, "decoders": decoder.VARIANTS, "text_towers": clip.VARIANTS, "tasks": TASKS, "datasets": DATASETS,
         "topologies": TOPOLOGIES}


def main(argv: list[str]) -> None:
    flags = Flags("list", "Prints what exists of a kind, with its sizes.")
    flags.add_argument("kind", choices=list(KINDS))
    for name, what in KINDS[flags.read(argv).kind].items():
        print(f"{name:18} {describe(what)}")


def describe(what: object) -> str:
    """A variant's sizes, what a task is about, or the first line of a module's docstring."""
    if hasattr(what, "about"):
        return what.about
    if dataclasses.is_dataclass(what) and hasattr(what, "width") or hasattr(what, "depth"):
        sizes = {f.name: getattr(what, f.name) for f in dataclasses.fields(what)}
        return ", ".join(f"{name} {value}" for name, value in sizes.items() if isinstance(value, (int, str)) and not isinstance(value, bool))
    return (what.__doc__ or "").strip().splitlines()[0] if what.__doc__ else ""
