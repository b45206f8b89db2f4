"""A reference that was computed before and stored: FAMILY/model/ (a checkpoint as transformers wrote it) and FAMILY/reference.npz."""
import types
from typing import Any

import numpy as np
from etils import epath

from vlmjax import pretrained
from vlmjax.parity import cases, ours, table

IMAGE = "image/"  # files that the reference was given: an encoder elsewhere may make other bytes


def load(directory: epath.PathLike) -> tuple[dict[str, np.ndarray], Any]:
    """→ (reference, cases with the stored images)."""
    with (epath.Path(directory) / "reference.npz").open("rb") as file:
        stored = dict(np.load(file))
    images = {key.removeprefix(IMAGE): value.tobytes() for key, value in stored.items() if key.startswith(IMAGE)}
    given = {name: getattr(cases, name) for name in ("MODEL_IMAGES", "TEXTS", "PROMPTS", "IMAGE_PROMPTS", "ANSWERS")}
    return {key: value for key, value in stored.items() if not key.startswith(IMAGE)}, types.SimpleNamespace(**given, images=lambda: images)


def compare(directory: epath.PathLike) -> list[table.Row]:
    """The rows of one family, computed now against what is stored."""
    reference, given = load(directory)
    return table.compare(ours.run(pretrained.load(epath.Path(directory) / "model"), given), reference)
