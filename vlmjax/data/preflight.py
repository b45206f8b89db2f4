"""What is known of a stage's data before its first step, and whether it may start: pure functions of tables and facts.

Nothing is drawn or dropped here. What a row cannot hold is known from the table of lengths, what is unreadable from the facts of the images; where a source
has no manifest, some of its images are decoded instead, and the finding says so.
"""
import dataclasses
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from vlmjax.data import facts, packing, perceptual
from vlmjax.data.example import Example, Source
from vlmjax.data.facts import ImageFacts
from vlmjax.data.pipeline import Pipeline
from vlmjax.data.processor import Processor
from vlmjax.errors import UserError

SHOWN = 5  # examples that a finding names


@dataclasses.dataclass(frozen=True)
class PreflightConfig:
    """samples: rows of each stage that are shown. images: how many are decoded of a source without a manifest. max_overlap: share of an evaluation's
    images that may also be in the training data. other_template: the run may lay out turns in another way than the checkpoint of its language model."""

    samples: int = 2
    images: int = 64
    max_overlap: float = 0.0
    other_template: bool = False


@dataclasses.dataclass(frozen=True)
class Tally:
    """Findings of one kind: how many, the reason of the first, and which."""

    count: int
    reason: str
    of: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.count:,} x {self.reason}: {', '.join(self.of)}{', …' if self.count > len(self.of) else ''}"


@dataclasses.dataclass(frozen=True)
class Findings:
    """Of one stage. left_out: examples that are in no plan, by reason; unreadable: images, by reason, of `images_checked` of all `images`. samples: rows as
    [[kind, text], …]. usage: what of the rows of the first epoch is real. problems: reasons not to start. notes: what could not be checked, or is worth knowing."""

    examples: int
    left_out: tuple[Tally, ...]
    images: int
    images_checked: int
    unreadable: tuple[Tally, ...]
    altered: Mapping[str, int]
    samples: tuple[tuple[tuple[str, str], ...], ...]
    usage: Mapping[str, float]
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    def plain(self) -> dict[str, Any]:
        """As JSON knows it."""
        return dataclasses.asdict(self)


def tally(reasons: Iterable[tuple[str, str]]) -> tuple[Tally, ...]:
    """(which, reason) → findings, most frequent first. Reasons that differ in numbers or quoted texts are of one kind."""
    kinds: dict[str, list[tuple[str, str]]] = {}
    for which, reason in reasons:
        kinds.setdefault(re.sub(r"'[^']*'|\"[^\"]*\"|\d[\d,.]*", "·", reason), []).append((which, reason))
    return tuple(sorted((Tally(len(found), found[0][1], tuple(which for which, _ in found[:SHOWN])) for found in kinds.values()), key=lambda t: -t.count))


def examine(where: str, pipeline: Pipeline, config: PreflightConfig, max_unusable: float, max_broken: float) -> Findings:
    """What the data of a stage is like. where: its place in the config, for what a person should change."""
    problems, notes, altered = [], [], {}
    left_out = [(pipeline.example(i).id, reason) for i, reason in pipeline.unusable.items()]
    for source in pipeline.sources:
        left_out += source.faults.items()
        for what, count in source.altered.items():
            altered[what] = altered.get(what, 0) + count
    everything = len(pipeline.table) + sum(len(source.faults) for source in pipeline.sources)
    unusable = tally(left_out)
    if len(left_out) > max_unusable * everything:
        problems.append(f"{where}: {len(left_out):,} of {everything:,} examples cannot be used (max_unusable is {max_unusable:g}): {'; '.join(map(str, unusable[:3]))}")
    images = checked = 0
    broken: list[tuple[str, str]] = []
    for source in {id(s): s for s in pipeline.sources}.values() if pipeline.shape.images else ():
        count, known = _facts(source, config.images)
        images, checked = images + count, checked + len(known)
        if len(known) < count:
            notes.append(f"{source.name}: has no manifest; {len(known)} of its {count:,} images were decoded (`vlmjax data build` checks all of them)"
                         + (", and for their tiles the headers of all were read, as at every start" if pipeline.processor.layout.tiles > 1 else ""))
        broken += known.faults.items()
    unreadable = tally(broken)
    if len(broken) > max_broken * checked:
        problems.append(f"{where}: {len(broken):,} of {checked:,} images cannot be read (max_broken is {max_broken:g}): {'; '.join(map(str, unreadable[:3]))}")
    plan = pipeline.rows(0) if len(pipeline.unusable) < len(pipeline.table) else ()
    samples = tuple(tuple(show(pipeline.processor, [[pipeline.example(i) for i in piece] for piece in row], pipeline.objective, [pipeline.tiles_of(piece[0]) for piece in row]))
                    for row in plan[: config.samples])
    shape, usage = pipeline.shape, {}
    if plan and pipeline.objective == "next_token":
        usage = packing.usage(plan, pipeline.table, shape.length, shape.images, shape.targets)._asdict()
    return Findings(len(pipeline.table), unusable, images, checked, unreadable, altered, samples, usage, tuple(problems), tuple(notes))


def budget(pipeline: Pipeline) -> packing.Budget | None:
    """Images and supervised tokens for rows of this length that leave little of them unused; None where rows are not packed."""
    usable = np.setdiff1d(np.arange(len(pipeline.table)), list(pipeline.unusable))
    return packing.choose(pipeline.table, usable, pipeline.shape.length, pipeline.per_group) if pipeline.objective == "next_token" and len(usable) else None


def _facts(source: Source, sample: int) -> tuple[int, ImageFacts]:
    """(number of images, facts of all of them, or of a few where no manifest has them)."""
    if source.facts is not None:
        return len(source.facts), source.facts
    keys = list(dict.fromkeys(key for example in source.examples for key in example.images))
    few = [keys[i] for i in sorted(np.random.default_rng(0).permutation(len(keys))[:sample].tolist())]
    return len(keys), facts.gather(few, source.read_image)


def show(processor: Processor, pieces: Sequence[Sequence[Example]], objective: str = "next_token", tiles: Sequence[tuple[int, ...]] | None = None) -> list[tuple[str, str]]:
    """A row as spans (kind, text): `image` (with its number of tokens, and of tiles where they are several), `text` that is read, `supervised` text that is
    learned, `next` between examples. What is supervised comes from the token ids and places that the step reads. tiles: of each piece, of each image that it shows."""
    spans: list[tuple[str, str]] = []
    for piece, cut in zip(pieces, tiles or itertools.repeat(())):
        for n, example in enumerate(piece):
            if spans:
                spans.append(("next", example.id if not n else ""))
            if objective == "contrastive":
                spans += [("image", str(processor.tokens_per_image)), ("text", example.caption)]
                continue
            encoded = processor.encode(example.turns, tiles=cut)
            counts = iter(cut or (1,) * len(example.images))
            learned = set((encoded.places + 1).tolist())
            ids = np.concatenate([encoded.head.tokens, encoded.tail])
            slots = np.concatenate([encoded.head.slots, np.full(len(encoded.tail), -1, np.int32)])
            kinds = ["image" if slot >= 0 else "supervised" if t in learned else "text" for t, slot in enumerate(slots.tolist())]
            start = len(encoded.head.tokens) if n else 0  # the head is in the row once
            while start < len(ids):
                if kinds[start] == "image":
                    count = next(counts)
                    stop, text = start + count * processor.tokens_per_image, f"{count} tiles, " * (count > 1) + str(count * processor.tokens_per_image)
                else:
                    stop = next((t for t in range(start, len(ids)) if kinds[t] != kinds[start]), len(ids))
                    text = processor.tokenizer.decode(ids[start:stop], special=True)
                spans.append((kinds[start], text))
                start = stop
    return spans


def overlap(task: str, items: Source, trained: Mapping[str, Sequence[Source]], max_overlap: float) -> tuple[list[str], list[str]]:
    """(problems, notes): images of an evaluation that are also in the training data of a stage, found by the perceptual hashes of both manifests."""
    problems, notes = [], []
    asked = items.facts
    seen: dict[str, ImageFacts] = {}
    for stage, sources in trained.items():
        for source in sources:
            if asked is None or source.facts is None:
                notes.append(f"{task}: whether its images are in {source.name} is not checked: {items.name if asked is None else source.name} has no manifest")
                continue
            if source.name.rsplit("/", 1)[0] in seen:
                continue  # another view of the same images
            known = seen[source.name.rsplit("/", 1)[0]] = source.facts
            a, b = (f.part(np.flatnonzero(f.readable).tolist()) for f in (known, asked))
            pairs = perceptual.same((a.hashes, a.thumbs), (b.hashes, b.thumbs))
            found = {b.keys[j]: a.keys[i] for i, j in pairs.tolist()}
            if len(found) > max_overlap * max(len(b), 1):
                shown = ", ".join(f"{theirs} is {ours}" for theirs, ours in list(found.items())[:3])
                problems.append(f"evaluate: {len(found):,} of {len(b):,} images of {task} are in the training data of stages.{stage} (preflight.max_overlap is {max_overlap:g}): {shown}")
            elif found:
                notes.append(f"{task}: {len(found):,} of its {len(b):,} images are in {source.name}, which is tolerated")
    return problems, list(dict.fromkeys(notes))


def refuse(problems: Sequence[str]) -> None:
    """Stops before the first step, and says all the reasons at once."""
    if problems:
        raise UserError(f"preflight: {' | '.join(problems)}")
