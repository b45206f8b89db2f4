"""`vlmjax convert`: a model of any kind that is read, as a directory that transformers loads; pickles, and MiniGPT-4's published parts, as directories that vlmjax loads."""
import tempfile

import jax.numpy as jnp
import numpy as np
from etils import epath

from vlmjax import export, files, pretrained, stacks
from vlmjax.commands import common
from vlmjax.data.tokenizer import Tokenizer
from vlmjax.errors import UserError
from vlmjax.layout import ImageLayout
from vlmjax.models.qformer import QFormerConfig
from vlmjax.train import build
from vlmjax.weights import blip2, hub, image_processor, minigpt4, pickles, store


def main(argv: list[str]) -> None:
    flags = common.Flags("convert", "Writes a model as transformers reads it: weights, config, tokenizer, processor.")
    flags.add_argument("--model", required=True, help="a run's directory, a published checkpoint's directory, a GGUF file, hf://org/name, a pickle (.bin, .pth, .pt, its index), or MiniGPT-4's parts: A,B,C")
    flags.add_argument("--to", required=True, help="the directory to write; it must be empty or not there")
    flags.add_argument("--as", dest="family", help="clip, llama, mistral, qwen2, llava, internvl, internvl_chat (OpenGVLab's own layout) or blip-2, where a model holds more than one (default: the largest)")
    args = flags.read(argv)
    common.set_up_jax()
    target = common.run_directory(args.to)
    if target.exists() and any(target.iterdir()):
        raise UserError(f"--to: {target} is not empty; nothing was written")
    source = common.run_directory(args.model)
    several = "," in args.model and not source.exists()
    if args.family and (several or pickles.claims(source)):
        raise UserError("--as: pickles and parts are written under their own names; convert what was written of them")
    if several:
        print(f"{target}: {_join(args.model.split(','), target)}")
    elif pickles.claims(source):
        count, left = pickles.convert(source, target)
        beside = f"; left out, as no tensors of the model: {', '.join(left)}" if left else ""
        print(f"{target}: {count} tensors as safetensors, under their own names; read {target} from now on{beside}")
    else:
        print(f"{target}: {export.write(pretrained.load(args.model), target, args.family)}")


def _join(models: list[str], target: epath.Path) -> str:
    """Writes MiniGPT-4's parts as one checkpoint in their own names and types, and says what was written. Without a language model it is one to start from."""
    if not all(model.strip() for model in models):
        raise UserError(f"--model: {','.join(models)} names an empty part; parts are separated by single commas")
    with tempfile.TemporaryDirectory() as scratch:
        read = [_part(model, epath.Path(scratch) / str(i)) for i, model in enumerate(models)]
        tensors, sizes, remarks = minigpt4.join([part for part, _ in read])
        if odd := next((name for name, tensor in tensors.items() if not np.issubdtype(tensor.dtype, np.integer) and not np.isfinite(tensor.astype(np.float32)).all()), None):
            raise UserError(f"--model: {odd} holds numbers that are not finite")
        config, where = minigpt4.config(sizes), " + ".join(models)
        whole = pretrained.modules(sizes, jnp.float32, where)
        blip2.FAMILY.read(tensors, stacks.expand(build.abstract_params(whole)), where)  # refuses what does not fit, before anything is written
        store.save(target, tensors, {"format": "pt"})
    encoder = sizes["encoder"]
    files.write_json(target / "preprocessor_config.json", image_processor.config(ImageLayout(encoder.size, encoder.patch, "squash", encoder.mean, encoder.std)))
    if tokenizer := next((tokenizer for _, tokenizer in read if tokenizer), None):
        files.write_json(target / "tokenizer_config.json", tokenizer.transformers_config())
        tokenizer.save(target / "tokenizer.json")
        config[pretrained.TEMPLATE] = "minigpt4" if isinstance(sizes["projector"], QFormerConfig) else "minigpt4_llama_2"
        config["text_config"].update({"bos_token_id": tokenizer.bos, "eos_token_id": tokenizer.eos, "pad_token_id": tokenizer.pad})
    files.write_json(target / pretrained.CONFIG, config)
    kind = "MiniGPT-4" if tokenizer else "encoder and Q-Former, for a run to start from"
    return "; ".join([f"{kind}, {len(tensors)} tensors in the authors' names, which vlmjax reads", *remarks])


def _part(model: str, scratch: epath.Path) -> tuple[minigpt4.Part, Tokenizer | None]:
    """One of the things to join: a pickle, a directory that was converted from one, or a checkpoint; of a language model also its tokenizer."""
    source = hub.locate(common.expand(model))
    if pickles.claims(source):
        pickles.convert(source, scratch)
        return minigpt4.of_file(store.load(scratch), model), None
    if source.is_dir() and not (source / pretrained.CONFIG).exists() and not (source / "model" / pretrained.CONFIG).exists():
        return minigpt4.of_file(store.load(source), model), None
    checkpoint = pretrained.find(source)
    if checkpoint.file:
        raise UserError(f"--model: {model} is a GGUF file, whose tensors are no one's own; give the directory of the model that it was made from")
    part = minigpt4.of_checkpoint(checkpoint.arrays(), checkpoint.sizes, model)
    return part, checkpoint.tokenizer() if "decoder" in part.sizes else None
