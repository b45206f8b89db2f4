"""The other side of speed.py: transformers' LLaVA as PyTorch runs it eagerly. Needs torch, transformers 5 and numpy, and nothing of vlmjax.

Attention is transformers' default (`sdpa`), without a mask, which no row needs; AdamW is the fused one, which its Trainer takes.
"""
import json
import os
import pathlib
import resource
import sys
import time

import numpy as np
import speed
import torch
import transformers


class Training:
    def __init__(self, directory: pathlib.Path, name: str, case: dict, model: torch.nn.Module, stored: dict):
        learns = tuple({"projector": ("model.multi_modal_projector.",), "decoder": ("model.language_model.", "lm_head.")}[part] for part in speed.CELLS[name][1])
        for key, parameter in model.named_parameters():
            parameter.requires_grad_(key.startswith(sum(learns, ())))
        self._model, self._variants = model.train(), speed.CELLS[name][0]
        self._optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=speed.LEARNING_RATE, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, fused=True)
        self._inputs = {"input_ids": torch.from_numpy(stored["ids"]), "pixel_values": torch.from_numpy(stored["pixel_values"])}
        self._places, self._targets = torch.from_numpy(stored["batch/target_positions"][0]).long(), torch.from_numpy(stored["batch/targets"]).long()
        self._labels = torch.full_like(self._inputs["input_ids"], -100)
        self._labels[:, self._places + 1] = self._targets
        parameters = dict(model.named_parameters())
        wanted, found = [key.format(last=case["decoder"]["layers"] - 1) for key in speed.GRADIENTS[name]], []
        for variant in self._variants:
            loss = self._backward(variant)
            found.append({"loss": loss, **{f"gradient/{key}": parameters[in_memory(key)].grad.numpy().copy() for key in wanted}})
        for _ in range(speed.UPDATES):
            self._optimizer.step()
            found[0]["later"] = self._backward(self._variants[0])
        for i, out in enumerate(found):
            np.savez(directory / f"{name}-theirs{i}.npz", **out)

    def _backward(self, variant: str) -> np.ndarray:
        self._optimizer.zero_grad(set_to_none=True)
        more = {"labels": self._labels}
        if variant == self._variants[1]:
            more = {"labels": self._targets, "shift_labels": self._targets, "logits_to_keep": self._places}
        loss = self._model(**self._inputs, **more, use_cache=False).loss
        loss.backward()
        return loss.detach().numpy()

    def run(self, variant: str) -> dict[str, float]:
        began = time.perf_counter()
        self._backward(variant)
        self._optimizer.step()
        return {"step": time.perf_counter() - began}


def in_memory(name: str) -> str:
    """The name of a parameter in a file → in the model."""
    for file, memory in (("language_model.model.", "model.language_model."), ("language_model.lm_head.", "lm_head."), ("multi_modal_projector.", "model.multi_modal_projector.")):
        if name.startswith(file):
            return memory + name.removeprefix(file)
    raise KeyError(name)


class Answering:
    def __init__(self, directory: pathlib.Path, name: str, case: dict, model: torch.nn.Module, stored: dict):
        self._model, self._variants = model.eval(), speed.CELLS[name][0]
        ids = torch.from_numpy(stored["ids"])
        self._inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": torch.from_numpy(stored["pixel_values"])}
        model.generation_config = transformers.GenerationConfig(do_sample=False, pad_token_id=0)  # the checkpoint's has an end token
        for i, variant in enumerate(self._variants):
            np.savez(directory / f"{name}-theirs{i}.npz", tokens=self._answer(variant, 1 + speed.NEW_TOKENS).astype(np.int32))

    def _answer(self, variant: str, count: int) -> np.ndarray:
        kind = {"cache_implementation": "static"} if variant == self._variants[1] else {}
        return self._model.generate(**self._inputs, max_new_tokens=count, **kind)[:, self._inputs["input_ids"].shape[1] :].numpy()

    def run(self, variant: str) -> dict[str, float]:
        out = {}
        for what, count in (("first", 1), ("whole", 1 + speed.NEW_TOKENS)):
            began = time.perf_counter()
            self._answer(variant, count)
            out[what] = time.perf_counter() - began
        return out


def main(directory: pathlib.Path, name: str) -> None:
    answers, sys.stdout = sys.stdout, sys.stderr
    case, stored = json.loads((directory / "case.json").read_text()), dict(np.load(directory / f"{name}.npz"))
    torch.set_num_threads(case["threads"])
    model = transformers.LlavaForConditionalGeneration.from_pretrained(directory / "model", dtype=torch.float32)
    side = (Training if name in speed.GRADIENTS else Answering)(directory, name, case, model, stored)
    print(json.dumps({"torch": torch.__version__, "transformers": transformers.__version__}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "stop" in request:
            print(json.dumps({"peak_MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}), file=answers, flush=True)
            return
        print(json.dumps({"runs": [side.run(request["variant"]) for _ in range(request["times"])]}), file=answers, flush=True)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), sys.argv[2])
