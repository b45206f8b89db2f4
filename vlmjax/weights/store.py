"""Parameters on disk: safetensors files under the names of Hugging Face's layout (one file, or shards and an index).

Names are paths by layer, `decoder/layers/3/attention/q/kernel`, so a file does not depend on how a run cut its stacks. Reading
maps the file into memory: nothing is copied before it is used.
"""
import json
from collections.abc import Mapping

from etils import epath
import ml_dtypes
import numpy as np
import safetensors.numpy

from vlmjax import files
from vlmjax.errors import UserError

FILE = "model.safetensors"
INDEX = FILE + ".index.json"
SHARD_BYTES = 4 << 30
PICKLES = ("*.bin", "*.pth", "*.pt")

# https://github.com/huggingface/safetensors#format; read here because safetensors.numpy cannot read BF16 (0.8.0).
_DTYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "BOOL": np.bool_,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8, "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8,
}


def save(directory: epath.PathLike, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None,
         shard_bytes: int = SHARD_BYTES) -> None:
    """Writes `arrays` (any mapping: it is read shard by shard, in sorted order) and text `metadata` to `directory`.

    One `model.safetensors`, or, where the arrays hold more than `shard_bytes`, `model-00001-of-00003.safetensors` … and an index.
    """
    directory = epath.Path(directory)
    shards: list[list[str]] = [[]]
    filled = total = 0
    for path in sorted(arrays):
        size = arrays[path].nbytes
        if shards[-1] and filled + size > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(path)
        filled += size
        total += size
    single = len(shards) == 1
    names = [FILE] if single else [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    for name, paths in zip(names, shards):
        # order="C", not ascontiguousarray, which would turn a scalar into a vector
        tensors = {path: np.asarray(arrays[path], order="C") for path in paths}
        files.write(directory / name, safetensors.numpy.save(tensors, dict(metadata or {})))
    if not single:
        where = {path: name for name, paths in zip(names, shards) for path in paths}
        index = {"metadata": {"total_size": total, **(metadata or {})}, "weight_map": where}
        files.write(directory / INDEX, json.dumps(index, indent=1))
    for old in [*directory.glob("model*.safetensors"), *directory.glob(INDEX)]:  # an earlier save of another number of shards
        if old.name not in names and not (old.name == INDEX and not single):
            old.unlink()


def load(directory: epath.PathLike) -> dict[str, np.ndarray]:
    """{path: array} of all that `save` wrote to `directory`; arrays of a local file are read-only views of it."""
    directory = epath.Path(directory)
    if (directory / FILE).exists():
        return read(directory / FILE)
    if not (directory / INDEX).exists():
        pickles = sorted(path.name for pattern in PICKLES for path in directory.glob(pattern))
        hint = f"; {pickles[0]} is a pickle, which is never loaded, since it can run any code: vlmjax convert --model={directory / pickles[0]} --to=DIR" if pickles else ""
        raise UserError(f"{directory}: holds no {FILE} and no {INDEX}{hint}")
    try:
        where = json.loads((directory / INDEX).read_text())["weight_map"]
        shards = {name: [path for path in where if where[path] == name] for name in sorted(set(where.values()))}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{directory / INDEX}: is not an index of safetensors files: {error!r}") from None
    arrays = {}
    for name, paths in shards.items():
        if epath.Path(name).name != name:
            raise UserError(f"{directory / INDEX}: places tensors in {name!r}, which is not a file of its own directory")
        if not (directory / name).exists():
            raise UserError(f"{directory / name}: is missing, but {INDEX} names it")
        shard = read(directory / name)
        for path in paths:
            if path not in shard:
                raise UserError(f"{directory / name}: lacks {path!r}, which {INDEX} places there")
            arrays[path] = shard[path]
    return arrays


def view(file: epath.Path) -> np.ndarray:
    """u8[bytes] of a file that is not empty: mapped into memory if it is local, else read."""
    local = not str(file).startswith(("gs://", "s3://"))
    return np.memmap(file, np.uint8, "r") if local else np.frombuffer(file.read_bytes(), np.uint8)


def read(file: epath.Path) -> dict[str, np.ndarray]:
    """One safetensors file: u64 length of the header, the header (JSON: name → dtype, shape, [begin, end)), the data."""
    if file.stat().length < 8:
        raise UserError(f"{file}: is not a safetensors file: it has {file.stat().length} bytes; was it copied completely?")
    data = view(file)
    start = 8 + int(data[:8].view("<u8")[0])
    if start > data.size:
        raise UserError(f"{file}: the file ends inside its header ({data.size} bytes); was it copied completely?")
    try:
        header = json.loads(data[8:start].tobytes())
        header.pop("__metadata__", None)
        entries = {path: (e["dtype"], tuple(e["shape"]), *e["data_offsets"]) for path, e in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: is not a safetensors file: {error!r}") from None
    needed = start + max((end for *_, end in entries.values()), default=0)
    if needed != data.size:
        raise UserError(f"{file}: has {data.size} bytes where its header promises {needed}; was it copied completely?")
    arrays = {}
    for path, (name, shape, begin, end) in entries.items():
        if name not in _DTYPES:
            raise UserError(f"{file}: {path!r} has the dtype {name}, which is not one of {', '.join(_DTYPES)}")
        dtype = np.dtype(_DTYPES[name])
        if begin < 0 or end - begin != dtype.itemsize * int(np.prod(shape, dtype=np.int64)):
            raise UserError(f"{file}: {path!r} has {end - begin} bytes, which do not make {name}{list(shape)}")
        arrays[path] = data[start + begin : start + end].view(dtype).reshape(shape)
    return arrays
