"""LLaVA's rows as they are published, and as people write them."""
import json
import pickle
import zipfile

import fsspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vlmjax.commands.common import open_source
from vlmjax.data.datasets import llava
from vlmjax.data.example import IMAGE_MARK
from vlmjax.errors import UserError


def human(text: str) -> dict:
    return {"from": "human", "value": text}


def gpt(text: str) -> dict:
    return {"from": "gpt", "value": text}


def opened(tmp_path, rows, name="x.json", folder="images"):
    (tmp_path / name).write_text(rows if isinstance(rows, str) else json.dumps(rows))
    return open_source(f"llava:{name}:{folder}", str(tmp_path), "test")


# How rows of blip_laion_cc_sbu_558k.json and llava_v1_5_mix665k.json look: (row, images, texts).
PUBLISHED = [
    ({"id": "004539375", "image": "00453/004539375.jpg", "conversations": [human("Render a clear and concise summary of the photo.\n<image>"), gpt("select luxury furniture 3 - inch gel memory foam mattress topper ")]},
     ("00453/004539375.jpg",), ["<image>\nRender a clear and concise summary of the photo.", "select luxury furniture 3 - inch gel memory foam mattress topper "]),
    ({"id": "000000033471", "image": "coco/train2017/000000033471.jpg", "conversations": [human("<image>\nWhat are the colors of the bus in the image?"), gpt("The bus in the image is white and red."), human("What feature can be seen on the back of the bus?"), gpt("The back of the bus features an advertisement.")]},
     ("coco/train2017/000000033471.jpg",), ["<image>\nWhat are the colors of the bus in the image?", "The bus in the image is white and red.", "What feature can be seen on the back of the bus?", "The back of the bus features an advertisement."]),
    ({"id": "wgByO4Y_0", "model": "", "conversations": [gpt("leads"), human("Who?\n"), gpt("Nobody.\n")]}, (), ["Who?\n", "Nobody.\n"]),
]


@pytest.mark.parametrize("name", ["x.json", "x.jsonl"])
def test_published_rows(tmp_path, name):
    rows = [row for row, _, _ in PUBLISHED]
    source = opened(tmp_path, "\n".join(map(json.dumps, rows)) if name == "x.jsonl" else rows, name)
    assert [(e.images, [turn.text for turn in e.turns]) for e in source.examples] == [(images, texts) for _, images, texts in PUBLISHED]
    assert [e.id for e in source.examples] == ["llava/004539375", "llava/000000033471", "llava/wgByO4Y_0"]
    assert source.name == f"llava/{name}" and source.faults == {} and source.altered == {llava.MOVED: 1, llava.LEADING: 1}


@pytest.mark.parametrize("image, turns, texts, altered", [
    ("a", [human("Look.<image>Well?"), gpt("yes")], ["<image>\nLook.Well?", "yes"], {llava.MOVED: 1}),
    ("a", [human("<image>"), gpt("yes")], ["<image>", "yes"], {}),
    ("a", [human("Hi"), gpt("hi"), human("What is it?\n<image>"), gpt("yes")], ["Hi", "hi", "<image>\nWhat is it?", "yes"], {llava.MOVED: 1}),
    ("a", [human("<image>\n<image>\nWell?"), gpt("yes")], ["<image>\nWell?", "yes"], {llava.MERGED: 1}),
    ("a", [human("What?"), gpt("yes")], ["<image>\nWhat?", "yes"], {llava.PLACED: 1}),
    (["a", "b"], [human("What?"), gpt("yes")], ["<image>\n<image>\nWhat?", "yes"], {llava.PLACED: 1}),
    ("a", [gpt("<image>"), human("What?"), gpt("yes")], ["<image>\nWhat?", "yes"], {llava.LEADING: 1, llava.PLACED: 1}),
    (["a", "b"], [human("Is <image> like <image>?"), gpt("yes")], ["Is <image> like <image>?", "yes"], {}),
    (["a", "b"], [human("<image>\nOne"), gpt("1"), human("Two <image>"), gpt("2")], ["<image>\nOne", "1", "<image>\nTwo", "2"], {llava.MOVED: 1}),
    (["a"], [human("<image>\nOne"), gpt("1"), human("and no more")], ["<image>\nOne", "1", "and no more"], {}),
    (None, [human("Hi"), gpt("")], ["Hi", ""], {}),
    ("", [human("Hi"), gpt("hi")], ["Hi", "hi"], {}),
    ([], [gpt("1"), gpt("2"), human("Hi"), gpt("hi")], ["Hi", "hi"], {llava.LEADING: 1}),
])
def test_where_images_go(tmp_path, image, turns, texts, altered):
    source = opened(tmp_path, [{"id": 1, "image": image, "conversations": turns}])
    assert [turn.text for turn in source.examples[0].turns] == texts and source.altered == altered
    assert source.examples[0].images == tuple([image] if isinstance(image, str) and image else image or [])


@pytest.mark.parametrize("row, reason", [
    ("text", "has no list 'conversations'"),
    ({"image": "a"}, "has no list 'conversations'"),
    ({"conversations": []}, "holds no answer"),
    ({"conversations": [human("Hi")]}, "holds no answer"),
    ({"conversations": [gpt("a"), gpt("b")]}, "holds no answer to a question"),
    ({"conversations": [human("a"), human("b"), gpt("c")]}, "two turns of the user follow each other"),
    ({"conversations": [human("a"), gpt("b"), gpt("c")]}, "two turns of the assistant follow each other"),
    ({"conversations": [{"from": "system", "value": "x"}, human("a"), gpt("b")]}, "a turn is {'from': 'human' or 'gpt'"),
    ({"conversations": [human("a"), {"from": "gpt"}]}, "a turn is {'from': 'human' or 'gpt'"),
    ({"conversations": [human("a"), gpt("\ud800")]}, "holds half of a surrogate pair"),
    ({"id": "\ud800", "conversations": [human("a"), gpt("b")]}, "holds half of a surrogate pair"),
    ({"image": "\ud800", "conversations": [human("a"), gpt("b")]}, "holds half of a surrogate pair"),
    ({"image": {"bytes": ""}, "conversations": [human("a"), gpt("b")]}, "its image is a path or a list of paths"),
    ({"image": ["a", 3], "conversations": [human("a"), gpt("b")]}, "its image is a path or a list of paths"),
    ({"conversations": [human("<image>"), gpt("b")]}, "0 images, but its turns mark 1 places"),
    ({"image": "a", "conversations": [human("<image>"), gpt("b"), human("<image>"), gpt("b")]}, "1 images, but its turns mark 2 places"),
    ({"image": ["a", "b"], "conversations": [human("<image>"), gpt("b")]}, "2 images, but its turns mark 1 places"),
    ({"image": "a", "conversations": [human("<image>"), gpt("is <image> b")]}, "an answer holds <image>"),
])
def test_a_row_that_cannot_be_used_is_left_out_with_its_reason(tmp_path, row, reason):
    good = {"id": "good", "conversations": [human("a"), gpt("b")]}
    source = opened(tmp_path, [good, row, good])
    assert [e.id for e in source.examples] == ["llava/good", "llava/good#2"]
    assert list(source.faults) == ["x.json[1]"] and reason in source.faults["x.json[1]"] and "\n" not in source.faults["x.json[1]"]
    with pytest.raises(UserError, match=r"x.json: none of its 1 rows can be used: x.json\[0\]: "):
        opened(tmp_path, [row], folder="other")


def test_a_line_that_is_not_json_is_a_fault_and_a_list_that_is_not_stops(tmp_path):
    line = json.dumps({"conversations": [human("a"), gpt("b")]})
    source = opened(tmp_path, f"{line}\n{{\n{line}\n", "x.jsonl")
    assert [e.id for e in source.examples] == ["llava/0", "llava/2"] and list(source.faults) == ["x.jsonl[1]"]
    with pytest.raises(UserError, match="y.json: is not JSON: the file ends after row 0"):
        opened(tmp_path, f"[{line}", "y.json")
    with pytest.raises(UserError, match="none.json: there is no such file"):
        open_source("llava:none.json:images", str(tmp_path), "test")
    with pytest.raises(UserError, match="is not FILE:FOLDER"):
        open_source("llava:a:b:c", str(tmp_path), "test")


def test_ids_are_unique(tmp_path):
    ids = ["a", "a", "a#2", "a", 7, "7", None, "", "a#2"]
    source = opened(tmp_path, [{**({} if id_ is None else {"id": id_}), "conversations": [human("a"), gpt("b")]} for id_ in ids])
    found = [e.id for e in source.examples]
    assert found == ["llava/" + id_ for id_ in ("a", "a#2", "a#2#2", "a#3", "7", "7#2", "6", "7#3", "a#2#3")]
    assert list(source.altered.values()) == [6]


def test_examples_are_a_sequence_that_can_travel(tmp_path):
    source = opened(tmp_path, [{"id": i, "conversations": [human(f"{i}?"), gpt(f"{i}.")]} for i in range(5)])
    examples = source.examples
    assert len(examples) == 5 and examples[-1] == examples[4] and examples[1:3] == [examples[1], examples[2]] and list(examples)[3] == examples[3]
    with pytest.raises(IndexError):
        examples[5]
    assert list(pickle.loads(pickle.dumps(source)).examples) == list(examples)
    assert len(pickle.dumps(source.reader)) < 500  # goes to another process with every shard that is built


def test_images_in_a_folder_an_archive_and_a_store(tmp_path):
    row = {"id": 0, "image": "b/1.jpg", "conversations": [human("<image>"), gpt("b")]}
    (tmp_path / "images" / "b").mkdir(parents=True)
    (tmp_path / "images" / "b" / "1.jpg").write_bytes(b"jpeg")
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as made:
        made.writestr("top/b/1.jpg", b"jpeg")
    fsspec.filesystem("memory").pipe({f"/{tmp_path.name}/x.json": json.dumps([row]).encode(), f"/{tmp_path.name}/images/b/1.jpg": b"jpeg"})
    store = f"memory://{tmp_path.name}"
    sources = [opened(tmp_path, [row]), opened(tmp_path, [row], folder="images.zip/top"), opened(tmp_path, [row], folder=f"{store}/images"),
               open_source(f"llava:{store}/x.json:{store}/images", str(tmp_path), "test"), open_source("llava:x.json:images", store, "test")]
    for source in sources:
        assert source.read_image(source.examples[0].images[0]) == b"jpeg"
        for key in ("none.jpg", "../x.json", "/etc/passwd"):
            with pytest.raises(UserError, match=key.rsplit("/")[-1]):
                source.read_image(key)


TEXT = st.lists(st.sampled_from(["<image>", "word", " ", "\n", "<", "image>", "é", "?"]), max_size=5).map("".join)
TURNS = st.lists(st.fixed_dictionaries({"from": st.sampled_from(["human", "gpt"]), "value": TEXT}), max_size=5)
ALTERNATING = st.lists(TEXT, min_size=2, max_size=6).map(lambda texts: [gpt(text.replace("<image>", "")) if i % 2 else human(text) for i, text in enumerate(texts)])


@example([human("<<image>image>"), gpt("b")], "i0")
@given(TURNS | ALTERNATING, st.none() | st.just("i0") | st.integers(0, 4).map(lambda n: [f"i{k}" for k in range(n)]))
def test_no_image_is_lost_and_no_answer_changed(turns, image):
    """Of a row that can be used: as many marks as images; every answer but leading ones word for word, at its place; of a question all but marks and white space at its ends."""
    try:
        images, made, altered = llava.conversation({"image": image, "conversations": turns})
    except ValueError as error:
        assert str(error)
        return
    assert images == (() if not image else (image,) if isinstance(image, str) else tuple(image))
    assert sum(turn.text.count(IMAGE_MARK) for turn in made) == len(images)
    leading = next(i for i, turn in enumerate(turns) if turn["from"] == "human")
    assert (llava.LEADING in altered) == (leading > 0)
    for turn, published in zip(made, turns[leading:], strict=True):
        if turn.role == "assistant":
            assert turn.text == published["value"]
        else:
            assert turn.text.replace(IMAGE_MARK, "").strip() == published["value"].replace(IMAGE_MARK, "").strip()
            assert turn.text == published["value"] or altered
