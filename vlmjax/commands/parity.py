"""`vlmjax parity`: the same checkpoint computed by vlmjax and by transformers, stage by stage, on this machine."""
from vlmjax import export, pretrained
from vlmjax.commands import common
from vlmjax.errors import UserError
from vlmjax.parity import cases, ours, reference, table
from vlmjax.weights import FAMILIES, gguf, hub


def main(argv: list[str]) -> None:
    flags = common.Flags("parity", "Compares a published checkpoint, stage by stage, with transformers' own implementation (extra [torch]).")
    flags.add_argument("--model", required=True, help="the checkpoint's directory, or hf://org/name")
    args = flags.read(argv)
    common.set_up_jax()
    directory = hub.locate(args.model)
    if gguf.claims(directory):
        raise UserError(f"--model: {args.model} is a GGUF file, which transformers reads without all of its tokenizer; write it with `vlmjax convert` and compare that")
    model = pretrained.load(directory)
    if not model.family:
        raise UserError(f"--model: {args.model} is vlmjax's own format, which nothing else reads; write it with `vlmjax convert` and compare that")
    if (kind := pretrained.find(directory).config["model_type"]) != model.family:
        raise UserError(f"--model: {args.model} is a {kind} in its authors' own layout, which transformers does not read; write it with `vlmjax convert` and compare that")
    if lacking := [name for name in FAMILIES[model.family].components if name not in model.parts]:
        raise UserError(f"--model: of {args.model} vlmjax reads {' and '.join(model.parts)} alone and computes no {' and '.join(lacking)}, so there is no whole to compare")
    if FAMILIES[model.family].reader:
        raise UserError(f"--model: transformers has no class for {model.family}; write it as {export.default(model)}, `vlmjax convert --model={args.model} --as={export.default(model)} --to=DIR`, and compare DIR, which holds the same tensors")
    rows = table.compare(ours.run(model, cases), reference.run(str(directory), model.family, cases))
    print(table.text(rows))
    if wrong := [row.stage for row in rows if not row.ok]:
        raise UserError(f"parity: {args.model} differs from transformers in {', '.join(wrong)}")
