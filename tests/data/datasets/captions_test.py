"""COCO's captions and MiniGPT-4's cc_sbu_align, as published."""
import collections
import json

import pytest

from vlmjax.commands.common import open_source
from vlmjax.data.datasets import DATASETS, minigpt4, published
from vlmjax.errors import UserError

COCO = {
    "info": {"year": 2017}, "licenses": [],
    "images": [{"id": 391895, "file_name": "000000391895.jpg", "height": 360, "width": 640}, {"id": 522418, "file_name": "000000522418.jpg"}],
    "annotations": [{"image_id": 391895, "id": 770337, "caption": "A man with a red helmet on a small moped on a dirt road. "},
                    {"image_id": 522418, "id": 681330, "caption": "A woman cutting a cake."}, {"image_id": 391895, "id": 771687, "caption": "Man riding a motor bike."}],
}  # fmt: skip


def opened(tmp_path, name, content):
    (tmp_path / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return open_source(f"{name}:{name}.json:image", str(tmp_path), "test")


def test_coco_has_one_example_per_caption(tmp_path):
    source = opened(tmp_path, "coco", COCO)
    assert [(e.id, e.images, e.caption) for e in source.examples] == [
        ("coco/770337", ("000000391895.jpg",), "A man with a red helmet on a small moped on a dirt road."),
        ("coco/681330", ("000000522418.jpg",), "A woman cutting a cake."), ("coco/771687", ("000000391895.jpg",), "Man riding a motor bike.")]
    assert {e.turns[0].text for e in source.examples} == {f"<image>\n{published.CAPTION_PROMPT}"}
    assert source.faults == {} and source.altered == {published.STRIPPED: 1}


@pytest.mark.parametrize("annotation, reason", [
    ("text", "has no 'image_id' and 'caption'"),
    ({"id": 1, "image_id": 391895}, "has no 'image_id' and 'caption'"),
    ({"id": 1, "image_id": 3, "caption": "a"}, "its image 3 is not among the file's images"),
    ({"id": 1, "image_id": [], "caption": "a"}, "unhashable"),
    ({"id": 1, "image_id": 391895, "caption": " "}, "its answer is empty"),
    ({"id": 1, "image_id": 391895, "caption": 3}, "3 is not a text"),
    ({"id": 1, "image_id": 391895, "caption": "an <image>"}, "its answer holds <image>"),
])
def test_coco_leaves_out_what_is_no_caption(tmp_path, annotation, reason):
    source = opened(tmp_path, "coco", COCO | {"annotations": [annotation, *COCO["annotations"]]})
    assert len(source.examples) == 3 and list(source.faults) == ["coco.json[0]"] and reason in source.faults["coco.json[0]"]


def test_minigpt4_asks_by_the_id_alone(tmp_path):
    rows = [{"image_id": str(i), "caption": f"The image shows {i} things.\n"} for i in range(3439)]
    source = opened(tmp_path, "minigpt4", {"annotations": rows})
    first = source.examples[2]
    assert first.id == "minigpt4/2" and first.images == ("2.jpg",) and first.caption == "The image shows 2 things.\n"
    asked = {e.id: e.turns[0].text.removeprefix("<image> ") for e in source.examples}
    counts = collections.Counter(asked.values())
    assert set(counts) == set(minigpt4.INSTRUCTIONS) and all(0.22 < count / len(rows) < 0.28 for count in counts.values())
    other = open_source(f"minigpt4:{tmp_path}/minigpt4.json:elsewhere", "/", "test")
    assert {e.id: e.turns[0].text.removeprefix("<image> ") for e in reversed(other.examples)} == asked
    assert source.faults == {} and source.altered == {}


def test_minigpt4_leaves_out_and_numbers(tmp_path):
    rows = [{"image_id": 7, "caption": "a"}, {"caption": "a"}, {"image_id": "7", "caption": "b"}, {"image_id": "8", "caption": ""}]
    source = opened(tmp_path, "minigpt4", {"annotations": rows})
    assert [(e.id, e.images) for e in source.examples] == [("minigpt4/7", ("7.jpg",)), ("minigpt4/7#2", ("7.jpg",))]
    assert source.faults == {"minigpt4.json[1]": "has no 'image_id'", "minigpt4.json[3]": "its answer is empty"} and list(source.altered.values()) == [1]


@pytest.mark.parametrize("name", ["coco", "minigpt4"])
def test_other_files_are_refused(tmp_path, name):
    for content, message in (("{", "is not JSON"), ("[" * 100_000, "is not JSON"), ([], "has no list"), ({"annotations": 3, "images": []}, "has no list"), ({"annotations": [], "images": []}, "none of its 0 rows can be used")):
        with pytest.raises(UserError, match=f"{name}.json: {message}") as error:
            opened(tmp_path, name, content)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="there is nothing to build"):
        DATASETS[name].build(tmp_path)
