"""Asks a model all questions of a task under every control, each distinct (prompt, image) pair once, and has the answers scored."""
import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from vlmjax import files
from vlmjax.bundle import Bundle, stack
from vlmjax.data import tiles
from vlmjax.data.conversation import spans
from vlmjax.data.example import Source, Turn
from vlmjax.errors import UserError, did_you_mean
from vlmjax.evaluate import benchmark, prior, scoring
from vlmjax.evaluate.answers import Answers
from vlmjax.evaluate.controls import CONTROLS, SHOWN, derangement, grey
from vlmjax.evaluate.task import Item, Task
from vlmjax.train import proof, record

GREY = "\0grey"  # the key of the image that `blind` shows; no source has such a key
MAX_LENGTH = 2048  # tokens of a row whose images are one tile, unless the caller sets another limit

Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class Request:
    """A prompt with the image it is shown with, and of how many tiles that is; equal requests have one answer."""

    turns: tuple[Turn, ...]
    shown: str | None
    tiles: int = 1

    @property
    def counts(self) -> tuple[int, ...]:
        """Tiles of each image that the prompt marks."""
        return () if self.shown is None else (self.tiles,)


def evaluate(bundle: Bundle, task: Task, data_dir: str, split: str = "", controls: Sequence[str] = CONTROLS, batch_rows: int = 50,
             limit: int | None = None, sample: int | None = None, seed: int = 0, length: int | None = None, progress: Progress = lambda done, total: None,
             kept: Answers | None = None) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """→ (the task's entry of results.json, predictions: one dict per item and control).

    split: "" is the task's own. limit: the first so many items. sample: so many, of images drawn by `seed` (see `draw`). seed: also of the derangement of `shuffled`, which is over the
    images of the whole split. length: a question whose prompt and image need more tokens is refused; None: MAX_LENGTH, and what more tiles of an image need.
    A task that is uploaded is asked only where the model is shown something. progress: called with (requests answered, requests) after each batch. kept: what an interrupted evaluation has answered, and where this one leaves what
    it answers (answers.py).
    """
    for control in controls:
        if control not in CONTROLS:
            raise UserError(f"--control: {control!r} is not known{did_you_mean(control, CONTROLS)}")
    if batch_rows < 1 or any(n is not None and n < 1 for n in (limit, sample)):
        raise UserError(f"evaluate: rows ({batch_rows}), limit ({limit}) and sample ({sample}) are at least 1")
    if task.upload:
        controls = [control for control in controls if control in SHOWN]
        if not controls:
            raise UserError(f"--control: the answers of {task.name} are on a server, so that it has no prior; it is asked under {', '.join(SHOWN)}")
    source, everything = task.read(data_dir, split)
    if not everything:
        raise UserError(f"{task.name}: the split {split or task.split!r} has no items")
    other = derangement((item.image for item in everything if item.image is not None), seed) if "shuffled" in controls else {}
    items = (draw(everything, sample, seed) if sample else everything)[:limit]
    if length is None:
        length = MAX_LENGTH + (bundle.layout.most - 1) * bundle.layout.tokens_per_image if bundle.layout else MAX_LENGTH
    asked = {item.image for item in items if item.image is not None}
    known = tiles.count(source, bundle.layout, sorted(asked | {other[key] for key in asked if key in other}))
    requests = {control: [_request(control, item, other, known) for item in items] for control in controls if control in SHOWN}
    distinct = list(dict.fromkeys(request for asked in requests.values() for request in asked))
    names = {request: item.id for asked in requests.values() for request, item in zip(asked, items)}
    answer = _choose if task.choices else _generate
    model, data, prompt = proof.sha256(proof.digests(bundle.params)), data_hash(source, items), _prompt(bundle, task, items[0])
    kept = kept or Answers()
    asked_of = [model, data, prompt, repr(bundle.layout), task.name, task.max_new_tokens, task.choices, batch_rows, length, [[[(t.role, t.text) for t in r.turns], r.shown] for r in distinct]]
    kept.begin(hashlib.sha256(json.dumps(asked_of).encode()).hexdigest())
    answers = answer(bundle, task, source, distinct, names, batch_rows, length, progress, kept) if distinct else {}
    texts = {control: [answers[request] for request in asked] for control, asked in requests.items()}
    if "prior" in controls:
        texts["prior"] = prior.guess(task, data_dir, everything, items)
    predictions = [{"id": item.id, "image": item.image, "question": item.question, "answer": item.answer, "kind": item.kind,
                    **({"answers": list(item.answers)} if item.answers else {}), **({"group": item.group} if item.group else {}), **({"options": list(item.options)} if item.options else {}),
                    "control": control, "prediction": text, **({"correct": scoring.grade(task, text, item.accepted, item.options)} if task.score else {})}
                   for control in controls for item, text in zip(items, texts[control])]
    provenance = {
        "data": data, "split": split or task.split, "items": len(items), "model": model, "prompt": prompt, "parser": task.parser,
        "image": dataclasses.asdict(bundle.layout) if bundle.layout else None, "seed": seed, "sample": sample, "prior": prior.source(task) if task.score else None, "commit": record.git_commit(),
    }
    return {**scoring.rescore(predictions, task), "provenance": provenance}, predictions


def draw(items: Sequence[Item], count: int, seed: int) -> list[Item]:
    """`count` items, in their natural order: all of some images drawn by `seed`, of the last image only the first so many. Items that have groups are drawn by whole groups, as many as are
    not more than `count`, and at least one."""
    together: dict[str, list[int]] = {}
    for i, item in enumerate(items):
        together.setdefault(item.group or (item.image if item.image is not None else item.id), []).append(i)
    keys, drawn = list(together), []
    for k in np.random.default_rng(seed).permutation(len(keys)):
        own = together[keys[k]]
        if drawn and items[own[0]].group and len(drawn) + len(own) > count:
            break
        drawn += own
    return [items[i] for i in sorted(drawn if items[drawn[0]].group else drawn[:count])]


def _request(control: str, item: Item, other: Mapping[str, str], known: tiles.Tiles | None) -> Request:
    """What is asked of an item under a control; grey has as many tiles as the image whose place it takes."""
    if item.image is None:
        return Request(item.turns, None)
    shown = other[item.image] if control == "shuffled" else item.image
    return Request(item.turns, GREY if control == "blind" else shown, *(known.of((shown,)) if known else ()))


def _read(source: Source, key: str, prepare: Callable[[bytes], np.ndarray]) -> np.ndarray:
    try:
        return prepare(source.read_image(key))
    except UserError as error:
        raise UserError(f"{source.name}: image {key}: {error}") from None


# --- a language model answers ---------------------------------------------------------------------------------------------------

def _generate(bundle: Bundle, task: Task, source: Source, requests: Sequence[Request], names: Mapping[Request, str], batch_rows: int,
              length: int, progress: Progress, kept: Answers) -> dict[Request, str]:
    """Questions that are shown one image share rows; all batches have one shape, so one program answers them."""
    if bundle.vlm is None:
        raise UserError(f"{task.name}: the model has no language model, so it cannot answer")
    if bundle.vlm.encoder is None and any(request.shown is not None for request in requests):
        raise UserError(f"{task.name}: the model has no image encoder and projector, so it cannot be asked about images")
    rows, T, Q = plan(requests, _lengths(bundle, requests, names, length), length, _work_per_token(bundle.vlm.decoder))
    M = max(sum(request.counts) for request in requests)
    answers: dict[Request, str] = {}
    empty = bundle.processor.prompt_row([], T, M, Q)[0]
    for start in range(0, len(rows), batch_rows):
        part = [[requests[i] for i in row] for row in rows[start : start + batch_rows]]
        if start in kept.known:
            answers.update(zip(itertools.chain(*part), kept.known[start]))
            continue
        keys = [() if row[0].shown is None else (row[0].shown,) for row in part]
        laid = [bundle.processor.prompt_row([(own, [r.turns for r in row])], T, M, Q, [row[0].counts])[0] for own, row in zip(keys, part)]
        fill = min(batch_rows, len(rows)) - len(part)  # empty rows, so that the last batch has the shape of the others
        shown = [_tiles(bundle, source, row[0]) if own else () for own, row in zip(keys, part)]
        batch = stack(laid + [empty] * fill) | bundle.pack_pixels(shown + [()] * fill, M)
        texts = [bundle.said(answer) for row, ids in zip(part, bundle.answer(batch, task.max_new_tokens)) for answer in ids[: len(row)]]
        answers.update(zip(itertools.chain(*part), texts))
        kept.add(start, texts)
        progress(len(answers), len(requests))
    return answers


def _tiles(bundle: Bundle, source: Source, request: Request) -> np.ndarray:
    """u8[n, size, size, 3]."""
    return np.repeat(grey(bundle.layout)[None], request.tiles, axis=0) if request.shown == GREY else _read(source, request.shown, bundle.tiles)


def _lengths(bundle: Bundle, requests: Sequence[Request], names: Mapping[Request, str], length: int) -> list[tuple[Any, int, int]]:
    """(head, its tokens, tokens of the question behind it) of each request; refuses one that no row can hold."""
    out = []
    for request in requests:
        try:
            encoded = bundle.processor.encode(request.turns, True, request.counts)
        except UserError as error:
            raise UserError(f"item {names[request]}: {error}") from None
        head, tail = len(encoded.head.tokens), len(encoded.tail)
        if head + tail > length:
            raise UserError(f"item {names[request]}: its prompt needs {head + tail} tokens (length), {length} are available")
        out.append((encoded.head, head, tail))
    return out


def plan(requests: Sequence[Request], lengths: Sequence[tuple[Any, int, int]], length: int, per_token: float = 0.0) -> tuple[list[list[int]], int, int]:
    """→ (rows of indexes of requests, T, Q): every request once, a row's requests share image and head, and no row needs more than
    T ≤ `length` tokens or holds more than Q questions.

    The image in a row costs P tokens however few its questions, and attention T²: Q is the number that makes rows · T · (T + per_token) least.
    """
    groups: dict[Any, list[int]] = {}
    for i, request in enumerate(requests):
        # Without an image there is no head to share, and questions of one row would only wait for each other.
        groups.setdefault((request.shown, lengths[i][0]) if request.shown is not None else i, []).append(i)
    heads = [lengths[group[0]][1] for group in groups.values()]
    ends = [list(itertools.accumulate((lengths[i][2] for i in group), initial=0)) for group in groups.values()]
    best = None
    for Q in range(1, max(map(len, groups.values())) + 1):
        cuts = [_cuts(len(group), Q) for group in groups.values()]
        T = max(head + end[b] - end[a] for head, end, cut in zip(heads, ends, cuts) for a, b in cut)
        if T <= length:
            T = min(-(-T // 8) * 8, length)
            cost = sum(map(len, cuts)) * T * (T + per_token)
            best = min(best or (cost, T, Q, cuts), (cost, T, Q, cuts))
    _, T, Q, cuts = best
    return [group[a:b] for group, cut in zip(groups.values(), cuts) for a, b in cut], T, Q


def _work_per_token(decoder: Any) -> float:
    """The work of a token outside attention, in keys it could attend to instead: matrix products over 4·D·keys of a layer's attention, taken as a quarter,
    since small products of attention run at a fraction of the speed."""
    c = decoder.config
    return (2 * c.width * c.head_dim * (c.heads + c.kv_heads) + 3 * c.width * c.mlp) / (2 * c.heads * c.head_dim) / 4


def _cuts(count: int, most: int) -> list[tuple[int, int]]:
    """0 … count-1 in neighbouring parts of nearly one size, at most `most`: [(start, stop), …]."""
    parts = -(-count // most)
    return [(count * i // parts, count * (i + 1) // parts) for i in range(parts)]


# --- two towers choose ----------------------------------------------------------------------------------------------------------

def _choose(bundle: Bundle, task: Task, source: Source, requests: Sequence[Request], names: Mapping[Request, str], batch_rows: int,
            length: int, progress: Progress, kept: Answers) -> dict[Request, str]:
    """The choice whose text feature has the highest cosine with the image's (of equals the first)."""
    if bundle.clip is None:
        raise UserError(f"{task.name}: the model has no text tower and contrast head, so it cannot compare images with texts")
    texts = _unit(bundle.text_features(task.choices))
    answers: dict[Request, str] = {}
    for start in range(0, len(requests), batch_rows):
        part = requests[start : start + batch_rows]
        if start in kept.known:
            answers.update(zip(part, kept.known[start]))
            continue
        pixels = [grey(bundle.layout) if request.shown == GREY else _read(source, request.shown, bundle.pixels) for request in part]
        pixels += [np.zeros_like(pixels[0])] * (min(batch_rows, len(requests)) - len(part))
        cosines = _unit(bundle.pixel_features(np.stack(pixels))) @ texts.T
        chosen = [task.choices[choice] for choice in cosines.argmax(axis=1)[: len(part)]]
        answers.update(zip(part, chosen))
        kept.add(start, chosen)
        progress(len(answers), len(requests))
    return answers


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


# --- what was measured ----------------------------------------------------------------------------------------------------------

def data_hash(source: Source, items: Sequence[Item]) -> str:
    """SHA-256 over the items and the bytes of their images."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(json.dumps([item.id, item.image, [[turn.role, turn.text] for turn in item.turns], item.answer, *([item.answers] if item.answers else ())]).encode())
    for key in sorted({item.image for item in items if item.image is not None}):
        digest.update(hashlib.sha256(source.read_image(key)).digest())
    return digest.hexdigest()


def _prompt(bundle: Bundle, task: Task, item: Item) -> str:
    """What the model reads for the first item, with its mark for the image."""
    if task.choices:
        return f"{len(task.choices)} texts such as {task.choices[0]!r}"
    return f"{bundle.template.name}: {''.join(span.text for span in spans(bundle.template, '', item.turns, prompt=True))}"


def write(workdir: epath.PathLike, task: str, results: Mapping[str, Any], predictions: Sequence[Mapping[str, Any]], kept: Answers | None = None, uploads: Mapping[str, str] = {}) -> None:
    """`predictions/TASK.jsonl`, beside it `uploads/NAME` of {name: text} (uploads.py), then the task's entry in `results.json`, whose other entries stay. `kept` is cleared in between."""
    workdir = epath.Path(workdir)
    files.write(workdir / "predictions" / f"{task}.jsonl", "".join(json.dumps(row) + "\n" for row in predictions))
    for name, text in uploads.items():
        files.write(workdir / "uploads" / name, text)
    if kept:
        kept.clear()
    files.write_json(workdir / "results.json", {**read_results(workdir), task: results})


def read_results(workdir: epath.PathLike) -> dict[str, Any]:
    """results.json; {} where there is none."""
    return files.read_json(epath.Path(workdir) / "results.json", {})


def read_predictions(workdir: epath.PathLike, task: str) -> list[dict[str, Any]]:
    path = epath.Path(workdir) / "predictions" / f"{task}.jsonl"
    if not path.exists():
        raise UserError(f"{path}: is missing; there is nothing to score again")
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    except ValueError as error:
        raise UserError(f"{path}: not readable as JSON lines: {error}") from None
    if not rows:
        raise UserError(f"{path}: is empty; there is nothing to score again")
    return [benchmark.fields(f"{path}: line {n}", row, ("id", "question", "answer", "kind", "control", "prediction"), need=("image",)) for n, row in enumerate(rows, 1)]
