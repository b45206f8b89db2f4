import json

import pytest

from tests.evaluate.tasks import standins
from vlmjax.errors import UserError
from vlmjax.evaluate.tasks import coco_captions
from vlmjax.evaluate.tasks.coco_captions import COCO_CAPTIONS


def karpathy(i, split="test", **changed):
    said = [f"A dog and {i} cats.", f"{i} cats beside a dog"]
    return {"filepath": "val2014", "sentids": [1], "filename": f"COCO_val2014_{i:012d}.jpg", "imgid": 0, "split": split, "cocoid": i,
            "sentences": [{"tokens": ["x"], "raw": text, "imgid": 0, "sentid": 1} for text in said]} | changed


def test_a_model_is_scored_with_karpathys_split(tmp_path):
    standins.write(tmp_path / "coco/dataset_coco.json", json.dumps({"images": [karpathy(1), karpathy(2, "restval"), karpathy(3), karpathy(4, "val"), karpathy(5)], "dataset": "coco"}))
    for i in (1, 3, 5):
        standins.picture(tmp_path / f"coco/val2014/COCO_val2014_{i:012d}.jpg", i)
    results, predictions = standins.scored("coco_captions", tmp_path)
    assert set(results["real"]) == {"rouge_l", "cider", "bleu_1", "bleu_2", "bleu_3", "bleu_4", "words"} and results["real"]["rouge_l"]["n"] == 3 and results["provenance"]["split"] == "karpathy"
    assert [row["id"] for row in predictions[:3]] == ["1", "3", "5"] and predictions[1]["answers"] == ["A dog and 3 cats.", "3 cats beside a dog"]
    assert predictions[0]["question"] == "Provide a one-sentence caption for the provided image."
    assert 0.5 < results["prior"]["rouge_l"]["value"] < 1  # another image's caption


def test_the_published_annotations_are_a_split_too(tmp_path):
    content = {"images": [{"id": 7, "file_name": "b.jpg"}, {"id": 6, "file_name": "a.jpg"}], "annotations": [{"id": i, "image_id": image, "caption": f"caption {i}"} for i, image in enumerate((6, 7, 6))]}
    standins.write(tmp_path / "coco/annotations/captions_val2014.json", json.dumps(content))
    _, items = COCO_CAPTIONS.read(str(tmp_path), "val2014")
    assert [(item.id, item.image, item.answers) for item in items] == [("7", "val2014/b.jpg", ("caption 1",)), ("6", "val2014/a.jpg", ("caption 0", "caption 2"))]


def test_an_answer_is_one_line():
    assert [coco_captions.parse(text) for text in ("", " \n", "A dog.\nAnd a cat. ")] == [None, None, "A dog. And a cat."]


@pytest.mark.parametrize("content, said", [
    ({"images": [karpathy(1, sentences=[])]}, r"images\[0\]: has no captions"), ({"images": [karpathy(1, sentences=[{"raw": None}])]}, r"images\[0\].sentences\[0\]: raw: None is not a text"),
    ({"images": [{"filepath": "x"}]}, r"images\[0\]: has no 'split'"), ({"images": {}}, "its images are {}, not a list"), ([], "is \\[\\], not an object"), ({}, "has no 'images'")])
def test_what_is_wrong_is_said(tmp_path, content, said):
    standins.write(tmp_path / "coco/dataset_coco.json", json.dumps(content))
    with pytest.raises(UserError, match=f"^coco/dataset_coco.json: {said}$"):
        COCO_CAPTIONS.read(str(tmp_path))


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(UserError, match="^coco_captions: .*dataset_coco.json: there is no such file; what it needs is told by: vlmjax data sources coco_captions$"):
        COCO_CAPTIONS.read(str(tmp_path))
