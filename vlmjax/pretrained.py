"""Models on disk: what `vlmjax.load` reads, and how a bundle is written.

Our own format is a directory with `config.json` (sizes, template, layout), `tokenizer.json` and the parameters by layer
(weights/store.py). `config.json` is written last, so a directory that has one is complete. Other people's formats are
families of name tables (weights/): directories, and GGUF files, which hold all of this in one.
"""
import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh

import vlmjax
from vlmjax import bundle as bundles
from vlmjax import config as configs
from vlmjax import files, param_rules, stacks, weights
from vlmjax.bundle import Bundle
from vlmjax.data import chat_template
from vlmjax.data import tokenizer as tokenizers
from vlmjax.data.conversation import RAW, TEMPLATES, Template
from vlmjax.errors import UserError
from vlmjax.layout import ImageLayout
from vlmjax.models import projector
from vlmjax.models.clip import ContrastHead, TextConfig, TextTower
from vlmjax.models.decoder import Decoder, DecoderConfig
from vlmjax.models.vit import ViT, ViTConfig
from vlmjax.train import build, settings
from vlmjax.weights import gguf, hub, image_processor, llava, statistics, store
from vlmjax.weights.family import CARRIED, Config, at_the_door

CONFIG, TOKENIZER = "config.json", "tokenizer.json"
TEMPLATE = "vlmjax_template"  # key of a published checkpoint's config.json that names a template of ours: Jinja cannot say all that one of them does
FORMAT = "vlmjax-model"
SIZES = {"encoder": ViTConfig, "projector": projector.ProjectorConfig, "decoder": DecoderConfig, "text_tower": TextConfig}


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What stands in a model's directory; its parameters are read when they are asked for. sizes: {component: its config dataclass}. family:
    None for our own format. file: of a model that is one GGUF file, whose path is then `directory`."""

    directory: epath.Path
    config: Mapping[str, Any]
    family: weights.Family | None
    sizes: Mapping[str, Any]
    template: Template
    layout: ImageLayout | None
    file: gguf.File | None = None

    @property
    def where(self) -> str:
        """The file that `config` comes from."""
        return str(self.directory if self.file else self.directory / CONFIG)

    def tokenizer(self) -> tokenizers.Tokenizer:
        if self.file:
            return tokenizers.from_gguf(self.file.metadata, self.where)
        if self.family:
            return tokenizers.from_checkpoint(self.directory, self.config, self.family.in_config.marks if self.family.in_config else ())
        return tokenizers.Tokenizer.load(self.directory / TOKENIZER, self.config.get("tokens"))

    def chat_template(self) -> Template | None:
        """How the checkpoint lays out a conversation, None where it does not say."""
        if not self.family:
            return self.template
        if name := self.config.get(TEMPLATE):
            if not isinstance(name, str) or name not in TEMPLATES:
                raise UserError(f"{self.where}: {TEMPLATE} {name!r} is not one of {', '.join(TEMPLATES)}")
            return TEMPLATES[name]
        if self.file:
            source = self.file.metadata.get("tokenizer.chat_template")
        elif self.family.in_config:
            with at_the_door(self.where):
                source = self.family.in_config.chat(Config(self.config, self.where))
        else:
            source = chat_template.read(self.directory)
        tokenizer = self.tokenizer()
        texts = [tokenizer.text_of(id_) if id_ is not None else "" for id_ in (tokenizer.bos, tokenizer.eos)]
        return chat_template.parse(str(source), str(self.directory), *texts) if source else None

    def arrays(self) -> dict[str, np.ndarray]:
        """{path by layer: view of the file}: all parameters of all components, and those that are only carried. Quantised ones are Deferred (weights/table.py)."""
        arrays = self.file.tensors if self.file else store.load(self.directory)
        if "mm_vision_tower" in self.config and not any(".vision_tower." in name for name in arrays):  # as haotian-liu/LLaVA publishes them
            tower = llava.tower_directory(self.config, self.directory) or hub.locate(f"{hub.HUB}{self.config['mm_vision_tower']}")
            arrays = llava.with_tower(arrays, store.load(tower))
        if self.family:
            whole = modules(self.sizes, jnp.float32, self.where)
            return self.family.read(arrays, stacks.expand(build.abstract_params(whole)), str(self.directory))
        for name, array in arrays.items():
            if array.dtype != np.float32:
                raise UserError(f"{self.directory}: {name} is {array.dtype}{list(array.shape)}, and this format holds float32")
        return arrays


def find(path: epath.PathLike) -> Checkpoint:
    """The model in a run's directory, in the `model/` inside it, in a published checkpoint's directory (config.json and safetensors), in
    a GGUF file or at `hf://org/name`."""
    path = hub.locate(path)
    if gguf.claims(path):
        file = gguf.read(path)
        node = gguf.config(file)
        return Checkpoint(path, node, *weights.recognise(node, str(path)), RAW, None, file)
    found = [(d, node) for d in (path / "model", path) if (node := files.read_json(d / CONFIG)) and (node.get("format") == FORMAT or "model_type" in node)]
    if not found:
        ggufs = sorted(path.glob(f"*{gguf.SUFFIX}")) if path.is_dir() else []
        hint = f"; it holds {ggufs[0].name}: give that file" if ggufs else ""
        raise UserError(f"{path}: holds no model: neither it nor model/ in it has a {CONFIG} with a format {FORMAT} or a model_type{hint}")
    directory, node = found[0]
    where = str(directory / CONFIG)
    if node.get("format") != FORMAT:
        if tower := llava.tower_directory(node, directory):
            node = {**node, "vision_config": files.read_json(tower / CONFIG)}
        family, sizes = weights.recognise(node, where)
        with at_the_door(where):
            given = family.in_config.images(Config(node, where, family.defaults)) if family.in_config else None
        layout = image_processor.layout(tower or directory, sizes["encoder"], given) if "encoder" in sizes else None
        if layout and node.get("image_aspect_ratio") == "pad":
            layout = dataclasses.replace(layout, resize="pad")
        if layout and "projector" in sizes:
            layout = dataclasses.replace(layout, **sizes["projector"].places(sizes["encoder"]))
        if layout:
            sizes["encoder"] = dataclasses.replace(sizes["encoder"], mean=layout.mean, std=layout.std)
        return Checkpoint(directory, node, family, sizes, RAW, layout)
    if missing := {"components", "template", "layout"} - set(node):
        raise UserError(f"{where}: lacks {', '.join(sorted(missing))}")
    if unknown := set(node["components"]) - set(SIZES):
        raise UserError(f"{where}: components: {', '.join(sorted(unknown))} is not one of {', '.join(SIZES)}")
    template = configs.build(Template, node["template"], f"{where}: template")
    layout = configs.build(ImageLayout, node["layout"], f"{where}: layout") if node["layout"] else None
    sizes = {name: configs.build(projector.CONFIGS.get(part.get("kind"), SIZES[name]), part, f"{where}: components.{name}") for name, part in node["components"].items()}
    return Checkpoint(directory, node, None, sizes, template, layout)


def load(path: epath.PathLike, dtype: str = "float32", mesh: Mesh | None = None) -> Bundle:
    """A model from anywhere that `find` finds one.

    dtype: of the computation and of the matrices; gains, biases and everything else with one axis stay float32. mesh: where the
    parameters go, None for one device.
    """
    if dtype not in settings.DTYPES:
        raise UserError(f"dtype: {dtype!r} is not one of {', '.join(settings.DTYPES)}")
    checkpoint = find(path)
    parts = modules(checkpoint.sizes, jnp.dtype(dtype), checkpoint.where)
    arrays, tokenizer = checkpoint.arrays(), checkpoint.tokenizer()
    carried = {path: arrays.pop(path) for path in list(arrays) if path.startswith(CARRIED)}
    try:
        template = checkpoint.chat_template() or RAW
    except UserError as error:
        warnings.warn(f"{error}; until then its prompts are raw")
        template = RAW
    bundle = bundles.make(parts, arrays, tokenizer, template, checkpoint.layout, mesh, str(checkpoint.directory), jnp.dtype(dtype))
    found = statistics.check(param_rules.flatten(bundle.params), str(checkpoint.directory))
    return dataclasses.replace(bundle, family=checkpoint.family.name if checkpoint.family else "", carried=carried, statistics=found)


def save(bundle: Bundle, directory: epath.PathLike) -> None:
    """Writes a bundle in our own format; the first process of a pod writes."""
    directory, arrays = epath.Path(directory), bundle.by_layer() | dict(bundle.carried)
    if jax.process_index() == 0:
        sizes = {name: dataclasses.asdict(bundle.parts[name].config) for name in SIZES if name in bundle.parts}
        about = {"format": FORMAT, "vlmjax": vlmjax.__version__, "components": sizes, "template": dataclasses.asdict(bundle.template),
                 "layout": dataclasses.asdict(bundle.layout) if bundle.layout else None, "tokens": bundle.tokenizer.ids()}
        store.save(directory, arrays, {"format": FORMAT})
        bundle.tokenizer.save(directory / TOKENIZER)
        files.write_json(directory / CONFIG, about)


def modules(sizes: Mapping[str, Any], dtype: Any, where: str) -> dict[str, nn.Module]:
    """{component: its sizes} → {component: module}, whole. A contrast head comes with its text tower."""
    out: dict[str, nn.Module] = {}
    if "encoder" in sizes:
        out["encoder"] = ViT(sizes["encoder"], (sizes["encoder"].layers,), dtype)
    if "decoder" in sizes:
        out["decoder"] = Decoder(sizes["decoder"], (sizes["decoder"].layers,), dtype)
    if "projector" in sizes:
        alone = isinstance(sizes["projector"], projector.QFormerConfig)  # the language model behind it may be none of ours
        if not ({"encoder"} if alone else {"encoder", "decoder"}) <= set(sizes):
            raise UserError(f"{where}: components: a projector needs an encoder and a decoder")
        out["projector"] = projector.make(sizes["projector"], sizes["encoder"].width, sizes["decoder"].width if "decoder" in sizes else None, dtype)
    if "text_tower" in sizes:
        if "encoder" not in sizes:
            raise UserError(f"{where}: components: a text tower needs an encoder")
        out["text_tower"] = TextTower(sizes["text_tower"], (sizes["text_tower"].layers,), dtype)
        out["contrast_head"] = ContrastHead(sizes["encoder"].width, sizes["text_tower"].width, sizes["text_tower"].joint, sizes["encoder"].eps)
    return out
