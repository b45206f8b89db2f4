"""`vlmjax preflight`: refuses a run whose data is not what its config says, before the first step, and shows what each stage reads. `train` does it by itself."""
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vlmjax import config as configs
from vlmjax import param_rules
from vlmjax.commands import common
from vlmjax.commands.prepare import Prepared, RunConfig, prepare
from vlmjax.data import preflight
from vlmjax.data.conversation import spans
from vlmjax.data.example import Turn
from vlmjax.data.pipeline import Pipeline
from vlmjax.errors import UserError
from vlmjax.evaluate.tasks import TASKS
from vlmjax.train import build
from vlmjax.train.metrics import say

FILE = "preflight.json"
_STYLES = {"supervised": "\033[1;32m", "image": "\033[36m", "text": "\033[0m", "next": "\033[2m"}
_PROBE = tuple(Turn(role, text) for role, text in (("user", "What is this?"), ("assistant", "A cat."), ("user", "And that?"), ("assistant", "Two dogs.")))


def main(argv: list[str]) -> None:
    flags = common.Flags("preflight", "Checks the data of every stage of a config, and shows rows with what is supervised. Override any key as in `train`.").data_dir()
    flags.add_argument("--config", required=True, help="FILE.py or FILE.py:ARG")
    flags.add_argument("--color", choices=("auto", "always", "never"), default="auto")
    overrides = [a for a in argv if a.startswith("--config.")]
    args = flags.read([a for a in argv if not a.startswith("--config.")])
    node, _ = configs.read(args.config, overrides, RunConfig)
    common.set_up_jax()
    made = prepare(configs.build(RunConfig, node), args.data_dir)
    color = args.color == "always" or args.color == "auto" and sys.stdout.isatty()
    check(made, args.data_dir, shown=lambda name, found: show(name, found, made.data[name], color))
    print("preflight: no reason not to start")


def check(made: Prepared, data_dir: str, tell: Callable[[str], None] = say, shown: Callable[[str, preflight.Findings], None] = lambda name, found: None) -> dict[str, Any]:
    """Examines every stage, tells line by line what a person should know, and refuses the run for all its problems at once. → what preflight.json holds."""
    config = made.config
    problems = [*template(made), *image_tokens(made), *vocabulary(made)]
    notes, stages, told = [], {}, {}
    for name in config.run:
        stage = config.stages[name]
        found = stages[name] = preflight.examine(f"stages.{name}", made.data[name], config.preflight, stage.max_unusable, stage.max_broken)
        problems += found.problems
        notes += found.notes
        for line in lines(found):
            told.setdefault(line, []).append(name)
        if jax.process_index() == 0:
            shown(name, found)
    for task in dict.fromkeys(task for stage in config.run for task in config.evaluate.after.get(stage, ())):
        items, _ = TASKS[task].read(data_dir, config.evaluate.split)
        more, unchecked = preflight.overlap(task, items, {name: made.data[name].sources for name in config.run if config.stages[name].images}, config.preflight.max_overlap)
        problems += more
        notes += unchecked
    for line, names in told.items():
        tell(f"{', '.join(names)}: {line}")
    for line in dict.fromkeys(notes):
        tell(f"note: {line}")
    preflight.refuse(problems)
    return {"stages": {name: found.plain() for name, found in stages.items()}, "notes": list(dict.fromkeys(notes))}


def lines(found: preflight.Findings) -> list[str]:
    """What a person should know of a stage's data although the run may start; nothing where all is well."""
    out = [f"left out: {entry}" for entry in found.left_out[:3]] + [f"unreadable: {entry}" for entry in found.unreadable[:3]]
    return out + [f"{what}: {count:,}" for what, count in found.altered.items()]


def show(name: str, found: preflight.Findings, data: Pipeline, color: bool) -> None:
    """Rows as the step reads them: supervised text in green, or between ⟦ ⟧ where there is no colour."""
    images = f", {found.images:,} images ({'all' if found.images == found.images_checked else f'{found.images_checked:,}'} checked)" if found.images else ""
    print(f"{name}: {found.examples:,} examples{images}")
    if (used := found.usage) and (best := preflight.budget(data)):
        slots = f", {used['image_slots']:.1%} of {data.shape.images} {'images' if data.processor.layout.tiles == 1 else 'tiles'}" if data.shape.images else ""
        print(f"{name}: {used['rows']:,} rows an epoch; real are {used['tokens']:.1%} of {data.shape.length} tokens{slots}, {used['supervised']:.1%} of {data.shape.targets} targets"
              f" (rows this long are filled well with images={best.images}, targets={best.targets})")
    print(f"{name}: the first rows, supervised text {'green' if color else 'between ⟦ ⟧'}:")
    for n, row in enumerate(found.samples):
        text = ""
        for kind, span in row:
            if kind == "next":
                text += f"\n  {'and' if span else 'or'} "
                continue
            span = f"[image, {span} tokens]" if kind == "image" else f"⟦{span}⟧" if kind == "supervised" and not color else span
            text += f"{_STYLES[kind]}{span}\033[0m" if color else span
        print(f"  row {n}: " + text.replace("\n\n", "\n"))


def template(made: Prepared) -> list[str]:
    """The last stage's template is what the model is used with; a language model that comes with a template of its own has been taught that one."""
    config = made.config
    last = config.run[-1]
    problems = []
    own = config.stages[last].template
    if config.stages[last].objective == "next_token" and own and own != config.template:
        problems.append(f"stages.{last}.template: {own!r}, but the run's template, with which its model will be used, is {config.template!r}")
    checkpoint = made.checkpoints.get("decoder")
    if checkpoint is None or config.preflight.other_template or config.stages[last].objective != "next_token":
        return problems
    try:
        theirs = checkpoint.chat_template()
    except UserError:
        return problems  # one that says more than turns; `template="checkpoint"` would say so
    if theirs is None or theirs.raw:
        return problems
    eos = made.tokenizer.text_of(made.tokenizer.eos) if made.tokenizer.eos is not None else ""
    ours, text = made.templates[last], []
    for one in (ours, theirs):
        text.append("".join(span.text for span in spans(one, eos, _PROBE)))
    if text[0] != text[1]:
        problems.append(f"stages.{last}.template: {ours.name!r} lays out turns as {text[0][:60]!r}…, the checkpoint of model.decoder as {text[1][:60]!r}…; "
                        "take template='checkpoint', or say that this is meant with preflight.other_template=True")
    return problems


def image_tokens(made: Prepared) -> list[str]:
    """Whether encoder and projector make as many tokens of an image as the processor leaves places for; the program is traced, nothing is computed."""
    problems = []
    for name in made.config.run:
        layout, stage = made.layouts[name], made.config.stages[name]
        if layout is None or stage.objective != "next_token":
            continue
        parts = build.needed(made.modules, "next_token", stage.images, f"stages.{name}")
        params = param_rules.unflatten(build.abstract_params({key: parts[key] for key in ("encoder", "projector")}))
        pixels = jax.ShapeDtypeStruct((1, 1, layout.size, layout.size, 3), jnp.uint8)
        tokens = jax.eval_shape(build.join(parts).image_tokens, params, pixels).shape[1]
        if tokens != layout.tokens_per_image:
            problems.append(f"stages.{name}: the model makes {tokens} tokens of an image, the processor leaves {layout.tokens_per_image} places")
        break  # encoder, projector and layout size are the same in every stage
    return problems


def vocabulary(made: Prepared) -> list[str]:
    """The token that marks an image has a row in the table of the language model."""
    image, decoder = made.tokenizer.image, made.modules.get("decoder")
    if image is not None and decoder is not None and image >= decoder.config.vocabulary and any(made.config.stages[name].images for name in made.config.run):
        return [f"model.decoder: its vocabulary of {decoder.config.vocabulary} lacks the image token {made.tokenizer.text_of(image)} ({image}); "
                "start from a checkpoint that has it, or add it with added_tokens"]
    return []
