"""What is said of a published data set: its files, where they come from and where they lie under the data directory."""
import dataclasses

from vlmjax.data.files_at import File, join

HUB = "https://huggingface.co/datasets"
UNSTATED = "size not stated"


@dataclasses.dataclass(frozen=True)
class Part:
    """A file or a folder of images. path: under the data directory; size: of the download; packed: where its archive may lie instead, as it is; folder:
    what a stage then names as FOLDER, the same as before where it is empty."""

    path: str
    url: str
    size: str = UNSTATED
    what: str = ""
    licence: str = ""
    packed: str = ""
    folder: str = ""

    def state(self, data_dir: str) -> str:
        """present, packed (its archive is there) or missing."""
        if File(join(data_dir, self.path)).exists():
            return "present"
        return "packed" if self.packed and File(join(data_dir, self.packed)).exists() else "missing"


@dataclasses.dataclass(frozen=True)
class Entry:
    """specs: as stages name it in `data`; tasks: that are scored with it. examples: how many its publisher says it has; read where the data is not there."""

    about: str
    specs: tuple[str, ...]
    parts: tuple[Part, ...]
    licence: str
    page: str
    note: str = ""
    examples: int = 0
    tasks: tuple[str, ...] = ()
