import collections
import sys

import numpy as np
import pytest

from vlmjax.data.datasets import DATASETS, easy_vqa
from vlmjax.data.images import decode
from vlmjax.errors import UserError


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    easy_vqa.build(path)
    return path


def test_views_of_the_official_splits(data_dir):
    train, test = (easy_vqa.open_source(data_dir, split, "questions") for split in ("train", "test"))
    assert (len(train.examples), len(test.examples)) == (38575, 9673)
    first = train.examples[0]
    assert first.id == "easy_vqa/train/0/0" and first.images == ("train/0",)
    assert [turn.text for turn in first.turns] == ["<image>what is the blue shape?", "rectangle"]
    assert decode(train.read_image("train/0")).size == (64, 64)
    assert easy_vqa.open_source(data_dir, "test", "texts").examples[0].turns[0].text == "what is the red shape?"


def test_parts_of_a_split_are_disjoint_and_complete(data_dir):
    whole, front, back = (easy_vqa.open_source(data_dir, split, "questions") for split in ("train", "train[:3600]", "train[3600:]"))
    assert front.examples + back.examples == whole.examples
    assert back.examples[0].images == ("train/3600",)
    assert back.read_image("train/3600") == whole.read_image("train/3600")


def test_captions_say_what_the_picture_shows(data_dir):
    """The derived colour against the pixels: the shape's colour is the image's second most frequent one."""
    colors = {"black": (0, 0, 0), "blue": (0, 0, 255), "brown": (165, 42, 42), "gray": (128, 128, 128), "green": (0, 255, 0), "red": (255, 0, 0),
              "teal": (0, 128, 128), "yellow": (255, 255, 0)}  # fmt: skip
    source = easy_vqa.open_source(data_dir, "test", "captions")
    assert len(source.examples) + source.undetermined == 1000
    assert source.faults == {} and list(source.altered.values()) == [source.undetermined]
    for example in source.examples[:100]:
        pixels = np.asarray(decode(source.read_image(example.images[0]))).reshape(-1, 3).tolist()
        (_, _), (shown, _) = collections.Counter(map(tuple, pixels)).most_common(2)
        caption = example.turns[-1].text
        assert caption in easy_vqa.CAPTIONS
        assert max(abs(a - b) for a, b in zip(shown, colors[caption.split()[1]])) < 10, (example.id, shown)


@pytest.mark.parametrize(
    ["pairs", "caption"],
    [
        ([("what is the blue shape?", "rectangle")], "a blue rectangle"),
        ([("what color is the circle?", "red")], "a red circle"),
        ([("is there a circle?", "no"), ("is no triangle present?", "yes"), ("is a teal shape present?", "yes")], "a teal rectangle"),
        ([("is there not a circle?", "no"), ("does the image not contain a gray shape?", "no")], "a gray circle"),
        ([("is there a circle?", "no"), ("what color is the shape?", "red")], None),
        ([("is there a circle?", "yes"), ("is no circle present?", "yes"), ("what color is the shape?", "red")], None),
        ([("what shape is present?", "circle")], None),
    ],
)
def test_a_caption_is_what_the_questions_affirm_and_rule_out(pairs, caption):
    assert easy_vqa.caption(pairs) == caption


def test_kinds_and_prior(data_dir):
    assert easy_vqa.kind("is there a red shape?", "no") == "presence"
    assert easy_vqa.kind("is no red shape present?", "yes") == easy_vqa.kind("is there not a circle?", "no") == "absence"
    assert easy_vqa.kind("what is the blue shape?", "circle") == "shape" and easy_vqa.kind("what color is the shape?", "teal") == "color"
    prior = easy_vqa.prior(data_dir)
    assert len(prior) == 107 and prior["is there a red shape?"] == "no" and prior["is there not a red shape?"] == "yes"


def test_building_needs_the_package_once(data_dir, tmp_path, monkeypatch, capfd):
    easy_vqa.build(tmp_path / "quiet")
    assert "".join(capfd.readouterr()) == ""
    monkeypatch.setitem(sys.modules, "easy_vqa", None)
    easy_vqa.build(data_dir)
    with pytest.raises(UserError, match=r"pip install 'vlmjax\[demo\]'"):
        easy_vqa.build(tmp_path / "new")


def test_refusals(data_dir, tmp_path):
    assert DATASETS["easy_vqa"] is easy_vqa
    with pytest.raises(UserError, match=f"not built; run: vlmjax data build easy_vqa --data_dir={tmp_path}"):
        easy_vqa.open_source(tmp_path, "train", "questions")
    with pytest.raises(UserError, match="'val' is not train, test"):
        easy_vqa.open_source(data_dir, "val", "questions")
    with pytest.raises(UserError, match="train"):
        easy_vqa.open_source(data_dir, "train[:9000]", "questions")
    with pytest.raises(UserError, match="did you mean 'captions'"):
        easy_vqa.open_source(data_dir, "train", "caption")
    with pytest.raises(UserError, match="'maybe' is not an answer"):
        easy_vqa.kind("is it?", "maybe")


def test_facts_of_the_images_of_a_part(data_dir):
    part = easy_vqa.open_source(data_dir, "train[3600:]", "captions")
    assert part.facts.keys == tuple(f"train/{n}" for n in range(3600, 4000)) and not part.facts.faults
    assert (part.facts.width == 64).all() and (part.facts.height == 64).all()
