"""Files of a run, on a disk or in an object store: a name becomes visible only when its content is complete."""
import io
import json
import os
import uuid
import zipfile
from typing import Any

import numpy as np
from etils import epath

from vlmjax.errors import UserError


def in_store(path: epath.PathLike) -> bool:
    """Whether a path is an object store's: a name appears there with its content, and nothing is appended or renamed."""
    return "://" in str(path)


def write(path: epath.PathLike, content: str | bytes) -> None:
    """Writes next to `path` and renames, so that a kill leaves the old file or the new one, never half of one. A store does that by itself."""
    path = epath.Path(path)
    content = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        if in_store(path):
            path.write_bytes(content)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(content)
            temporary.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from None


def write_json(path: epath.PathLike, value: Any) -> None:
    write(path, json.dumps(value, indent=1) + "\n")


def read_json(path: epath.PathLike, default: Any = None) -> Any:
    """The parsed file; `default` where there is none. A file that is not JSON is an error that names it."""
    path = epath.Path(path)
    if not path.exists():
        return default
    try:
        return json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: not readable as JSON: {error}") from None


def check_writable(directory: epath.PathLike) -> None:
    """Creates the directory and proves that a file can be made in it."""
    directory = epath.Path(directory)
    probe = directory / f".probe-{os.getpid()}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        probe.unlink()
    except ImportError as error:  # of the package that knows the store
        raise UserError(f"{directory}: {reason(error)} (pip install 'vlmjax[tpu]' has it for gs://)") from None
    except OSError as error:
        raise UserError(f"{directory}: cannot be written: {error.strerror or error}") from None


def read_npz(path: epath.PathLike) -> dict[str, np.ndarray]:
    """All arrays of an .npz file; one that is none is an error that names it."""
    try:
        with np.load(io.BytesIO(epath.Path(path).read_bytes()), allow_pickle=False) as held:
            return dict(held)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: cannot be read: {reason(error)}") from None


def reason(error: Exception) -> str:
    """What an error says, on one line; of an error of the system only what went wrong."""
    return " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
