"""The batch contract: what every step reads, whatever the data set, the model or the number of hosts.

A row of questions about one image, as `processor.py` lays it out (P image tokens, two questions; 0 is padding):

    tokens     <bos>  img…img  is  it  red  yes </s>  what  colour  blue </s>  ·  ·
    segments     1    1 … 1    2   2   2    2   2     3     3       3    3     0  0
    parents      0    0 … 0    1   1   1    1   1     1     1       1    1     0  0
    positions    0    1 … P    P+1 …        P+5       P+1   …            P+4   0  0
    image_slots  -1   0 … P-1  -1                                              -1 -1

Query t sees key s when segments[s] is not 0 and equals segments[t] or parents[t], and positions[s] ≤ positions[t] or prefix[s].

Where a stage reads the features of a frozen encoder (BatchShape.features), they stand in place of pixels.

image_mask is False where no image is, and where one could not be read. What shows such an image keeps its place and counts nowhere: its
weights are 0; in a contrastive batch its row is no pair.
"""
import dataclasses
from typing import NamedTuple

import numpy as np

from vlmjax.errors import UserError

# What each supervised token of an example counts in the loss, from the number n of them that the example has (f64[…], 1 or more).
WEIGHTINGS = {"token": np.ones_like, "example": lambda n: 1 / n, "sqrt": lambda n: 1 / np.sqrt(n)}


class Features(NamedTuple):
    """What an encoder makes of one image, before the projector: [patches, width]; where the projector reads the class token, it counts as a patch."""

    patches: int
    width: int
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        return self.patches * self.width * self.dtype.itemsize


@dataclasses.dataclass(frozen=True)
class BatchShape:
    """The static shape of a stage's batch: B rows of T tokens, M images (each tile of one and its thumbnail counts) and S supervised tokens; images are `size`
    pixels square, or `features`."""

    rows: int
    length: int
    images: int
    targets: int
    size: int
    features: Features | None = None

    def images_spec(self) -> tuple[str, tuple[int, ...], np.dtype]:
        """(key, shape, dtype) of the images of a batch."""
        B, M, n = self.rows, self.images, self.size
        if self.features:
            return "features", (B, M, self.features.patches, self.features.width), self.features.dtype
        return "pixels", (B, M, n, n, 3), np.dtype(np.uint8)


def spec(objective: str, shape: BatchShape) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """{key: (shape, dtype)} of a batch for `next_token` or `contrastive`."""
    B, T, M, S = shape.rows, shape.length, shape.images, shape.targets
    i32, f32 = np.dtype(np.int32), np.dtype(np.float32)
    key, *images = shape.images_spec()
    images = {key: tuple(images), "image_mask": ((B, M), np.dtype(bool))}
    if objective == "contrastive":
        return {"tokens": ((B, T), i32), "segments": ((B, T), i32), "pair": ((B,), i32), **images}
    if objective == "next_token":
        row = {key: ((B, T), i32) for key in ("tokens", "positions", "segments", "parents", "image_slots")}
        answers = {"targets": ((B, S), i32), "target_positions": ((B, S), i32), "weights": ((B, S), f32)}
        return {**row, "prefix": ((B, T), np.dtype(bool)), **images, **answers}
    raise UserError(f"objective: {objective!r} is not one of contrastive, next_token")


def check(batch: dict[str, np.ndarray], objective: str, shape: BatchShape, vocabulary: int, by_segments: bool = False) -> None:
    """Refuses a batch that is not what the compiled step expects, naming the key. by_segments: its attention reads nothing but segments."""
    want = spec(objective, shape)
    if set(batch) != set(want):
        raise UserError(f"batch: keys {sorted(set(batch) ^ set(want))} are missing or not in the contract for {objective}")
    for key, (dims, dtype) in want.items():
        if batch[key].shape != dims or batch[key].dtype != dtype:
            raise UserError(f"batch: {key} is {batch[key].dtype}{list(batch[key].shape)}, the step was compiled for {dtype}{list(dims)}")
    for key in ("tokens", "targets"):
        if key in batch and batch[key].size and not (0 <= batch[key].min() and batch[key].max() < vocabulary):
            raise UserError(f"batch: {key} holds the id {batch[key].max()}, the vocabulary has {vocabulary}")
    for key in ("parents", "prefix"):
        if by_segments and batch[key].any():
            raise UserError(f"batch: {key} is used, and the stage's attention sees nothing but segments; set attention='plain'")


def fake(objective: str, shape: BatchShape, vocabulary: int, tokens_per_image: int, seed: int = 0) -> dict[str, np.ndarray]:
    """A random batch that obeys the contract: each row is one example, its images first, with some supervised places."""
    rng = np.random.default_rng(seed)
    batch = {key: np.zeros(dims, dtype) for key, (dims, dtype) in spec(objective, shape).items()}
    batch["tokens"][:] = rng.integers(0, vocabulary, batch["tokens"].shape)
    batch["segments"][:] = 1
    if shape.features:
        batch["features"][:] = rng.standard_normal(batch["features"].shape, np.float32)
    else:
        batch["pixels"][:] = rng.integers(0, 256, batch["pixels"].shape)
    batch["image_mask"][:] = True
    if objective == "contrastive":
        batch["pair"][:] = np.arange(shape.rows)
        return batch
    image_places = shape.images * tokens_per_image
    if image_places + 1 > shape.length:
        raise UserError(f"length: {shape.length} tokens cannot hold {image_places} image tokens and an answer")
    batch["positions"][:] = np.arange(shape.length)
    batch["image_slots"][:] = -1
    batch["image_slots"][:, :image_places] = np.arange(image_places)
    places = np.sort(rng.permuted(np.tile(np.arange(max(image_places - 1, 0), shape.length - 1), (shape.rows, 1)), axis=1)[:, : shape.targets])
    batch["target_positions"][:, : places.shape[1]] = places
    batch["targets"][:, : places.shape[1]] = np.take_along_axis(batch["tokens"], places + 1, axis=1)
    batch["weights"][:, : places.shape[1]] = 1.0
    return batch
