"""Which image tokens an answer depended on: how far its log-probability falls when one of them is replaced by the mean token.

An intervention, not an attention map: it says what the answer would lose. Tokens that repeat each other lose little one by one, so what all of them
together are worth stands beside. The mean token of a place is the mean over images of the same task (mean ablation: Wang et al., arXiv:2211.00593).
"""
import base64
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from PIL import Image

from vlmjax import files, losses
from vlmjax.bundle import Bundle, stack
from vlmjax.data.example import Example, Source, Turn
from vlmjax.errors import UserError
from vlmjax.evaluate import lot
from vlmjax.evaluate.task import Item, Task
from vlmjax.models.vlm import VLM
from vlmjax.train.metrics import say

MEAN_OF, FEWEST = 64, 8  # images of which the mean token is made; of fewer it would be too much the token it replaces
_IMAGES = 8              # encoded at a time: all their tokens come to the host


def measure(bundle: Bundle, task: Task, source: Source, items: Sequence[Item], predictions: Sequence[Mapping[str, Any]], each: int, batch_rows: int = 50, seed: int = 0,
            progress: Callable[[int, int], None] = lambda done, total: None) -> dict[str, Any] | None:
    """`maps/TASK.json` of up to `each` wrong and `each` right answers of `predictions` (runner.evaluate), drawn as the report draws its gallery.

    None where there is nothing to measure: no language model that sees, or none knows which answers are right; or, which is said, images that are cut into tiles, image tokens that are no places of the image, or fewer than
    FEWEST images. left_out: answers that cannot be laid out, and why. progress: called with (rows computed, rows).
    """
    real = [row for row in predictions if row["control"] == "real" and row["image"] is not None]
    images = list(dict.fromkeys(row["image"] for row in real))
    if task.choices or task.upload or bundle.vlm is None or bundle.vlm.encoder is None or not images:
        return None
    if bundle.layout.tokens:
        say(f"{task.name}: no heat maps: the {bundle.layout.tokens} image tokens of this model stand for no squares of the image")
        return None
    if bundle.layout.tiles > 1:
        say(f"{task.name}: no heat maps: they are of images that are one tile, and this model cuts an image into up to {bundle.layout.tiles}")
        return None
    if len(images) < FEWEST:
        say(f"{task.name}: no heat maps: the mean token is one of at least {FEWEST} images, and the answers are about {len(images)}")
        return None
    rows = [row for right in (False, True) for row in lot.choose([row for row in real if lot.right(row) == right], each)]
    turns = {item.id: item.turns for item in items}
    asked, left_out = [], {}
    for row in rows:
        example = Example(row["id"], (row["image"],), (*turns[row["id"]], Turn("assistant", row["prediction"])))
        try:
            bundle.processor.encode(example.turns)
            asked.append((row, example))
        except UserError as error:  # an answer without a token, say
            left_out[row["id"]] = str(error)
    drawn = np.random.default_rng(seed).permutation(len(images))[:MEAN_OF]
    mean = mean_tokens(bundle, [bundle.pixels(source.read_image(images[i])) for i in sorted(drawn)])
    pixels = [bundle.pixels(source.read_image(row["image"])) for row, _ in asked]
    found = log_probabilities(bundle, [example for _, example in asked], pixels, mean, batch_rows, progress) if asked else ()
    side = math.isqrt(bundle.layout.tokens_per_image)
    seen = side * bundle.layout.patch * bundle.layout.shuffle  # pixels beyond the last whole token are not looked at
    return {"mean_of": len(drawn), "left_out": left_out, "maps": [
        {"id": row["id"], "prediction": row["prediction"], "log_probability": _short(p[0]), "all_replaced": _short(p[1]),
         "falls": [[_short(fall) for fall in line] for line in (p[0] - p[2:]).reshape(side, side)], "view": base64.b64encode(_png(image[:seen, :seen])).decode()}
        for (row, _), image, p in zip(asked, pixels, found)]}


def mean_tokens(bundle: Bundle, pixels: Sequence[np.ndarray]) -> np.ndarray:
    """u8[size, size, 3] images → f32[P, D], the mean of the tokens that the language model reads at each place."""
    total = 0.0
    for start in range(0, len(pixels), _IMAGES):
        part = np.stack(pixels[start : start + _IMAGES])[:, None]
        tokens = bundle.run("image_tokens", lambda params, batch: bundle.vlm.image_tokens(params, batch["pixels"]), {"pixels": _filled(part, min(_IMAGES, len(pixels)))})
        total = total + tokens[: len(part)].astype(np.float64).sum(axis=0)
    return (total / len(pixels)).astype(np.float32)


def log_probabilities(bundle: Bundle, examples: Sequence[Example], pixels: Sequence[np.ndarray], mean: np.ndarray, batch_rows: int = 50,
                      progress: Callable[[int, int], None] = lambda done, total: None) -> np.ndarray:
    """f32[N, 2 + P] of the answers of N examples, each about one image: as it is, with all its tokens replaced by `mean` f32[P, D], and with each of them alone."""
    P = bundle.layout.tokens_per_image
    lengths = [bundle.processor.lengths(example) for example in examples]
    T, S = -(-max(n.head + n.tail for n in lengths) // 8) * 8, max(n.supervised for n in lengths)
    laid = stack([bundle.processor.row([[example]], T, 1, S)[0] for example in examples]) | {"pixels": np.stack(pixels)[:, None]}
    replaced = np.concatenate([np.zeros((1, P), bool), np.ones((1, P), bool), np.eye(P, dtype=bool)])
    out = np.zeros((len(examples), len(replaced)), np.float32)
    for which, variant in _batches(out.shape, batch_rows):
        batch = {key: value[which] for key, value in laid.items()} | {"replaced": replaced[variant]}
        batch = {key: _filled(value, min(batch_rows, out.size)) for key, value in batch.items()}
        out[which, variant] = bundle.run("log_probability", _make_log_probability(bundle.vlm), batch, mean)[: len(which)]
        progress(int(which[-1]) * len(replaced) + int(variant[-1]) + 1, out.size)
    return out


def _make_log_probability(vlm: VLM) -> Callable[..., jax.Array]:
    def log_probability(params, batch, mean):
        tokens = vlm.image_tokens(params, batch["pixels"])
        tokens = jnp.where(batch["replaced"][:, :, None], mean.astype(tokens.dtype), tokens)
        logits = vlm.logits(params, batch | {"image_tokens": tokens})
        return jnp.sum(losses.log_probabilities(logits, batch["targets"]) * (batch["weights"] > 0), axis=1)

    return log_probability


def _batches(shape: tuple[int, int], rows: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All (i, j) of an array, so many at a time."""
    i, j = (index.ravel() for index in np.indices(shape))
    for start in range(0, i.size, rows):
        yield i[start : start + rows], j[start : start + rows]


def _filled(value: np.ndarray, rows: int) -> np.ndarray:
    """With its first row repeated up to `rows`, so that the last batch has the shape of the others."""
    return np.concatenate([value, np.repeat(value[:1], rows - len(value), axis=0)])


def _short(value: Any) -> float:
    return float(f"{float(value):.5g}")


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write(workdir: epath.PathLike, task: str, found: Mapping[str, Any] | None) -> None:
    """`maps/TASK.json`; without maps there is none, an earlier one would be of other answers."""
    path = epath.Path(workdir) / "maps" / f"{task}.json"
    if found:
        files.write_json(path, found)
    elif path.exists():
        path.unlink()
