"""InternVL's recipe: two steps at toy size, over images of one and of several tiles, from a user's command to transformers' layout."""
import json

import numpy as np
import pytest

from vlmjax import config as configs
from vlmjax import pretrained
from vlmjax.__main__ import main
from vlmjax.commands import preflight
from vlmjax.commands.prepare import RunConfig, prepare
from vlmjax.weights import store

SOURCE = "tests/golden/internvl/model"


def test_an_override_of_one_component_is_of_no_other():
    node, _ = configs.read("experiments/internvl.py:1b", ["--config.model.encoder.variant=internvit-300m"])
    assert [node.model[name].variant for name in ("encoder", "projector", "decoder")] == ["internvit-300m", "", ""]


def test_one_key_makes_an_image_one_tile(data):
    for more, most in (((), {1, 3}), (("--config.stages.instruct.tiles=1",), {1})):
        node, _ = configs.read("experiments/internvl.py:tiny", more, RunConfig)
        made = prepare(configs.build(RunConfig, node), str(data))
        assert set(made.data["instruct"].table.images.tolist()) - {0} == most and preflight.image_tokens(made) == []


@pytest.mark.slow
def test_two_steps_and_back(data, tmp_path, capsys):
    assert main(["train", "--config=experiments/internvl.py:tiny", f"--workdir={tmp_path}/run", f"--data_dir={data}"]) == 0, capsys.readouterr().err
    (stage,) = json.loads((tmp_path / "run" / "record.json").read_text())["stages"]
    assert stage["steps"] == 2 and set(stage["trainable"]) == {"projector", "decoder"} and list(stage["frozen"]) == ["encoder"]
    shown = [text for row in json.loads((tmp_path / "run" / "preflight.json").read_text())["stages"]["instruct"]["samples"] for kind, text in row if kind == "image"]
    assert set(shown) <= {"4", "3 tiles, 12"} and len(shown) > 1
    model, before = pretrained.load(tmp_path / "run"), pretrained.load(SOURCE)
    assert model.layout.tiles == 4
    assert (model.tokenizer.around, model.template.jinja, model.layout) == (before.tokenizer.around, before.template.jinja, before.layout)
    assert main(["convert", f"--model={tmp_path}/run", f"--to={tmp_path}/out"]) == 0 and "out: internvl, float32" in capsys.readouterr().out
    new, old = store.load(tmp_path / "out"), store.load(SOURCE)
    assert set(new) == set(old)
    assert all(np.array_equal(new[name], old[name]) == name.startswith("vision_tower.") for name in ("vision_tower.encoder.layer.1.lambda_1", "vision_tower.embeddings.cls_token",
                                                                                                  "multi_modal_projector.layer_norm.weight", "language_model.model.norm.weight"))
    image = np.random.default_rng(0).integers(0, 256, (60, 31, 3), np.uint8)
    again = pretrained.load(tmp_path / "out")
    assert again.layout == model.layout and len(again.tiles(image)) == 3
    np.testing.assert_array_equal(again.logits("<image>\nHow many?", [image]), model.logits("<image>\nHow many?", [image]))


def test_it_starts_from_opengvlabs_own_checkpoint(data, tmp_path, capsys):
    """With the conversation that its config.json names, and ends as one that its code reads."""
    own = "tests/golden/internvl_chat/model"
    start = [f"--config.model.{part}.weights={own}" for part in ("encoder", "projector", "decoder")]
    stage = [f"--config.stages.instruct.{key}" for key in ("length=256", "targets=32", "batch=8")]
    assert main(["train", "--config=experiments/internvl.py:tiny", f"--config.tokenizer={own}", *start, *stage, f"--workdir={tmp_path}/run", f"--data_dir={data}"]) == 0, capsys.readouterr().err
    model, before = pretrained.load(tmp_path / "run"), pretrained.load(own)
    assert (model.layout, model.template, model.tokenizer.around) == (before.layout, before.template, before.tokenizer.around)
    assert main(["convert", f"--model={tmp_path}/run", "--as=internvl_chat", f"--to={tmp_path}/out"]) == 0 and "out: internvl_chat, float32" in capsys.readouterr().out
    new, old = store.load(tmp_path / "out"), store.load(own)
    assert set(new) == set(old)
    assert all(np.array_equal(new[name], np.asarray(old[name], np.float32)) == name.startswith("vision_model.") for name in ("vision_model.encoder.layers.1.attn.qkv.weight", "vision_model.encoder.layers.0.ls1",
                                                                                                  "mlp1.0.weight", "language_model.model.norm.weight"))
