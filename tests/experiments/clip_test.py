"""The CLIP recipe: two steps at toy size from a user's command to features, and its numbers at true size without computing."""
import json

import numpy as np
import pytest
from PIL import Image

import vlmjax
from vlmjax import config as configs
from vlmjax import optim, param_rules, sharding
from vlmjax.__main__ import main
from vlmjax.commands.prepare import RunConfig
from vlmjax.errors import UserError
from vlmjax.train import build


@pytest.mark.slow
def test_two_steps(tmp_path, capsys):
    draw, rows = np.random.default_rng(0), []
    (tmp_path / "pairs" / "images").mkdir(parents=True)
    for i in range(16):
        Image.fromarray(draw.integers(0, 256, (70, 90 + i, 3), np.uint8)).save(tmp_path / "pairs" / "images" / f"{i}.jpg")
        rows.append({"image": f"{i}.jpg", "conversations": [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": f"a photo of {i}"}]})
    (tmp_path / "pairs" / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["train", "--config=experiments/clip.py:tiny", f"--workdir={tmp_path}/run", f"--data_dir={tmp_path}"]) == 0, capsys.readouterr().err
    (contrast,) = json.loads((tmp_path / "run" / "record.json").read_text())["stages"]
    assert (contrast["steps"], contrast["examples"]) == (2, 16) and set(contrast["trainable"]) == {"encoder", "text_tower", "contrast_head"} and not contrast["frozen"]
    model = vlmjax.load(tmp_path / "run")
    assert model.vlm is None and model.text_features(["a photo of 3"]).shape == (1, 64)


@pytest.mark.parametrize("arg, parameters, lr", [("b32", 151_277_313, 5e-4), ("b16", 149_620_737, 5e-4), ("l14", 427_616_513, 4e-4)])
def test_true_size(arg, parameters, lr):
    node, _ = configs.read(f"experiments/clip.py:{arg}", [])
    config = configs.build(RunConfig, node)
    modules = build.modules(config.model, 49408, config.precision.compute, config.compile)
    stage = build.stage("contrast", config.stages["contrast"], modules, config.precision, sharding.make_mesh(sharding.MeshConfig()), 390_625)  # 32 x 400 million / 32768
    assert sum(leaf.size for leaf in param_rules.flatten(stage.abstract.learned.trainable).values()) == parameters and not param_rules.flatten(stage.abstract.frozen)
    assert (stage.shape.rows, stage.shape.length, stage.shape.size, stage.config.epochs) == (32768, 77, 224, 32.0)
    decay = {path: label.decay for path, label in stage.labels.items()}
    assert {path for path, value in decay.items() if not value} == {path for path in decay if path.endswith(("/scale", "/bias", "class_token", "logit_scale"))}
    assert set(decay.values()) == {0.0, 0.2}
    rate = optim.schedule(stage.config.optimizer, stage.steps)
    assert float(rate(0)) == 0.0 and float(rate(2000)) == pytest.approx(lr) and float(rate(1999)) < lr > float(rate(2100)) and float(rate(390_625)) == pytest.approx(0.0, abs=1e-9)


def test_a_projector_needs_a_language_model():
    with pytest.raises(UserError, match="model.projector: leads to a language model, and the config has no model.decoder"):
        build.modules(build.ModelConfig(encoder=build.Component("tiny-64"), projector=build.Component("linear")), 64, "float32")
