"""Name tables: tensors of a published checkpoint ↔ parameters by layer path, read in both directions.

A line of a table says where a tensor goes and how it lies there; `{i}` stands for the layer, and where our layers are pairs of the file's, `{2i}` and `{2i+1}` for these:

    Entry("model.layers.{i}.self_attn.q_proj.weight", "decoder/layers/{i}/attention/q/kernel", LINEAR)

A leaf for which a layout has no tensor, since it is zero there, has a line with an empty name.

Reading makes views: nothing is copied before a device asks for its part of it.
"""
import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from vlmjax.errors import UserError, nearest

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Form:
    """How one of our leaves lies in a file. foreign: our shape → the file's. read: (the file's array, our shape) → our view of it.
    write: our array → the file's."""

    foreign: Callable[[Shape], Shape]
    read: Callable[[np.ndarray, Shape], np.ndarray]
    write: Callable[[np.ndarray], np.ndarray]


def _linear(inputs: int) -> Form:
    """torch's Linear, [out, in]; the first `inputs` of our axes are what it contracts: [D, N, H] ↔ [N·H, D], [N, H, D] ↔ [D, N·H]."""
    def foreign(shape):
        return math.prod(shape[inputs:]), math.prod(shape[:inputs])

    return Form(foreign, lambda x, shape: x.T.reshape(shape), lambda x: x.reshape(foreign(x.shape)[::-1]).T)


AS_IS = Form(lambda shape: shape, lambda x, shape: x, lambda x: x)
LINEAR, LINEAR_2 = _linear(1), _linear(2)
LEAD = Form(lambda s: (1, *s), lambda x, shape: x[0], lambda x: x[None])  # [P, E] ↔ [1, P, E]
LEAD_2 = Form(lambda s: (1, 1, *s), lambda x, shape: x[0, 0], lambda x: x[None, None])  # [E] ↔ [1, 1, E]
FLAT = Form(lambda shape: (math.prod(shape),), lambda x, shape: x.reshape(shape), lambda x: x.reshape(-1))  # biases of heads: [N, H] ↔ [N·H]
CONV = Form(lambda s: (s[3], s[2], s[0], s[1]), lambda x, shape: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1))  # [h, w, c, E] ↔ [E, c, h, w]
# LINEAR of a [D, N, H] whose file rotates neighbouring rows of a head (2j and 2j+1) where we rotate its halves (j and j + H/2). No view: a copy.
INTERLEAVED = Form(LINEAR.foreign, lambda x, shape: LINEAR.read(x, shape).reshape(*shape[:2], -1, 2).swapaxes(2, 3).reshape(shape),
                   lambda x: LINEAR.write(x.reshape(*x.shape[:2], 2, -1).swapaxes(2, 3).reshape(x.shape)))


@dataclasses.dataclass(frozen=True)
class Deferred:
    """An array that is computed each time when it, or a part of it, is asked for: a quantised tensor takes its full size only while a
    device is given its part."""

    shape: Shape
    compute: Callable[[], np.ndarray]
    dtype: np.dtype = np.dtype(np.float32)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.compute(), dtype)

    def __getitem__(self, index: Any) -> np.ndarray:
        return self.compute()[index]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One tensor of a file and the leaf it becomes; several leaves where the file joins them along its first axis (fused q, k, v). foreign: empty for a leaf of zeros that the file leaves out."""

    foreign: str
    ours: str | tuple[str, ...]
    form: Form = AS_IS

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.ours,) if isinstance(self.ours, str) else self.ours

    def of_layer(self, i: int) -> "Entry":
        foreign = self.foreign
        for sign, layer in (("{i}", i), ("{2i}", 2 * i), ("{2i+1}", 2 * i + 1)):
            foreign = foreign.replace(sign, str(layer))
        return Entry(foreign, tuple(path.replace("{i}", str(i)) for path in self.paths), self.form)


def prefixed(entries: Iterable[Entry], foreign: str, ours: str = "") -> tuple[Entry, ...]:
    """The same table under other prefixes."""
    return tuple(Entry(e.foreign and foreign + e.foreign, tuple(ours + path for path in e.paths), e.form) for e in entries)


def both(foreign: str, ours: str, form: Form = AS_IS, leaf: str = "scale") -> tuple[Entry, ...]:
    """The weight and the bias of a norm, or, with a form and leaf="kernel", of a layer."""
    return Entry(f"{foreign}.weight", f"{ours}/{leaf}", form), Entry(f"{foreign}.bias", f"{ours}/bias")


def expand(entries: Iterable[Entry], paths: Iterable[str]) -> list[Entry]:
    """One entry per tensor, for all layers that `paths` (by layer) have. An entry none of whose paths exist is left out."""
    paths, out = set(paths), []
    for entry in entries:
        if "{i}" not in entry.paths[0]:
            out += [entry] if paths.issuperset(entry.paths) else []
            continue
        i = 0
        while paths.issuperset((layer := entry.of_layer(i)).paths):
            out.append(layer)
            i += 1
    return out


def names(entries: Iterable[Entry]) -> set[str]:
    """Of the tensors that a file has."""
    return {entry.foreign for entry in entries if entry.foreign}


def read(tensors: Mapping[str, np.ndarray], entries: Sequence[Entry], abstract: Mapping[str, Any], where: str, ignored: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """{path by layer: view} of all leaves of `abstract` ({path by layer: has .shape}), from the tensors of a checkpoint.

    Total in both directions: a leaf without a tensor, a tensor without a leaf, and a tensor of another shape are errors that name
    them. `ignored`: patterns of names that hold no parameter (buffers of old files).
    """
    table = expand(entries, abstract)
    if silent := set(abstract) - {path for entry in table for path in entry.paths}:
        raise AssertionError(f"the name table has no line for {min(silent)}")
    known = names(table)
    missing = sorted(known - set(tensors))
    extra = sorted(name for name in set(tensors) - known if not any(re.fullmatch(pattern, name) for pattern in ignored))
    if missing or extra:
        raise UserError(f"{where}: is not what its config says: {_listed('lacks', missing, tensors)}{'; ' if missing and extra else ''}{_listed('holds, beyond it,', extra)}")
    out = {}
    for entry in table:
        shapes = [tuple(abstract[path].shape) for path in entry.paths]
        if not entry.foreign:
            out |= {path: np.zeros(shape, np.float32) for path, shape in zip(entry.paths, shapes)}
            continue
        forms = [entry.form.foreign(shape) for shape in shapes]
        want = (sum(form[0] for form in forms), *forms[0][1:]) if len(forms) > 1 else forms[0]
        tensor = tensors[entry.foreign]
        if tensor.shape != want:
            raise UserError(f"{where}: {entry.foreign} has the shape {list(tensor.shape)}, its config asks for {list(want)}")
        start = 0
        for path, shape, form in zip(entry.paths, shapes, forms):
            part = tensor if len(forms) == 1 else tensor[start : start + form[0]]
            start += form[0] if form else 0
            if isinstance(tensor, Deferred):
                out[path] = Deferred(shape, lambda part=part, entry=entry, shape=shape: entry.form.read(np.asarray(part), shape), tensor.dtype)
            else:
                out[path] = entry.form.read(part, shape)
    return out


def write(by_layer: Mapping[str, np.ndarray], entries: Sequence[Entry]) -> dict[str, np.ndarray]:
    """The inverse of `read`: {name in the file: array}, for the entries whose leaves are all there."""
    out = {}
    for entry in expand(entries, by_layer):
        if not entry.foreign:
            if wrong := [path for path in entry.paths if np.any(by_layer[path])]:
                raise UserError(f"{wrong[0]} is not zero, and the layout to write has no tensor for it")
            continue
        parts = [entry.form.write(by_layer[path]) for path in entry.paths]
        out[entry.foreign] = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return out


def _listed(what: str, names: Sequence[str], have: Iterable[str] = ()) -> str:
    if not names:
        return ""
    near = nearest(names[0], have, 1) if have else []
    return f"{what} {len(names)} tensor{'s' * (len(names) > 1)} ({', '.join(names[:3])}{' …' * (len(names) > 3)}){f', nearest {near[0]}' if near else ''}"
