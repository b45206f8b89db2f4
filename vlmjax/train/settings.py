"""What a config says of the model and of each stage: the dataclasses that its nodes become, and what they refuse."""
import dataclasses

from jax.sharding import Mesh

from vlmjax import optim, sharding
from vlmjax.data import batch as batches
from vlmjax.data.mixture import MIXTURES
from vlmjax.errors import UserError, at_least, did_you_mean
from vlmjax.models.lora import LoRAConfig

OBJECTIVES = ("contrastive", "next_token")
DTYPES = ("float32", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class Precision:
    """Storage of what learns, of what is frozen and of first moments; type of the activations. Norms, softmax, rotary angles,
    logits and losses are always float32."""

    params: str = "float32"
    compute: str = "bfloat16"
    frozen: str = "float32"
    moments: str = "float32"

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if getattr(self, field.name) not in DTYPES:
                raise UserError(f"precision.{field.name}: {getattr(self, field.name)!r} is not one of {', '.join(DTYPES)}")


@dataclasses.dataclass(frozen=True)
class Component:
    """A variant of the model room's tables, or, without one, the sizes that `weights` has. weights: a checkpoint to start from (a run, a
    directory, `hf://org/name`), empty: random. vocab: 0 takes the table's, −1 the tokenizer's. feature_layer: of an encoder, as in
    transformers' hidden_states (−1: after the last block); None takes the table's. lora: adapters to add; those that `weights` holds stay."""

    variant: str = ""
    weights: str = ""
    vocab: int = 0
    feature_layer: int | None = None
    lora: LoRAConfig | None = None


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    decoder: Component | None = None
    encoder: Component | None = None
    projector: Component | None = None
    text_tower: Component | None = None


@dataclasses.dataclass(frozen=True)
class CompileConfig:
    """unroll: layers per turn of a scan, 0 for all (20–30 % faster on CPU, slower to compile). remat: none, full or dots."""

    unroll: int = 1
    remat: str = "none"


@dataclasses.dataclass(frozen=True)
class StageConfig:
    """One stage. `batch` counts rows of `length` tokens, with at most `images` images and `targets` supervised tokens each.

    data: ((`NAME:SPLIT:VIEW`, passes over it per epoch), …); with the mixture `weights`, (…, its share of an epoch's examples).
    per_group: examples about one image that share its row and tokens.
    resize: the image treatment (layout.RESIZE_RULES). tiles: into how many tiles an image is cut at most, beside its thumbnail (layout.ImageLayout); `images` counts
    tiles and thumbnails. template: of its conversations, empty: the run's.
    max_unusable: share of the examples that may be left out because no row can hold them or nothing in them is supervised.
    encode_once: the encoder, which has to be frozen, computes each image once; its features are kept, and the step is compiled without it (encode.py).
    max_broken: share of the examples of its sources that may have an image that cannot be read; the stage stops when it has met more.
    max_unsharded: share of the parameters and moments on a device that may be there because they are not split over fsdp x tensor (sharding.Unsharded).
    Either `steps` or `epochs` is given.
    attention: of the language model, one of kernels.NAMES; `auto` is the best that the devices, the rows and the precision allow.

    weighting: what a supervised token counts, n of them being in its example: `token` 1, `example` 1/n (every example counts the same),
    `sqrt` 1/√n (loss_reduction `square` of OpenGVLab/InternVL: len2weight in internvl_chat/internvl/train/internvl_chat_finetune.py). Each
    question that shares an image is an example of its own. The loss of a step is one sum over one sum of weights, of all its rows: how
    they are packed, accumulated and spread over devices changes nothing. LLaVA's mean of the means of devices is not reproduced.
    """

    objective: str
    trainable: tuple
    data: tuple
    batch: int
    length: int
    optimizer: optim.OptimizerConfig
    images: int = 1
    targets: int = 0
    per_group: int = 1
    resize: str = "crop"
    tiles: int = 1
    template: str = ""
    steps: int | None = None
    epochs: float | None = None
    weighting: str = "token"
    mixture: str = "passes"
    attention: str = "auto"
    accumulate: int = 1
    skip_nonfinite: int = 0
    max_unusable: float = 0.0
    max_broken: float = 0.001
    max_unsharded: float = 0.05
    encode_once: bool = False

    def check(self, where: str, mesh: Mesh) -> None:
        """Refuses what no dataclass field can say alone."""
        if self.objective not in OBJECTIVES:
            raise UserError(f"{where}.objective: {self.objective!r} is not known{did_you_mean(self.objective, OBJECTIVES)}")
        if (self.steps is None) == (self.epochs is None):
            raise UserError(f"{where}: give either steps or epochs")
        if self.weighting not in batches.WEIGHTINGS:
            raise UserError(f"{where}.weighting: {self.weighting!r} is not known{did_you_mean(self.weighting, batches.WEIGHTINGS)}")
        if self.weighting != "token" and self.objective == "contrastive":
            raise UserError(f"{where}.weighting: {self.weighting} weighs supervised tokens, and a contrastive stage has none")
        if self.mixture not in MIXTURES:
            raise UserError(f"{where}.mixture: {self.mixture!r} is not known{did_you_mean(self.mixture, MIXTURES)}")
        if self.encode_once and (why := "a contrastive stage has no use for it" if self.objective == "contrastive" else "the stage has no images" if not self.images else
                                 "features are kept by one process, and this mesh has several" if len({device.process_index for device in mesh.devices.flat}) > 1 else ""):
            raise UserError(f"{where}.encode_once: {why}; set it to False")
        at_least(where, self, batch=1, length=1, accumulate=1, per_group=1, tiles=1)
        if self.tiles > 1 and (why := "a contrastive stage compares whole images; set it to 1" if self.objective == "contrastive" else
                               f"images that are cut are resized without padding or cropping, and resize is {self.resize!r}; set it to 'squash'" if self.resize != "squash" else ""):
            raise UserError(f"{where}.tiles: {why}")
        if self.accumulate > 1 and self.objective == "contrastive":
            raise UserError(f"{where}.accumulate: {self.accumulate} would change the contrastive loss, whose negatives are the whole batch")
        parts = sharding.row_shards(mesh) * self.accumulate
        if self.batch % parts:
            raise UserError(f"{where}.batch: {self.batch} rows do not divide over {parts} (replica x fsdp x accumulate)")
