"""`vlmjax convert`: a model of any kind that is read, as a directory that transformers loads."""
from vlmjax import export, pretrained
from vlmjax.commands import common
from vlmjax.errors import UserError


def main(argv: list[str]) -> None:
    flags = common.Flags("convert", "Writes a model as transformers reads it: weights, config, tokenizer, processor.")
    flags.add_argument("--model", required=True, help="a run's directory, a published checkpoint's directory, or hf://org/name")
    flags.add_argument("--to", required=True, help="the directory to write; it must be empty or not there")
    flags.add_argument("--as", dest="family", help="clip, llama, qwen2 or llava, where a model holds more than one (default: the largest)")
    args = flags.read(argv)
    common.set_up_jax()
    target = common.run_directory(args.to)
    if target.exists() and any(target.iterdir()):
        raise UserError(f"--to: {target} is not empty; nothing was written")
    family = export.write(pretrained.load(args.model), target, args.family)
    print(f"{target}: {family.name}, float32; transformers reads it with from_pretrained({str(target)!r})")
