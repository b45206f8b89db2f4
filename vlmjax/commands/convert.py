"""`vlmjax convert`: a model of any kind that is read, as a directory that transformers loads."""
from vlmjax import export, pretrained
from vlmjax.commands import common
from vlmjax.errors import UserError
from vlmjax.weights import pickles, store


def main(argv: list[str]) -> None:
    flags = common.Flags("convert", "Writes a model as transformers reads it: weights, config, tokenizer, processor.")
    flags.add_argument("--model", required=True, help="a run's directory, a published checkpoint's directory, a GGUF file, hf://org/name, or a pickle (.bin, .pth, .pt, its index)")
    flags.add_argument("--to", required=True, help="the directory to write; it must be empty or not there")
    flags.add_argument("--as", dest="family", help="clip, llama, mistral, qwen2, llava, internvl, internvl_chat (OpenGVLab's own layout) or blip-2, where a model holds more than one (default: the largest)")
    args = flags.read(argv)
    common.set_up_jax()
    target = common.run_directory(args.to)
    if target.exists() and any(target.iterdir()):
        raise UserError(f"--to: {target} is not empty; nothing was written")
    source = common.run_directory(args.model)
    if any(source.match(pattern) for pattern in store.PICKLES) or source.name == pickles.INDEX:
        if not source.exists():
            raise UserError(f"--model: there is no file {source}")
        print(f"{target}: {pickles.convert(source, target)} tensors as safetensors, under their own names; read {target} from now on")
        return
    print(f"{target}: {export.write(pretrained.load(args.model), target, args.family)}")
