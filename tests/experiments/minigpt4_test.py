"""MiniGPT-4's recipe: two steps of both stages at toy size from a user's command to transformers' layout, and its numbers at true size without computing."""
import io
import json
import shutil
import tarfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tests.golden import minigpt4 as golden
from vlmjax import config as configs
from vlmjax import param_rules, pretrained, sharding
from vlmjax.__main__ import main
from vlmjax.commands import common
from vlmjax.commands.prepare import RunConfig
from vlmjax.train import build
from vlmjax.weights import store

SEEING, LANGUAGE = "tests/golden/blip-2/model", "tests/golden/llama/model"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root, draw = tmp_path_factory.mktemp("data"), np.random.default_rng(0)

    def picture(i):
        file = io.BytesIO()
        Image.fromarray(draw.integers(0, 256, (20 + i, 31, 3), np.uint8)).save(file, "JPEG")
        return file.getvalue()

    for folder in ("laion", "cc_sbu"):
        (root / folder).mkdir()
        with tarfile.open(root / folder / "00000.tar", "w") as shard:
            for i in range(16):
                for name, content in ((f"{i:09d}.jpg", picture(i)), (f"{i:09d}.json", json.dumps({"caption": f"a photo of {i} squares"}).encode())):
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    shard.addfile(info, io.BytesIO(content))
    (root / "cc_sbu_align" / "image").mkdir(parents=True)
    for i in range(16):
        (root / "cc_sbu_align" / "image" / f"{i}.jpg").write_bytes(picture(i))
    (root / "cc_sbu_align" / "filter_cap.json").write_text(json.dumps({"annotations": [{"image_id": str(i), "caption": f"The image shows {i} squares."} for i in range(16)]}))
    return root


@pytest.mark.slow
def test_two_steps_of_both_stages(data, tmp_path, capsys):
    """Encoder and Q-Former of a BLIP-2 whose language model is none of ours, as in the recipe at true size."""
    shutil.copytree(SEEING, tmp_path / "blip2")
    config = json.loads((tmp_path / "blip2" / "config.json").read_text())
    (tmp_path / "blip2" / "config.json").write_text(json.dumps(config | {"text_config": {"model_type": "t5", "d_model": 32}}))
    weights = [f"--config.model.{name}.weights={tmp_path}/blip2" for name in ("encoder", "projector")]
    assert main(["train", "--config=experiments/minigpt4.py:tiny", f"--workdir={tmp_path}/run", f"--data_dir={data}", *weights]) == 0, capsys.readouterr().err
    assert "projector: from" in (said := capsys.readouterr().out) and "new: linear_0, as its language model is another" in said
    assert main(["parity", f"--model={tmp_path}/blip2"]) == 2 and "vlmjax reads encoder and projector alone and computes no decoder" in capsys.readouterr().err
    align, instruct = json.loads((tmp_path / "run" / "record.json").read_text())["stages"]
    for stage in (align, instruct):
        assert stage["steps"] == 2 and stage["examples"] == 16 and stage["trainable"] == {"projector": 24 * 32 + 32}
        assert set(stage["frozen"]) == {"encoder", "projector", "decoder"} and stage["frozen_sha256"]["before"] == stage["frozen_sha256"]["after"]
    model = pretrained.load(tmp_path / "run")
    assert (model.template.name, model.layout.resize, model.layout.tokens_per_image) == ("minigpt4", "squash", 5)
    trained, before, language = store.load(tmp_path / "run" / "model"), pretrained.find(SEEING).arrays(), pretrained.find(LANGUAGE).arrays()
    for path, leaf in {**{path: leaf for path, leaf in before.items() if not path.startswith("decoder/")}, **language}.items():
        assert np.array_equal(trained[path], leaf) != path.startswith("projector/linear_0/"), path  # Q-Former and queries are those of the checkpoint
    new = trained["projector/linear_0/kernel"] - before["projector/linear_0/kernel"]
    assert np.abs(new).max() > 0.1 and np.abs(trained["projector/linear_0/bias"]).max() < 1e-3  # drawn, and moved at 1e-4
    assert main(["convert", f"--model={tmp_path}/run", f"--to={tmp_path}/out"]) == 0 and "out: blip-2, float32" in capsys.readouterr().out
    image = np.random.default_rng(0).integers(0, 256, (40, 31, 3), np.uint8)
    again, known = pretrained.load(tmp_path / "out"), language["decoder/embed"].shape[0]
    assert (again.template.marks, again.template.end, again.template.stops) == (("<Img>", "</Img>"), "###", True)
    np.testing.assert_array_equal(again.logits("What?<image>", [image])[:, :known], model.logits("What?<image>", [image]))


@pytest.mark.parametrize("whole", [True, False])
def test_it_begins_with_the_authors_own_files(data, tmp_path, capsys, whole):
    """As the recipe's docstring has it: encoder and Q-Former alone, or with the linear map of the first stage for the second one. Tensors as the pickles have them."""
    for name, tensors in (("eva", golden.eva()), ("blip2", golden.blip2()), ("linear", golden.linear())):
        store.save(tmp_path / name, tensors)
    models = [str(tmp_path / name) for name in ("eva", "blip2", "linear")[: 2 + whole]] + [LANGUAGE] * whole
    assert main(["convert", f"--model={','.join(models)}", f"--to={tmp_path}/parts"]) == 0
    command = ["train", "--config=experiments/minigpt4.py:tiny", f"--workdir={tmp_path}/run", f"--data_dir={data}", "--config.run=('instruct',)", "--config.model.encoder.variant="]
    assert main([*command, *(f"--config.model.{name}.weights={tmp_path}/parts" for name in ("encoder", "projector"))]) == 0, capsys.readouterr().err
    assert ("new: linear_0, as its language model is another" in capsys.readouterr().out) != whole
    trained, before = pretrained.find(tmp_path / "run"), pretrained.find(tmp_path / "parts")
    assert trained.sizes["encoder"].final_eps == 1e-5
    after = trained.arrays()
    for path, leaf in before.arrays().items():
        if not path.startswith(("decoder/", "projector/linear_0/")):
            np.testing.assert_array_equal(after[path], leaf, path)
    if whole:
        moved = np.abs(after["projector/linear_0/kernel"] - golden.linear()["llama_proj.weight"].T).max()
        assert 0 < moved < 1e-3


@pytest.mark.parametrize("arg, language, learns, tokens", [("7b", 6_738_415_616, 3_149_824, 32), ("13b", 13_015_864_320, 3_937_280, 32), ("llama2-7b", 6_738_415_616, 4 * 1408 * 4096 + 4096, 64)])
def test_true_size(arg, language, learns, tokens):
    """As published: (stage, pairs of a step, steps, learning rate and the last one, warm-up), 32 image tokens, and 3.15 million parameters that learn."""
    node, _ = configs.read(f"experiments/minigpt4.py:{arg}", [])
    config = configs.build(RunConfig, node)
    parts = build.modules(config.model, 32000, config.precision.compute, config.compile)
    mesh = sharding.make_mesh(sharding.MeshConfig(fsdp=4), jax.devices()[:4])
    sizes = lambda tree: {name: sum(leaf.size for leaf in param_rules.flatten(part).values()) for name, part in tree.items() if param_rules.flatten(part)}
    for name, pairs, steps, rates, warmup in (("align", 256, 20_000, (1e-4, 8e-5), 5000), ("instruct", 12, 1000, (3e-5, 1e-5), 200)):
        stage = build.stage(name, config.stages[name], parts, config.precision, mesh, config.stages[name].steps)
        assert sizes(stage.abstract.learned.trainable) == {"projector": learns}
        assert sizes(stage.abstract.frozen) == {"encoder": 985_952_256, "decoder": language} | ({"projector": 105_162_240} if tokens == 32 else {})
        assert {leaf.dtype for leaf in param_rules.flatten(stage.abstract.frozen).values()} == {jnp.dtype("bfloat16")}
        optimizer = stage.config.optimizer
        assert (stage.shape.rows, stage.steps, stage.shape.size, optimizer.decay, optimizer.clip) == (pairs, steps, 224, 0.05, 0.0)
        assert (optimizer.lr, optimizer.last, optimizer.warmup) == (*rates, warmup)
        layout = common.layout(parts["encoder"].config, parts["projector"].config, stage.config.resize)
        assert layout.tokens_per_image == tokens and stage.shape.length == tokens + {"align": 96, "instruct": 224}[name]
