"""Pickled checkpoints (.bin, .pth, .pt) → safetensors. A pickle is a program, so it is read in a child process and by torch's loader of weights alone.

The child is `python -m vlmjax.weights.pickles FILE OUT`: it needs the extra [torch] and imports nothing else of vlmjax's.
"""
import json
import subprocess
import sys

from etils import epath

from vlmjax import files
from vlmjax.errors import UserError
from vlmjax.weights import store

INDEX = "pytorch_model.bin.index.json"
WRAPPERS = ("model", "state_dict", "module")  # keys under which training scripts save the tensors
BESIDE = ("*.json", "tokenizer.model", "merges.txt", "*.jinja")  # what belongs to a model besides its tensors
REFUSED = 3


def claims(path: epath.Path) -> bool:
    """Whether it is a pickle, or the index of several."""
    return any(path.match(pattern) for pattern in store.PICKLES) or path.name == INDEX


def convert(source: epath.Path, directory: epath.Path) -> tuple[int, list[str]]:
    """Writes the tensors of a pickle, or of all that a `pytorch_model.bin.index.json` names, as safetensors of the same names to `directory`, with the
    config and tokenizer files that lie beside it. → the number of tensors, and the names of what else the file holds (optimizer, epoch …), which is left out."""
    if not source.exists():
        raise UserError(f"there is no file {source}")
    if source.name == INDEX:
        index = files.read_json(source)
        shards = sorted(set(index["weight_map"].values())) if isinstance(index, dict) and isinstance(index.get("weight_map"), dict) else []
        if not shards or any(epath.Path(name).name != name for name in shards):
            raise UserError(f"{source}: is not an index of files in its own directory")
    else:
        shards = [source.name]
    if missing := [name for name in shards if not (source.parent / name).exists()]:
        raise UserError(f"{source.parent / missing[0]}: is missing")
    directory.mkdir(parents=True, exist_ok=True)
    names = [store.FILE] if len(shards) == 1 else [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    where: dict[str, str] = {}
    left: dict[str, None] = {}
    for shard, name in zip(shards, names):
        left |= dict.fromkeys(_child(source.parent / shard, directory / name))
        where |= {tensor: name for tensor in store.read(directory / name)}
    if len(names) > 1:
        files.write_json(directory / store.INDEX, {"metadata": {}, "weight_map": where})
    for pattern in BESIDE:
        for file in source.parent.glob(pattern):
            if not file.name.endswith(".index.json"):
                files.write(directory / file.name, file.read_bytes())
    return len(where), list(left)


def _child(file: epath.Path, out: epath.Path) -> list[str]:
    done = subprocess.run([sys.executable, "-m", "vlmjax.weights.pickles", str(file), str(out)], capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"the reading process ended with status {done.returncode}"])[-1]
        raise UserError(f"{file}: {last}" if done.returncode == REFUSED else f"{file}: cannot be read: {last}")
    return json.loads(done.stdout)


def _main(file: str, out: str) -> None:
    try:
        import torch
        from safetensors.torch import save_file
    except ImportError:
        _refuse("reading a pickle needs torch: pip install 'vlmjax[torch]'")
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises nearly anything
        # The reason is the first line that is no advice on how to turn the check off.
        lines = [line.strip() for line in str(error).splitlines() if line.strip() and "weights_only" not in line] or [type(error).__name__]
        refused = "unsupported global" in lines[0].lower() or "unsupported class" in lines[0].lower()
        _refuse(f"holds more than tensors, which could run code, and was not loaded ({lines[0]:.120})" if refused else f"is not a checkpoint of torch: {lines[0]:.160}")
    left = []
    inside = {id(found)}
    while isinstance(found, dict) and (key := next((key for key in WRAPPERS if isinstance(found.get(key), dict)), None)):
        if id(found[key]) in inside:
            _refuse("holds itself")
        inside.add(id(found[key]))
        left += [str(other) for other in found if other != key]
        found = found[key]
    tensors = {name: value for name, value in found.items() if isinstance(value, torch.Tensor)} if isinstance(found, dict) else {}
    if not tensors:
        _refuse("holds no tensors by name")
    left += [str(name) for name in found if name not in tensors]
    # Clones: safetensors refuses tensors that share memory, as tied ones do here.
    save_file({name: value.clone().contiguous() for name, value in tensors.items()}, out, {"format": "pt", "source": json.dumps(file)})
    print(json.dumps(left))


def _refuse(message: str) -> None:
    print(message, file=sys.stderr)
    sys.exit(REFUSED)


if __name__ == "__main__":
    _main(*sys.argv[1:])
