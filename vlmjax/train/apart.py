"""The encoder of a stage that computes it apart from its steps (`encode_once`)."""
import dataclasses
from collections.abc import Mapping

import jax
from jax.sharding import Mesh

from vlmjax import optim, sharding
from vlmjax.errors import UserError
from vlmjax.models.vit import ViT


@dataclasses.dataclass(frozen=True)
class Encoder:
    """Cut to the blocks whose output is read. params: {path in memory: abstract leaf with sharding}, as the stage would store them."""

    module: ViT
    params: dict[str, jax.ShapeDtypeStruct]


def encoder(module: ViT, params: Mapping[str, jax.ShapeDtypeStruct], by_layer: Mapping[str, optim.Label], dtype: jax.typing.DTypeLike, mesh: Mesh, where: str) -> Encoder:
    """dtype: of frozen parameters. Refused where an image would not have the same features at every step."""
    if learns := [path for path, label in by_layer.items() if path.startswith("encoder/") and label.trainable]:
        raise UserError(f"{where}.encode_once: {learns[0]} learns in this stage, and with it the features change; freeze encoder/.*, or set it to False")
    if module.config.lora and module.config.lora.dropout:
        raise UserError(f"{where}.encode_once: adapters of the encoder drop out (model.encoder.lora.dropout), so that features differ from step to step; set it to False")
    places = sharding.parameters(params, mesh)
    return Encoder(module, {path: jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=places[path]) for path, leaf in params.items()})
