"""Can a language model that learned to see still talk? A run with adapters, with its adapters off, and the model it began from.

Command:  python experiments/benchmarks/text_ability.py --model=runs/smollm2 --original=runs/SmolLM2-135M-Instruct.Q4_1.gguf
Measures: the greedy answer to one question, and the perplexity of text that no stage has seen: the help topics of the Python that runs this
          (pydoc_data), in windows of 1,000 characters. Says whether the parameters without adapters are, bit for bit, the original's.
Writes:   MODEL/text_ability.json
"""
import argparse
import math
import platform
import sys

import numpy as np
from pydoc_data.topics import topics

from vlmjax import files, pretrained
from vlmjax.commands import common
from vlmjax.data.conversation import spans
from vlmjax.data.example import Turn

QUESTION = "What is the capital of France?"
WINDOW = 1000  # characters


def main() -> int:
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--model", required=True)
    args.add_argument("--original", required=True)
    args.add_argument("--windows", type=int, default=40)
    args = args.parse_args()
    common.set_up_jax()
    original, trained = pretrained.load(args.original), pretrained.load(args.model)
    off = trained.with_adapters("off")
    prose = "\n".join(topics[name] for name in sorted(topics))
    windows = [prose[i * WINDOW : (i + 1) * WINDOW] for i in range(args.windows)]
    rows = {name: {"answer": answer(model), **perplexity(model, windows)} for name, model in (("original", original), ("adapters on", trained), ("adapters off", off))}
    source = original.by_layer()
    mine = {path: leaf for path, leaf in off.by_layer().items() if path.startswith("decoder/")}
    same = set(mine) == set(source) and all(np.array_equal(mine[path].view(np.uint32), source[path].view(np.uint32)) for path in source)
    print(f"| model | perplexity of {rows['original']['tokens']:,} tokens | {QUESTION} |\n|---|---:|---|")
    for name, row in rows.items():
        print(f"| {name} | {row['perplexity']:.3f} | {row['answer']} |")
    print(f"\nWithout adapters {len(mine)} parameters are {'bit for bit the original' if same else 'NOT the original'}.")
    files.write_json(common.run_directory(args.model) / "text_ability.json", {"rows": rows, "off_is_the_original": same, "python": platform.python_version()})
    return 0 if same else 1


def answer(model) -> str:
    text = "".join(span.text for span in spans(model.template, "", (Turn("user", QUESTION),), prompt=True))
    start = model.tokenizer.text_of(model.tokenizer.bos) if model.template.bos else ""
    return model.generate([start + text], max_new_tokens=16)[0]


def perplexity(model, windows) -> dict[str, float]:
    """Over all tokens of all windows but the first of each."""
    total = count = 0
    for window in windows:
        ids = np.array(model.tokenizer.encode_raw(window))
        logits = model.logits(window).astype(np.float64)[:-1]
        most = logits.max(axis=1, keepdims=True)
        total += float((most[:, 0] + np.log(np.exp(logits - most).sum(axis=1)) - logits[np.arange(len(ids) - 1), ids[1:]]).sum())
        count += len(ids) - 1
    return {"perplexity": math.exp(total / count), "tokens": count}


if __name__ == "__main__":
    sys.exit(main())
