"""Files in the layout of a published benchmark, with images made here: that a task reads them and a model is scored with it."""
import io
import json
import pathlib

import numpy as np
import tokenizers
from PIL import Image
from tokenizers import decoders, models, normalizers

from tests.evaluate import tiny
from vlmjax import bundle
from vlmjax.data.conversation import TEMPLATES
from vlmjax.data.tokenizer import SPECIALS, Tokenizer
from vlmjax.evaluate import runner
from vlmjax.evaluate.tasks import TASKS


def picture(path: pathlib.Path, seed: int, size: tuple[int, int] = (24, 18)) -> bytes:
    """Writes an image of one color, drawn by `seed`, in the format of its name, and returns it."""
    held = io.BytesIO()
    Image.fromarray(np.full((size[1], size[0], 3), np.random.default_rng(seed).integers(0, 256, 3), np.uint8)).save(held, {".png": "PNG"}.get(path.suffix, "JPEG"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(held.getvalue())
    return held.getvalue()


def write(path: pathlib.Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def lines(path: pathlib.Path, rows: list[dict]) -> None:
    """JSON lines."""
    write(path, "".join(json.dumps(row) + "\n" for row in rows))


def letters() -> Tokenizer:
    """Small letters one by one; whatever else a text holds is one token. 48 ids at most, as the tiny model has."""
    backend = tokenizers.Tokenizer(models.BPE({token: i for i, token in enumerate([*SPECIALS.values(), *"abcdefghijklmnopqrstuvwxyz .?*"])}, [], unk_token="*"))
    backend.normalizer, backend.decoder = normalizers.Lowercase(), decoders.Fuse()
    backend.add_special_tokens(list(SPECIALS.values()))
    return Tokenizer(backend, {role: backend.token_to_id(token) for role, token in SPECIALS.items()})


def scored(name: str, data_dir: pathlib.Path, split: str = "") -> tuple[dict, list[dict]]:
    """(its entry of results.json, predictions) of the tiny random model under every control."""
    return runner.evaluate(bundle.make(tiny.tiny.modules(), tiny.parameters(), letters(), TEMPLATES["plain_qa"], tiny.LAYOUT), TASKS[name], str(data_dir), split, batch_rows=4)
