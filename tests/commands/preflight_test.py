"""`vlmjax preflight` as a user meets it, on LLaVA's recipe at toy size and on the demo."""
import json
import os

import numpy as np
import pytest
from PIL import Image

from vlmjax.__main__ import main
from vlmjax.commands.common import DATA_DIR
from vlmjax.data.datasets import easy_vqa

RECIPE = "experiments/llava_1_5.py:tiny"
ALIGN, INSTRUCT = ("llava:align.json:images", "llava:chat.json:images")


def say(who, text):
    return {"from": who, "value": text}


def rows(n=8):
    return [{"id": f"r{i}", "image": f"{i}.png", "conversations": [say("human", "<image>\nHow many?"), say("gpt", f"{i} squares.")]} for i in range(n)]


@pytest.fixture
def data(tmp_path):
    draw = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for i in range(8):
        Image.fromarray(draw.integers(0, 256, (20, 30, 3), np.uint8)).save(tmp_path / "images" / f"{i}.png")
    for file in ("align.json", "chat.json"):
        (tmp_path / file).write_text(json.dumps(rows()))
    return tmp_path


def preflight(data, *overrides):
    sources = [f"--config.stages.{stage}.data=((\"{spec}\",1.0),)" for stage, spec in (("align", ALIGN), ("instruct", INSTRUCT))]
    return main(["preflight", f"--config={RECIPE}", f"--data_dir={data}", *sources, *overrides])


def test_good_data_is_shown_as_the_steps_read_it(data, capsys):
    assert preflight(data) == 0
    out = capsys.readouterr().out
    assert "align: 8 examples, 8 images (8 checked)" in out.replace("(all checked)", "(8 checked)")
    assert "tokens]⟦" in out and "squares." in out  # plain: the caption behind its image
    assert "USER: [image," in out and "ASSISTANT: ⟦" in out
    assert out.endswith("preflight: no reason not to start\n")


def test_supervised_text_is_green_where_there_is_colour(data, capsys):
    assert preflight(data, "--color=always") == 0
    out = capsys.readouterr().out
    assert "\033[1;32m" in out and "⟦" not in out


def refused(data, capsys, *overrides):
    assert preflight(data, *overrides) == 2
    error = capsys.readouterr().err
    assert error.startswith("vlmjax: preflight: ") and error.count("\n") == 1
    return error


def test_every_reason_is_named_with_its_rows(data, capsys):
    held = rows()
    held[2]["conversations"][1]["value"] = "many </s> squares"
    held[4]["conversations"][1]["value"] = "squares " * 300
    (data / "chat.json").write_text(json.dumps(held))
    (data / "images" / "6.png").write_bytes(b"")
    error = refused(data, capsys)
    assert "stages.instruct: 2 of 8 examples cannot be used (max_unusable is 0.01)" in error and "llava/r2" in error and "llava/r4" in error
    assert "stages.align: 1 of 8 images cannot be read (max_broken is 0.001)" in error and "6.png" in error
    tolerated = [f"--config.stages.{s}.{k}" for s in ("align", "instruct") for k in ("max_unusable=0.5", "max_broken=0.5")]
    assert preflight(data, *tolerated) == 0
    out = capsys.readouterr().out
    assert "instruct: left out:" in out and "instruct: unreadable: 1 x" in out


def test_a_template_that_inference_will_not_use_is_refused(data, capsys):
    assert "the run's template, with which its model will be used, is 'vicuna_v1'" in refused(data, capsys, "--config.stages.instruct.template=plain")


def test_an_evaluation_image_in_the_training_data(tmp_path, capsys):
    easy_vqa.build(os.path.expanduser(DATA_DIR))
    run = ["preflight", "--config=experiments/demo.py:tiny", "--config.run=(\"align\",)"]
    assert main([*run, "--config.evaluate.after.align=(\"easy_vqa_caption\",)"]) == 0
    assert main([*run, "--config.evaluate.split=train[:50]"]) == 2
    error = capsys.readouterr().err
    assert "evaluate: 50 of 50 images of easy_vqa_caption are in the training data of stages.align" in error and "train/0 is train/0" in error
