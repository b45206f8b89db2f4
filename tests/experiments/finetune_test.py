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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_new_token_learns_beside_a_frozen_table(data, tmp_path, capsys):
    """The answers are one word that the vocabulary did not have; everything but its row is frozen."""
    rows = json.loads(data.read_text())
    for row in rows:
        row["conversations"][1]["value"] = "<red>"
    own = data.parent / "tokens.json"
    own.write_text(json.dumps(rows))
    rules = '--config.stages.instruct.trainable=(("decoder/added_.*",True),(".*",False))'
    # One rule for the rates of what learns: the recipe's rules would match nothing.
    assert main(["train", f"--config=experiments/finetune.py:{MODEL},{own}", f"--workdir={tmp_path}/run", *SMALL, rules, '--config.added_tokens=("<red>",)',
                 "--config.stages.instruct.optimizer.lr_scale=()", "--config.stages.instruct.epochs=3.0"]) == 0, capsys.readouterr().err
    stage, = json.loads((tmp_path / "run" / "record.json").read_text())["stages"]
    model, source = pretrained.load(tmp_path / "run"), pretrained.load(MODEL)
    table = source.parts["decoder"].config
    assert stage["trainable"] == {"decoder": (1 if table.tied else 2) * table.width}
    new, = model.tokenizer.encode("<red>")
    assert new == source.tokenizer.vocabulary and model.parts["decoder"].config.added == (new, 1)
    assert model.generate(["<image>\nWhat?"], [[np.full((20, 30, 3), 100, np.uint8)]], max_new_tokens=2) is not None
    assert main(["convert", f"--model={tmp_path}/run", f"--to={tmp_path}/out"]) == 0
    out = pretrained.load(tmp_path / "out")
    assert out.tokenizer.encode("<red>") == [new] and out.parts["decoder"].config.added is None
    joined, before = out.by_layer(), source.by_layer()
    kept = np.arange(table.vocab) != new
    np.testing.assert_array_equal(joined["decoder/embed"][: table.vocab][kept], before["decoder/embed"][kept])
    assert not np.array_equal(joined["decoder/embed"][new], before["decoder/embed"].mean(0))
    prompt, image = "<image>\nWhat? <red>", [np.full((20, 30, 3), 100, np.uint8)]
    np.testing.assert_allclose(out.logits(prompt, image), model.logits(prompt, image), rtol=1e-5, atol=1e-5)
