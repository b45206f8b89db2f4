"""What a family of published checkpoints is: sizes from its config.json, and name tables for each layout its files have had."""
import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from vlmjax.errors import UserError, did_you_mean
from vlmjax.weights import table
from vlmjax.weights.table import Entry

# transformers' names (transformers/activations.py) → models/parts.py
ACTIVATIONS = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh"}
OUR_ACTIVATIONS = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
CARRIED = "carried/"


class Config:
    """A config.json: keys with the defaults its own library has (it drops keys that equal them), and errors that name file and key."""

    def __init__(self, node: Mapping[str, Any], where: str, defaults: Mapping[str, Any] = {}):
        self.node, self.where, self.defaults = node, where, defaults

    def __call__(self, key: str) -> Any:
        value = self.node.get(key)
        if value is None:
            value = self.defaults.get(key)
        if value is None:
            raise UserError(f"{self.where}: has no {key!r}{did_you_mean(key, self.node)}")
        return value

    def part(self, key: str, defaults: Mapping[str, Any] = {}) -> "Config":
        """A group inside it."""
        value = self.node.get(key) or {}
        if not isinstance(value, Mapping):
            raise UserError(f"{self.where}: {key} is {value!r}, not a group of keys")
        return Config(value, f"{self.where}: {key}", defaults)

    def refuse(self, key: str, *fine: Any) -> None:
        """A key whose value changes the computation in a way we do not compute."""
        value = self.node.get(key)
        if value is not None and value not in fine:
            raise UserError(f"{self.where}: {key} is {value!r}, and vlmjax computes only {' or '.join(map(repr, fine))}")

    def check(self, fine: bool, key: str, what: str) -> None:
        """A key whose value is not `what` it has to be."""
        if not fine:
            raise UserError(f"{self.where}: {key} is {self(key)!r}, and vlmjax computes only {what}")

    def activation(self, key: str) -> str:
        name = self(key)
        if name not in ACTIVATIONS:
            raise UserError(f"{self.where}: {key} {name!r} is not one of {', '.join(ACTIVATIONS)}")
        return ACTIVATIONS[name]


@contextlib.contextmanager
def at_the_door(where: str) -> Iterator[None]:
    """A value of a config.json that is of another kind than its key has, as a text for a number, is said in one line."""
    try:
        yield
    except (TypeError, ValueError, AttributeError, KeyError, ZeroDivisionError, OverflowError) as error:
        raise UserError(f"{where}: holds a value of another kind than its key has: {' '.join(str(error).split())}") from error


@dataclasses.dataclass(frozen=True)
class InConfig:
    """What other families' checkpoints say in files of their own, and one's config.json or code says. marks: texts of the tokens before and behind an image, and of the one in its place.
    images: config.json → an image processor's settings, as its file has them (image_processor.py), and image_keys the inverse. chat: config.json → the Jinja source of its conversations.
    chat_keys: what is written at their start, around a question, before an answer and behind it → the keys that say so; empty where the code, which has `templates`, writes none like it."""

    marks: tuple[str, ...]
    images: Callable[[Config], dict[str, Any]]
    image_keys: Callable[[Mapping[str, Any]], dict[str, Any]]
    chat: Callable[[Config], str]
    chat_keys: Callable[[str, tuple[str, str], str, str], dict[str, Any]]
    templates: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Family:
    """components: what its models are made of. sizes: config.json → {component: its config dataclass}. config: the inverse, for writing. layouts: {name: table}, of which the first is
    written. defaults: of the keys at the top of config.json. ignored: patterns of tensors that hold no parameter. others: patterns of the tensors of language models that are not ours,
    and of what leads to them; `sizes` then has no decoder, and these are left. aliases: tensors that
    repeat another one, and must equal it. image_key: under which config.json has the
    id of the image token. tiles: whether images are cut into tiles, between marks of their own. in_config: see there, None where each is a file. text_key: the group of config.json that is
    the language model's; empty: its top. reader: who reads what is written, where it is not transformers. misfit: of sizes, why nobody else's code computes them under this name; empty where
    it does. remark: of sizes, what those who read it compute a little otherwise; empty where nothing. A leaf that a table calls `carried/…` is in the files but computed with by no component:
    it is kept, if it is there, for writing only."""

    name: str
    components: tuple[str, ...]
    sizes: Callable[[Config], dict[str, Any]]
    config: Callable[[Mapping[str, Any]], dict[str, Any]]
    layouts: Mapping[str, tuple[Entry, ...]]
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()
    image_key: str = ""
    tiles: bool = False
    in_config: InConfig | None = None
    text_key: str = ""
    reader: str = ""
    misfit: Callable[[Mapping[str, Any]], str] = lambda sizes: ""
    remark: Callable[[Mapping[str, Any]], str] = lambda sizes: ""

    def read(self, tensors: Mapping[str, np.ndarray], abstract: Mapping[str, Any], where: str) -> dict[str, np.ndarray]:
        """{name: tensor} of a checkpoint → {path by layer: view}, in whichever layout fits the file best."""
        def misfit(entries):
            names = table.names(table.expand(entries, abstract))
            return len(names - set(tensors)) - len(names & set(tensors))

        layout = min(self.layouts.values(), key=misfit)
        carried = {path: tensors[entry.foreign] for entry in layout for path in entry.paths if path.startswith(CARRIED) and entry.foreign in tensors}
        abstract = {**abstract, **carried}
        names = table.names(table.expand(layout, abstract))
        left = () if any(path.startswith("decoder/") for path in abstract) else self.others
        for copy, original in () if left else self.aliases:
            if copy in tensors and copy not in names and original in tensors:
                if not np.array_equal(tensors[copy], tensors[original]):
                    raise UserError(f"{where}: its config ties {copy} to {original}, but the file holds two different tensors")
                tensors = {name: tensor for name, tensor in tensors.items() if name != copy}
        return table.read(tensors, layout, abstract, where, (*self.ignored, *left))

    def write(self, by_layer: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """{path by layer: parameter} → {name: tensor} in the layout of the present day."""
        return table.write(by_layer, next(iter(self.layouts.values())))

    def name_of(self, paths: Iterable[str]) -> dict[str, str]:
        """{path by layer: the name of its tensor} in the layout of the present day."""
        return {path: entry.foreign for entry in table.expand(next(iter(self.layouts.values())), paths) for path in entry.paths}
