"""Mixture → shuffle → process → pack → batch. Data order is a function of (seed, step), so an iterator's state is its step."""
import bisect
import dataclasses
import functools
import threading
import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import grain
import numpy as np

from vlmjax.data import images, lengths, measure, packing, tiles
from vlmjax.data import mixture as mixtures
from vlmjax.data.batch import BatchShape, Features, spec
from vlmjax.data.example import Example, Source
from vlmjax.data.features import Damaged
from vlmjax.data.packing import Row
from vlmjax.data.processor import Processor, misfit
from vlmjax.data.reading import image_file
from vlmjax.errors import UserError
from vlmjax.layout import ImageLayout

# Pixels of prepared images are kept up to this many bytes: 40,000 images of 64x64, 3,500 of 224x224.
PIXEL_BYTES = 512 << 20

# Plans are kept up to this many examples (at most 12 bytes each), two epochs at least: `steps` makes them all before the first batch.
PLANNED_EXAMPLES = 1 << 23


class Fault(NamedTuple):
    """One appearance of a broken example: why, and how many supervised tokens have lost their weight."""

    example: str
    reason: str
    supervised: int


class Pipeline:
    """Batches of a stage.

    sources: (source, passes over it per epoch, or its weight), see `mixture`. objective: `next_token` (packed
    rows) or `contrastive` (a row is one image and its caption, the assistant's text). per_group: at most so many examples share an image
    in one row. Row r of step s depends on nothing but the seed and s: epochs follow each other without a gap, and the batch in which one
    ends goes on with the next. Planning reads a table of lengths; examples are read when their row is made. weighting: of supervised
    tokens, one of batch.WEIGHTINGS.

    workers: threads that make batches ahead; decoding and resizing run beside each other in them.
    unusable: {example: reason} of what no row can hold or in which nothing is supervised. It is in no plan; more than `max_unusable` of all
    examples is an error.

    An image that cannot be read or decoded breaks the examples that show it, and no others: they keep their place, their tokens and their ids,
    with weights, pixels and image_mask 0. `faults` says which.

    Where the layout cuts images into tiles, an image takes as many places of a row as it has tiles, one after the other; one whose size cannot be read has one.

        row        A (its image is broken)    B               C (no image)
        weights    0 0 0                      1 1             1 1 1 1
        image_mask 0                          1
    """

    def __init__(
        self, sources: Sequence[tuple[Source, float]], processor: Processor, objective: str, shape: BatchShape, seed: int, per_group: int,
        max_unusable: float = 0.0, weighting: str = "token", workers: int = 1, mixture: str = "passes",
    ):
        spec(objective, shape)
        if processor.layout and processor.layout.size != shape.size:
            raise UserError(f"batch: images of {shape.size} pixels, the encoder takes {processor.layout.size}")
        if per_group < 1:
            raise UserError(f"per_group: {per_group} is less than 1")
        if objective == "contrastive" and shape.images != 1:
            raise UserError(f"images: {shape.images} in a row of a contrastive stage, which has one image and its caption")
        if not sources:
            raise UserError("data: the stage names no source")
        for source, number in sources:
            if not source.examples or number <= 0:
                raise UserError(f"data: {source.name} has {len(source.examples)} examples and {number} {mixture}; both must be more than 0")
        self.processor, self.objective, self.shape, self.seed = processor, objective, shape, seed
        self.per_group, self.weighting, self.workers = per_group, weighting, workers
        self.sources = [source for source, _ in sources]
        self._image: Callable[[Source, str], np.ndarray] = _Pixels(processor.layout).get
        self._tiles = {key: tiles.count(source, processor.layout) for key, source in {id(source): source for source in self.sources}.items()}
        self.table = lengths.join([measure.table(source, processor, objective, shape.length, self._tiles[id(source)]) for source in self.sources])
        self._first = np.cumsum([0, *(len(source.examples) for source in self.sources)]).tolist()  # of each source in the table
        self.unusable = self._unusable()
        if len(self.unusable) > max_unusable * len(self.table):
            raise UserError(self._refusal(max_unusable))
        self._usable = np.setdiff1d(np.arange(len(self.table)), np.array(list(self.unusable), int), assume_unique=True)
        self._usable_of = np.split(self._usable, np.searchsorted(self._usable, self._first[1:-1]))  # of each source
        self.passes = mixtures.passes([number for _, number in sources], list(map(len, self._usable_of)), mixture)
        self._lock = threading.RLock()  # prefetching threads and the loop both ask for plans
        self._plan = functools.lru_cache(max(2, PLANNED_EXAMPLES // len(self.table)))(self._plan)
        self._ends: list[int] = []  # rows up to the end of each epoch planned so far
        self._faults: dict[int, list[Fault]] = {}  # by step

    def example(self, index: int) -> Example:
        """An example by its index in the table."""
        source, i = self._place(index)
        return source.examples[i]

    def rows(self, epoch: int) -> Sequence[Row]:
        """The plan of an epoch."""
        with self._lock:
            return self._plan(epoch)

    def batch(self, step: int, rows: slice | None = None) -> dict[str, np.ndarray]:
        """The batch of a step, or the part of its rows that one host feeds."""
        plan, part = self._rows_of(step), rows or slice(None)
        shown = [[(self._place(piece[0])[0], [self.example(i) for i in piece]) for piece in row] for row in plan[part]]
        shape = self.shape
        if self.objective == "next_token":
            cut = [[self.tiles(source, group[0].images) for source, group in groups] for groups in shown]
            batch, _ = self.processor.rows([[group for _, group in groups] for groups in shown], shape.length, shape.images, shape.targets, self.weighting, cut)
        else:
            captions = [self.example(i).caption for ((i,),) in plan]
            made = [self.processor.caption_row(text, shape.length) for text in captions[part]]
            # Numbered over the rows of all hosts: rows of one caption are positives of each other wherever they lie.
            pair = np.array([captions.index(text) for text in captions], np.int32)[part]
            batch = {"pair": pair, **{key: np.stack([row[key] for row in made]) for key in ("tokens", "segments")}}
        pictures, broken = self._images(shown)
        if broken:
            self._faults[step] = self._take_out(plan[part], batch, broken)
        return batch | pictures

    def iterator(self, start_step: int, stop_step: int, prefetch: int = 2, rows: slice | None = None) -> grain.DatasetIterator:
        """Batches of the steps start … stop−1, `prefetch` of them made ahead by the workers; `get_state` and `set_state` are Grain's."""
        steps = grain.MapDataset.range(start_step, stop_step).map(lambda step: self.batch(int(step), rows))
        return iter(steps.to_iter_dataset(grain.ReadOptions(num_threads=min(prefetch, self.workers), prefetch_buffer_size=prefetch)))

    def read_features(self, features: Features, image: Callable[[Source, str], np.ndarray]) -> None:
        """From now on batches have features in place of pixels: `image` says those of the tiles of (source, key), f[n, P, E], or UserError why it is broken."""
        self.shape, self._image = dataclasses.replace(self.shape, features=features), image

    def tiles(self, source: Source, keys: Sequence[str]) -> tuple[int, ...]:
        """Of each of these images of a source; `()` where nothing is cut."""
        known = self._tiles[id(source)]
        return known.of(keys) if known else ()

    def as_planned(self, source: Source, key: str, made: np.ndarray) -> np.ndarray:
        """What was made of the tiles of an image, [n, …], where they are as many as its places in a row."""
        if len(made) != (count := sum(self.tiles(source, (key,))) or 1):
            raise UserError(f"has {len(made)} tiles, and {count} when the rows were planned")
        return made

    def tiles_of(self, index: int) -> tuple[int, ...]:
        """`tiles` of the images that an example of the table shows."""
        source, i = self._place(index)
        return self.tiles(source, source.examples[i].images)

    def images(self, steps: int) -> list[tuple[Source, str]]:
        """(source, key) of all images that the first steps show, each once."""
        found = {}
        for i in sorted({piece[0] for step in range(steps) for row in self._rows_of(step) for piece in row}):
            source, place = self._place(i)
            found.update(((id(source), key), (source, key)) for key in source.examples[place].images)
        return list(found.values())

    def steps(self, epochs: float) -> int:
        """Steps until every row of so many epochs has been seen."""
        whole, part = int(epochs), epochs % 1
        rows = sum(len(self.rows(epoch)) for epoch in range(whole)) + (round(part * len(self.rows(whole))) if part else 0)
        return -(-rows // self.shape.rows)

    def faults(self, step: int) -> list[Fault]:
        """What is broken in the batch of a step, or in the part of it that this process made (`batch`, which has to come first), row after row."""
        return self._faults.get(step, [])

    @property
    def total(self) -> int:
        """Examples in the sources."""
        return len(self.table)

    def ids(self, step: int) -> list[list[str]]:
        """The examples of each row of a step."""
        return [[self.example(i).id for piece in row for i in piece] for row in self._rows_of(step)]

    def digest(self, step: int) -> int:
        """A checksum of which examples are in which row of the global batch: equal for any number of hosts and workers."""
        return zlib.crc32(repr(self._rows_of(step)).encode())

    def examples(self, step: int) -> int:
        return sum(len(piece) for row in self._rows_of(step) for piece in row)

    def supervised(self, step: int) -> int:
        """Supervised tokens of a step; a contrastive one has none."""
        return int(sum(self.table.supervised[list(piece)].sum() for row in self._rows_of(step) for piece in row))

    def _place(self, index: int) -> tuple[Source, int]:
        """An index of the table → its source and the index in that."""
        s = bisect.bisect_right(self._first, index) - 1
        return self.sources[s], index - self._first[s]

    def _unusable(self) -> dict[int, str]:
        table, shape = self.table, self.shape
        found = dict(table.faults)
        if self.objective == "next_token":
            have = (shape.length, shape.images, shape.targets)
            over = (table.head + table.tail > have[0]) | (table.images > have[1]) | (table.supervised > have[2])
            found.update((i, misfit(table.need(i), have)) for i in np.flatnonzero(over).tolist())
        return dict(sorted(found.items()))

    def _refusal(self, tolerated: float) -> str:
        shown = "; ".join(f"example {self.example(i).id}: {reason}" for i, reason in list(self.unusable.items())[:3])
        more = f"; and {len(self.unusable) - 3} more" if len(self.unusable) > 3 else ""
        return f"data: {shown}{more} ({len(self.unusable)} of {len(self.table)} examples cannot be used, max_unusable is {tolerated:g})"

    def _plan(self, epoch: int) -> Sequence[Row]:
        """Packs what this epoch draws."""
        drawn = mixtures.draw(self._usable_of, self.passes, self.seed, epoch)
        length, images, targets = self.shape.length, self.shape.images, 0 if self.objective == "contrastive" else self.shape.targets
        return packing.plan(self.table, drawn, length, images, targets, self.per_group, self.seed, epoch)

    def _plan_past(self, row: int) -> None:
        """Plans epochs until row number `row` of the stage exists."""
        while not self._ends or self._ends[-1] <= row:
            epoch = len(self._ends)
            rows = len(self.rows(epoch))
            if not rows:
                raise UserError(f"data: epoch {epoch} draws no example; give a source more passes")
            self._ends.append(rows + (self._ends[-1] if self._ends else 0))

    def _rows_of(self, step: int) -> list[Row]:
        first, last = step * self.shape.rows, (step + 1) * self.shape.rows
        with self._lock:
            self._plan_past(last - 1)
            rows: list[Row] = []
            epoch = bisect.bisect_right(self._ends, first)
            while first + len(rows) < last:
                begin = self._ends[epoch - 1] if epoch else 0
                rows += self.rows(epoch)[first + len(rows) - begin : last - begin]
                epoch += 1
        return rows

    def _images(self, rows: list[list[tuple[Source, list[Example]]]]) -> tuple[dict[str, np.ndarray], dict[tuple[int, int], str]]:
        """pixels (or features) and image_mask of rows, in the order in which the processor numbers their slots, and {(row, piece): why it is broken}."""
        name, (_, M, *dims), dtype = self.shape.images_spec()
        values, mask, broken = np.zeros((len(rows), M, *dims), dtype), np.zeros((len(rows), M), bool), {}
        for b, groups in enumerate(rows):
            stop = 0
            for piece, (source, group) in enumerate(groups):
                keys = group[0].images
                start, stop = stop, stop + (sum(self.tiles(source, keys)) or len(keys))
                try:
                    if keys:
                        values[b, start:stop] = np.concatenate([self.as_planned(source, key, self._image(source, key)) for key in keys])
                    mask[b, start:stop] = True
                except Damaged:
                    raise
                except UserError as error:
                    values[b, start:stop] = 0
                    broken[b, piece] = str(error)
        return {name: values, "image_mask": mask}, broken

    def _take_out(self, rows: Sequence[Row], batch: dict[str, np.ndarray], broken: dict[tuple[int, int], str]) -> list[Fault]:
        """Takes the weights of broken pieces; the processor lays out the supervised tokens of a row example after example."""
        faults = []
        for b in sorted({b for b, _ in broken}):
            stop = 0
            for piece, members in enumerate(rows[b]):
                for i in members:
                    start, stop = stop, stop + int(self.table.supervised[i])
                    if (b, piece) in broken:
                        faults.append(Fault(self.example(i).id, broken[b, piece], stop - start))
                        if stop > start:
                            batch["weights"][b, start:stop] = 0
        return faults


class _Pixels:
    """Prepared images u8[n, size, size, 3] by (source, key). What fits in the limit stays: evicting would empty it in every pass over a larger set."""

    def __init__(self, layout: ImageLayout | None, limit: int = PIXEL_BYTES):
        self._layout, self._left = layout, limit
        self._kept: dict[tuple[int, str], np.ndarray] = {}

    def get(self, source: Source, key: str) -> np.ndarray:
        kept = self._kept.get((id(source), key))
        if kept is not None:
            return kept
        pixels = images.prepare(image_file(source, key), self._layout)
        if pixels.nbytes <= self._left:
            self._left -= pixels.nbytes
            self._kept[id(source), key] = pixels
        return pixels
