"""How an image becomes tokens: the one place that counts tiles and image tokens."""
import dataclasses
import functools

from vlmjax.errors import UserError

RESIZE_RULES = ("crop", "pad", "squash")


@dataclasses.dataclass(frozen=True)
class ImageLayout:
    """The treatment of an image before the encoder, and what comes out of it.

    size: height = width of the encoder's input in pixels. patch: side of a patch in pixels. resize: `crop` (shortest side to
    `size`, then the centre: CLIP), `pad` (to a square in the mean colour, then `size`: LLaVA-1.5 stage 2), `squash` (both sides
    to `size`, the aspect ratio is lost: BLIP-2). mean, std: per channel, of values in [0, 1]. shuffle: side of the square of patches that the
    projector makes one token of. tokens: how many it makes of an image where they are no squares of it (a Q-Former's queries), 0: they are. tiles: into how many squares of `size` an image is
    cut at most (InternVL 1.5, arXiv:2404.16821); where they are several, the whole image follows as one more, its thumbnail. Each of them is an image to the encoder; 1: nothing is cut.
    """

    size: int
    patch: int
    resize: str = "crop"
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    shuffle: int = 1
    tokens: int = 0
    tiles: int = 1

    def __post_init__(self):
        if self.resize not in RESIZE_RULES:
            raise UserError(f"layout.resize: {self.resize!r} is not one of {', '.join(RESIZE_RULES)}")
        if self.size < self.patch:
            raise UserError(f"layout: an image of {self.size} pixels holds no patch of {self.patch}")
        if self.size // self.patch % self.shuffle:
            raise UserError(f"layout: {self.size // self.patch} patches in a row are not whole squares of {self.shuffle}")
        if self.tiles < 1:
            raise UserError(f"layout.tiles: {self.tiles} is less than 1")
        if self.tiles > 1 and self.resize != "squash":
            raise UserError(f"layout.tiles: images that are cut into up to {self.tiles} tiles are resized without padding or cropping; set resize='squash', not {self.resize!r}")

    def grid(self, width: int, height: int) -> tuple[int, int]:
        """(columns, rows) of the tiles of an image of so many pixels: of all grids of at most `tiles` the one nearest in aspect ratio; of several such, the largest of
        those of which the image has more than half of the pixels, else the smallest (dynamic_preprocess of OpenGVLab/InternVL)."""
        return _grid(width, height, self.size**2, self.tiles)

    def count(self, width: int, height: int) -> int:
        """How many images the encoder reads of one of so many pixels: its tiles and, where they are several, its thumbnail. An image without a size, because it
        cannot be read, counts as one."""
        columns, rows = self.grid(width, height) if width and height else (1, 1)
        return columns * rows + (columns * rows > 1)

    @property
    def most(self) -> int:
        """The largest `count`."""
        return self.tiles + (self.tiles > 1)

    @property
    def tokens_per_image(self) -> int:
        """Image tokens the language model reads for one image, or for each of its tiles; pixels beyond the last whole patch are not used (384/14 → 27²)."""
        return self.tokens or (self.size // self.patch // self.shuffle) ** 2


@functools.cache
def _grids(most: int) -> tuple[tuple[int, int], ...]:
    """All (columns, rows) of at most so many tiles, small ones first."""
    return tuple(sorted(((i, j) for i in range(1, most + 1) for j in range(1, most // i + 1)), key=lambda grid: grid[0] * grid[1]))


@functools.lru_cache(1 << 16)
def _grid(width: int, height: int, tile: int, most: int) -> tuple[int, int]:
    """tile: its pixels."""
    best, nearest = (1, 1), float("inf")
    for columns, rows in _grids(most):
        distance = abs(width / height - columns / rows)
        if distance < nearest or distance == nearest and width * height > 0.5 * tile * columns * rows:
            best, nearest = (columns, rows), distance
    return best
