"""How an image becomes a fixed number of tokens: the one place that counts image tokens."""
import dataclasses

from vlmjax.errors import UserError

RESIZE_RULES = ("crop", "pad", "squash")


@dataclasses.dataclass(frozen=True)
class ImageLayout:
    """The treatment of an image before the encoder, and what comes out of it.

    size: height = width of the encoder's input in pixels. patch: side of a patch in pixels. resize: `crop` (shortest side to
    `size`, then the centre: CLIP), `pad` (to a square in the mean colour, then `size`: LLaVA-1.5 stage 2), `squash` (both sides
    to `size`, the aspect ratio is lost: BLIP-2). mean, std: per channel, of values in [0, 1]. shuffle: side of the square of patches that the
    projector makes one token of. tokens: how many it makes of an image where they are no squares of it (a Q-Former's queries), 0: they are.
    """

    size: int
    patch: int
    resize: str = "crop"
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    shuffle: int = 1
    tokens: int = 0

    def __post_init__(self):
        if self.resize not in RESIZE_RULES:
            raise UserError(f"layout.resize: {self.resize!r} is not one of {', '.join(RESIZE_RULES)}")
        if self.size < self.patch:
            raise UserError(f"layout: an image of {self.size} pixels holds no patch of {self.patch}")
        if self.size // self.patch % self.shuffle:
            raise UserError(f"layout: {self.size // self.patch} patches in a row are not whole squares of {self.shuffle}")

    @property
    def tokens_per_image(self) -> int:
        """Image tokens the language model reads for one image; pixels beyond the last whole patch are not used (384/14 → 27²)."""
        return self.tokens or (self.size // self.patch // self.shuffle) ** 2
