"""The LLaVA recipes: two steps at toy size from a user's command to transformers' layout, and its numbers at true size without computing."""
import json

import jax.numpy as jnp
import numpy as np
import pytest

from vlmjax import bundle
from vlmjax import config as configs
from vlmjax import param_rules, pretrained, sharding, stacks
from vlmjax.__main__ import main
from vlmjax.commands.prepare import RunConfig
from vlmjax.train import build
from vlmjax.weights import store

@pytest.mark.parametrize("recipe, resize", [("llava_1_5", "pad"), pytest.param("llava", "crop", marks=pytest.mark.slow)])
def test_two_steps_of_both_stages(data, tmp_path, capsys, monkeypatch, recipe, resize):
    meshes, make = [], bundle.make
    monkeypatch.setattr(bundle, "make", lambda *args: meshes.append(dict(args[-1].shape)) or make(*args))
    assert main(["train", f"--config=experiments/{recipe}.py:tiny", f"--workdir={tmp_path}/run", f"--data_dir={data}", "--config.evaluate.mesh=replica:4,tensor:2"]) == 0, capsys.readouterr().err
    assert meshes == [{"replica": 4, "fsdp": 1, "tensor": 2}]  # what is trained on fsdp 8 answers, and is saved, from this one
    align, instruct = json.loads((tmp_path / "run" / "record.json").read_text())["stages"]
    assert align["steps"] == instruct["steps"] == 2 and align["examples"] == instruct["examples"] == 16
    assert list(align["trainable"]) == ["projector"] and set(instruct["trainable"]) == {"projector", "decoder"} and list(instruct["frozen"]) == ["encoder"]
    assert align["frozen_sha256"]["before"] == align["frozen_sha256"]["after"]
    # Caption, "\n" and nothing else is supervised while aligning; two answers with their </s> afterwards.
    assert align["supervised_tokens"] > 16 * 5 and instruct["supervised_tokens"] > 16 * 4
    trained, tower, language = store.load(tmp_path / "run" / "model"), pretrained.find("tests/golden/clip/model").arrays(), store.load("tests/golden/llama/model")
    # Frozen in bfloat16, exported from its source: what the cast took away is there.
    frozen = {path: leaf for path, leaf in tower.items() if path.startswith("encoder/")}
    assert any((leaf != leaf.astype("bfloat16").astype("float32")).any() for leaf in frozen.values())
    for path, leaf in frozen.items():
        np.testing.assert_array_equal(trained[path], leaf)
    moved = np.abs(trained["decoder/layers/1/mlp/up/kernel"] - language["model.layers.1.mlp.up_proj.weight"].T)
    assert 0 < moved.max() < 1e-3  # started from the checkpoint, and learned at 2e-5
    model = pretrained.load(tmp_path / "run")
    assert (model.template.name, model.layout.resize, model.layout.size) == ("vicuna_v1", resize, 28)


ONCE = """
from experiments import llava_1_5

def get_config(arg=""):
    c = llava_1_5.get_config("tiny")
    c.run = ("instruct",)
    c.stages.instruct.encode_once = True
    return c
"""


def test_an_encoder_that_computes_each_image_once_is_in_the_record_and_in_the_export(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "once.py").write_text(ONCE)
    for name in ("first", "second"):
        assert main(["train", f"--config={tmp_path}/once.py", f"--workdir={tmp_path}/{name}", f"--data_dir={data}"]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    records = [json.loads((tmp_path / name / "record.json").read_text())["stages"][0] for name in ("first", "second")]
    first, second = (stage["encoded_once"] for stage in records)
    assert (first["images"], first["hits"], first["encoded"], second["hits"], second["encoded"]) == (15, 0, 15, 15, 0)
    assert first["key"] == second["key"] == next((tmp_path / ".cache" / "vlmjax" / "features").iterdir()).name
    assert records[0]["loss"] == records[1]["loss"] and set(records[0]["trainable"]) == {"projector", "decoder"} and not records[0]["frozen"]
    assert "instruct: encodes 15 of 15 images once, " in said and f"encoder {first['encoder_sha256'][:12]} read from its features of 15 images (15 were there" in said
    trained, tower = store.load(tmp_path / "first" / "model"), pretrained.find("tests/golden/clip/model").arrays()
    assert all((trained[path] == leaf).all() for path, leaf in tower.items() if path.startswith("encoder/"))


def test_mistakes_in_the_data_are_one_line(data, tmp_path, capsys):
    def refused(rows, message):
        (tmp_path / "x.json").write_text(rows if isinstance(rows, str) else json.dumps(rows))
        override = f'--config.stages.align.data=(("llava:{tmp_path}/x.json:{data}/LLaVA-Pretrain/images",1.0),)'
        assert main(["train", "--config=experiments/llava_1_5.py:tiny", f"--workdir={tmp_path}/run", f"--data_dir={data}", '--config.run=("align",)', override]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1

    talk = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "a cat"}]
    refused("{", "x.json: is not JSON")
    refused({"a": 1}, "x.json: is not a list of conversations")
    refused([{"image": "0.jpg"}], "x.json[0]: has no list 'conversations'")
    refused([{"conversations": talk[1:] * 2}], "x.json[0]: holds no answer")
    refused([{"conversations": [{"from": "system", "value": ""}]}], "x.json[0]: a turn is {'from': 'human' or 'gpt'")
    refused([{"id": "a", "image": "0.jpg", "conversations": talk * 2}], "none of its 1 rows can be used: x.json[0]: 1 images, but its turns mark 2")
    refused([{"id": str(i), "image": "none.jpg", "conversations": talk} for i in range(8)], "none.jpg: there is no such file")


# As published: (stage, examples of a step, learning rate, epochs), pixels of an image; https://github.com/haotian-liu/LLaVA, README of v1.0.1 and of v1.2.2. Beside them: (places, images) of a row.
FIRST = ((("align", 128, 2e-3, 1.0, (384, 1)), ("instruct", 32, 2e-5, 3.0, (2048, 1))), 224)
SECOND = ((("align", 256, 1e-3, 1.0, (768, 1)), ("instruct", 128, 2e-5, 1.0, (2048, 2))), 336)


@pytest.mark.parametrize("config, recipe, language, projector", [
    ("llava.py:7b", FIRST, 6_738_415_616, 4_198_400), ("llava.py:13b", FIRST, 13_015_864_320, 5_248_000),
    ("llava_1_5.py:vicuna-7b", SECOND, 6_738_415_616, 20_979_712), ("llava_1_5.py:vicuna-13b", SECOND, 13_015_864_320, 31_467_520)])
def test_true_size(config, recipe, language, projector):
    (stages, pixels), (node, _) = recipe, configs.read(f"experiments/{config}", [])
    config = configs.build(RunConfig, node)
    parts = build.modules(config.model, 32000, config.precision.compute, config.compile)
    mesh = sharding.make_mesh(sharding.MeshConfig())
    sizes = lambda tree: {name: sum(leaf.size for leaf in param_rules.flatten(part).values()) for name, part in tree.items() if param_rules.flatten(part)}
    for name, examples, lr, epochs, (length, images) in stages:
        learns = {"projector": projector} | ({"decoder": language} if name == "instruct" else {})
        stage = build.stage(name, config.stages[name], parts, config.precision, mesh, 10)
        assert sizes(stage.abstract.learned.trainable) == learns
        frozen = sizes(stage.abstract.frozen)
        # 23 of 24 blocks: the one above the feature layer is neither computed nor held.
        assert set(frozen) == {"encoder", "decoder"} - set(learns) and frozen["encoder"] == 302_917_632 + (pixels // 14) ** 2 * 1024 - 12_596_224 - 2_048
        assert {leaf.dtype for leaf in param_rules.flatten(stage.abstract.frozen).values()} == {jnp.dtype("bfloat16")}
        # A row holds as many examples as images, or nearly: what the published batch counts is the product.
        assert (stage.shape.rows * stage.shape.images, stage.shape.length, stage.shape.images, stage.shape.size, stage.config.epochs) == (examples, length, images, pixels, epochs)
        assert stage.shape.targets <= length - images * (pixels // 14) ** 2 or name == "instruct"  # a stage may read text alone
        optimizer = stage.config.optimizer
        assert (optimizer.lr, optimizer.decay, optimizer.clip, optimizer.warmup) == (lr, 0.0, 0.0, 0.03)
    assert sum(leaf.size for leaf in stacks.expand(build.abstract_params({"projector": parts["projector"]})).values()) == projector
