import json

import pytest

from tests.evaluate.tasks import standins
from tests.golden import scorers
from vlmjax.errors import UserError
from vlmjax.evaluate import scoring
from vlmjax.evaluate.tasks import chair


def files(data_dir, instances, references):
    """instances: names of each image's objects; references: its captions."""
    names = sorted({name for objects in instances for name in objects})
    images = [{"id": 10 + i, "file_name": f"COCO_val2014_{i:012d}.jpg"} for i in range(len(instances))]
    outlines = [{"image_id": 10 + i, "category_id": 3 * names.index(name), "segmentation": [[0.5, 1.25]]} for i, objects in enumerate(instances) for name in objects]
    captions = [{"image_id": 10 + i, "caption": text} for i, texts in enumerate(references) for text in texts]
    folder = data_dir / "coco/annotations"
    standins.write(folder / "instances_val2014.json", json.dumps({"images": images, "annotations": outlines, "categories": [{"id": 3 * k, "name": name} for k, name in enumerate(names)]}))
    standins.write(folder / "captions_val2014.json", json.dumps({"images": images, "annotations": captions}))
    for i, image in enumerate(images):
        standins.picture(data_dir / f"coco/val2014/{image['file_name']}", i)


def listed(text):
    return text.split(", ") if text else []


def test_objects_and_descriptions_are_counted_as_the_official_program_does(tmp_path):
    golden = scorers.read("chair")
    files(tmp_path, [listed(text) for text in golden["instances"]], golden["references"])
    _, items = chair.CHAIR.read(str(tmp_path))
    assert [item.answer for item in items] == golden["objects"] and items[0].answers == tuple(listed(golden["objects"][0]))
    assert [chair.parse(text) for _, text, _, _ in golden["answers"]] == [mentioned for *_, mentioned, _ in golden["answers"]]
    rows = [{"id": str(k), "image": items[i].image, "answer": items[i].answer, "answers": items[i].answers, "kind": "", "control": "real", "prediction": text} for k, (i, text, *_) in enumerate(golden["answers"])]
    found = scoring.rescore(rows, chair.CHAIR)
    assert [1 - scoring.grade(chair.CHAIR, row["prediction"], row["answers"]) for row in rows] == [false for *_, false in golden["answers"]]
    real = {metric: score["value"] for metric, score in found["real"].items()}
    assert (real["chair_s"], real["chair_i"], real["truthful"]) == pytest.approx((golden["numbers"]["CHAIRs"], golden["numbers"]["CHAIRi"], 1 - golden["numbers"]["CHAIRs"]))
    assert found["unparsed"] == {"real": 0}


def test_recall_and_length():
    rows = [{"id": "1", "image": "1", "answer": "cat, dog", "answers": ["cat", "dog"], "kind": "", "control": "real", "prediction": "A dog and a dog and a man."},
            {"id": "2", "image": "2", "answer": "", "kind": "", "control": "real", "prediction": ""}]
    real = scoring.rescore(rows, chair.CHAIR)["real"]
    assert {metric: score["value"] for metric, score in real.items()} == {"truthful": 0.5, "chair_s": 0.5, "chair_i": pytest.approx(1 / 3), "recall": 0.5, "words": 4.0}
    assert real["words"]["unit"] == "words"


def test_a_model_is_scored_with_its_files(tmp_path):
    files(tmp_path, [["dog", "person"], ["cat"], []], [["A dog."], ["A kitten on a sofa."], ["The sky."]])
    results, predictions = standins.scored("chair", tmp_path)
    assert {"truthful", "chair_s", "chair_i", "recall", "words"} == set(results["real"]) and results["real"]["truthful"]["n"] == 3
    assert predictions[0]["question"] == "Please describe this image in detail." and predictions[1]["answers"] == ["cat", "couch"] and "answers" not in predictions[2]


def test_mistakes_in_files_are_one_line(tmp_path):
    with pytest.raises(UserError, match="^chair: .*captions_val2014.json: .*; what it needs is told by: vlmjax data sources chair$"):
        chair.CHAIR.read(str(tmp_path))
    files(tmp_path, [["unicorn"]], [["A horse."]])
    with pytest.raises(UserError, match="instances_val2014.json: categories\\[0\\]: 'unicorn' is none of"):
        chair.CHAIR.read(str(tmp_path))
    standins.write(tmp_path / "coco/annotations/instances_val2014.json", '{"categories": [], "annotations": [{"image_id": 1, "category_id": 7}]}')
    with pytest.raises(UserError, match=r"annotations\[0\]: there is no category 7"):
        chair.CHAIR.read(str(tmp_path))
    for content, reason in (("{", "is not JSON"), ('{"images": []}', "has no lists images and annotations"), ('{"images": [], "annotations": [{"image_id": 1}]}', r"annotations\[0\]: has no 'caption'")):
        standins.write(tmp_path / "coco/annotations/captions_val2014.json", content)
        with pytest.raises(UserError, match=f"captions_val2014.json.*{reason}"):
            chair.CHAIR.read(str(tmp_path))
