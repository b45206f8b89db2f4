"""A released model, one's own JSON, adapters: from the command to a directory that other tools load."""
import json

import numpy as np
import pytest
from PIL import Image

from vlmjax import pretrained
from vlmjax.__main__ import main
from vlmjax.weights import store

MODEL = "tests/golden/llava/model"
SMALL = ["--config.stages.instruct.batch=8", "--config.stages.instruct.length=256", "--config.stages.instruct.targets=32", "--config.precision.compute=float32",
         "--config.precision.frozen=float32", "--config.model.decoder.lora.rank=2", "--config.model.decoder.lora.alpha=4.0", "--config.stages.instruct.optimizer.lr=0.05",
         "--config.stages.instruct.optimizer.warmup=0.0"]  # the first step of a warmup is at rate 0, and before b has moved a has no gradient


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("mine")
    rows = []
    for i in range(16):
        Image.new("RGB", (30, 20 + i), (10 * i, 0, 0)).save(root / f"{i}.png")
        rows.append({"id": str(i), "image": f"{i}.png", "conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "red" if i else "black"}]})
    (root / "data.json").write_text(json.dumps(rows))
    return root / "data.json"


def test_a_model_learns_and_leaves(data, tmp_path, capsys):
    assert main(["train", f"--config=experiments/finetune.py:{MODEL},{data}", f"--workdir={tmp_path}/run", *SMALL]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert f"decoder: from {MODEL}; new: adapters of rank 2 beside attention/q, attention/k, attention/v, attention/o, mlp/gate, mlp/up, mlp/down" in said
    stage, = json.loads((tmp_path / "run" / "record.json").read_text())["stages"]
    assert stage["steps"] == 2 and set(stage["trainable"]) == {"projector", "decoder"} and set(stage["frozen"]) == {"encoder", "decoder"}
    assert stage["frozen_sha256"]["before"] == stage["frozen_sha256"]["after"]
    off = pretrained.load(tmp_path / "run").with_adapters("off").by_layer()
    source = pretrained.load(MODEL).by_layer()
    assert all(np.array_equal(off[path], leaf) for path, leaf in source.items() if path.startswith(("decoder/", "encoder/")))
    assert main(["convert", f"--model={tmp_path}/run", f"--to={tmp_path}/out"]) == 0
    merged, before = store.load(tmp_path / "out"), store.load(MODEL)
    moved = {name for name in before if not np.array_equal(merged[name], before[name])}
    assert set(merged) == set(before) and {name.rpartition("_proj")[0].rpartition(".")[2] for name in moved if "language_model" in name} == {"q", "k", "v", "o", "gate", "up", "down"}
    assert all("language_model" in name or "projector" in name for name in moved)
    image = np.full((20, 30, 3), 100, np.uint8)
    run, out = (pretrained.load(tmp_path / name).logits("<image>\nWhat?", [image]) for name in ("run", "out"))
    assert np.linalg.norm(run - out) <= 1e-5 * np.linalg.norm(run)


@pytest.mark.parametrize("arg, message", [("", "takes MODEL,DATA.json"), (f"{MODEL}", "takes MODEL,DATA.json"), (f"{MODEL},none.json", "none.json")])
def test_what_it_needs(arg, message, tmp_path, capsys):
    assert main(["train", f"--config=experiments/finetune.py:{arg}", f"--workdir={tmp_path}/run"]) == 2
    assert message in capsys.readouterr().err
