"""Pickled checkpoints are converted in a child process. Needs torch (extra [torch]), which the tests do not install: then they are skipped."""
import importlib.util
import io
import json
import os
import pathlib
import pickle
import shutil

import numpy as np
import pytest

from vlmjax import pretrained
from vlmjax.__main__ import main
from vlmjax.weights import store

GOLDEN = pathlib.Path(__file__).parent.parent / "golden"
needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed (extra [torch])")


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@needs_torch
@pytest.mark.parametrize("shards", [1, 2])
def test_a_model_published_as_pickles_is_the_same_model(tmp_path, shards, capsys):
    import torch

    source = GOLDEN / "llama" / "model"
    old = tmp_path / "old"
    shutil.copytree(source, old, ignore=shutil.ignore_patterns("*.safetensors"))
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in store.load(source).items()}
    names = sorted(tensors)
    parts = {f"pytorch_model-{i + 1:05d}-of-{shards:05d}.bin" if shards > 1 else "pytorch_model.bin": names[i::shards] for i in range(shards)}
    for file, own in parts.items():
        torch.save({name: tensors[name] for name in own}, old / file)
    given = old / "pytorch_model.bin"
    if shards > 1:
        given = old / "pytorch_model.bin.index.json"
        given.write_text(json.dumps({"weight_map": {name: file for file, own in parts.items() for name in own}}))
    assert main(["convert", f"--model={given}", f"--to={tmp_path}/new"]) == 0 and "30 tensors" in capsys.readouterr().out
    first, again = pretrained.load(source).by_layer(), pretrained.load(tmp_path / "new").by_layer()
    assert all(np.array_equal(first[path], again[path]) for path in first)


@needs_torch
@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: {"model": t}, lambda t: {"state_dict": t, "epoch": 3}])
def test_loose_files_keep_their_names(tmp_path, wrap):
    import torch

    tensors = {"model.mm_projector.0.weight": torch.arange(6.0).reshape(2, 3).to(torch.bfloat16), "query_tokens": torch.ones(1, 2)}
    torch.save(wrap(tensors), tmp_path / "mm_projector.bin")
    assert main(["convert", f"--model={tmp_path}/mm_projector.bin", f"--to={tmp_path}/out"]) == 0
    found = store.load(tmp_path / "out")
    assert set(found) == set(tensors) and found["model.mm_projector.0.weight"].dtype.name == "bfloat16"
    np.testing.assert_array_equal(found["model.mm_projector.0.weight"].astype(np.float32), [[0, 1, 2], [3, 4, 5]])


def endless():
    found = {"epoch": 1}
    found["model"] = found
    return found


def saved(value):
    import torch

    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


@needs_torch
@pytest.mark.parametrize("content, message", [
    (lambda path: saved({"weight": Evil(path)}), "holds more than tensors, which could run code, and was not loaded"),
    (lambda path: pickle.dumps({"weight": Evil(path)}, protocol=2), "holds more than tensors, which could run code, and was not loaded"),
    (lambda path: pickle.dumps({"weight": Evil(path)}), "is not a checkpoint of torch"),  # torch reads no other protocol than 2
    (lambda path: b"<html></html>", "is not a checkpoint of torch"),
    (lambda path: saved(endless()), "holds itself"),
], ids=["torch", "pickle2", "pickle4", "html", "endless"])
def test_a_pickle_that_runs_code_does_not(tmp_path, capsys, content, message):
    (tmp_path / "evil.pth").write_bytes(content(tmp_path / "touched"))
    assert main(["convert", f"--model={tmp_path}/evil.pth", f"--to={tmp_path}/out"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "touched").exists() and not list((tmp_path / "out").glob("*.safetensors"))


def test_a_pickle_that_is_not_there(tmp_path, capsys):
    assert main(["convert", f"--model={tmp_path}/none.bin", f"--to={tmp_path}/out"]) == 2
    assert "there is no file" in capsys.readouterr().err
