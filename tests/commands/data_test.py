import json

import numpy as np
import pytest

from tests.data.tiny import png
from vlmjax.__main__ import main

GOLDEN = "tests/golden/llama/model"


@pytest.fixture
def data_dir(tmp_path):
    """LLaVA's JSON of nine conversations about three images, of which the third is missing, and one without an image."""
    (tmp_path / "images").mkdir()
    for n in range(2):
        (tmp_path / "images" / f"{n}.png").write_bytes(png(np.full((6, 9, 3), 90 * n, np.uint8)))
    rows = [{"id": str(n), "image": f"{n % 3}.png", "conversations": [{"from": "human", "value": "<image>\nwhat is it?"}, {"from": "gpt", "value": f"number {n}"}]}
            for n in range(9)]
    rows.append({"id": "text", "conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]})
    (tmp_path / "chat.json").write_text(json.dumps(rows))
    return tmp_path


def vlmjax(data_dir, *arguments):
    return main(["data", *arguments, f"--data_dir={data_dir}"])


def test_a_set_is_built_measured_and_verified(data_dir, capsys):
    arguments = ("build", "llava:chat.json:images", "--name=mine", "--workers=1", f"--tokenizer={GOLDEN}")
    assert vlmjax(data_dir, *arguments) == 0
    said = capsys.readouterr().out
    assert "mine: 10 examples, 3 images" in said and "stages name it built:mine:all" in said
    assert "images of 9x6 (least) · 9x6 (median) · 9x6 (most) pixels" in said
    assert "1 images are missing or broken" in said and "2.png" in said
    assert f"supervised, with vicuna_v1 of {GOLDEN}" in said
    assert vlmjax(data_dir, *arguments) == 0 and capsys.readouterr().out == said
    assert vlmjax(data_dir, "verify", "mine") == 0
    assert "all 3 files are as they were built (10 examples, 3 images)" in capsys.readouterr().out


def test_harm_is_one_line(data_dir, capsys):
    vlmjax(data_dir, "build", "llava:chat.json:images", "--name=mine", "--workers=1")
    (data_dir / "mine" / "images-00000.array_record").unlink()
    capsys.readouterr()
    assert vlmjax(data_dir, "verify", "mine") == 2
    error = capsys.readouterr().err
    assert "images-00000.array_record: is missing; build mine again" in error and error.count("\n") == 1


@pytest.mark.parametrize(["arguments", "message"], [
    (("build", "easy_vqua"), "did you mean 'easy_vqa'"),
    (("build", "llava:chat.json:images"), "give --name=NAME"),
    (("build", "llava:chat.json:images", "--name=a/b"), "a plain word, not 'a/b'"),
    (("build", "llava:none.json:images", "--name=mine"), "none.json: there is no such file"),
    (("verify", "mine"), "holds no built data set"),
    (("mend", "mine"), "invalid choice: 'mend'"),
])  # fmt: skip
def test_mistakes_are_one_line(data_dir, capsys, arguments, message):
    assert vlmjax(data_dir, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
