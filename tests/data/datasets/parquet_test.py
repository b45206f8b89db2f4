"""Parquet files with images inside, in the two layouts that are published."""
import functools
import pickle

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from tests.data.tiny import png
from vlmjax.__main__ import main
from vlmjax.commands.common import open_source
from vlmjax.data import parquet_file
from vlmjax.data.datasets import llava, parquet
from vlmjax.errors import UserError

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
CAULDRON = pa.schema([("images", pa.list_(IMAGE)), ("texts", pa.list_(pa.struct([("user", pa.string()), ("assistant", pa.string()), ("source", pa.string())])))])
FINEVISION = CAULDRON.append(pa.field("source", pa.string())).append(pa.field("relevance_ratings", pa.list_(pa.int64())))
ONEVISION = pa.schema([("id", pa.string()), ("image", IMAGE), ("conversations", pa.list_(pa.struct([("from", pa.string()), ("value", pa.string())]))), ("data_source", pa.string())])


def picture(n: int) -> dict:
    return {"bytes": png(np.full((6, 8 + n, 3), 9 * n, np.uint8)), "path": None}


def said(*pairs):
    return [{"user": question, "assistant": answer, "source": "x"} for question, answer in pairs]


def talk(*texts):
    return [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]


def write(path, rows, schema=CAULDRON, group=2, **how):
    path.parent.mkdir(exist_ok=True)
    pa.parquet.write_table(pa.Table.from_pylist(rows, schema), path, row_group_size=group, **how)


def opened(tmp_path, name="x.parquet", view="all"):
    return open_source(f"parquet:{name}:{view}", str(tmp_path), "test")


def texts(example):
    return [turn.text for turn in example.turns]


CONVERSATIONS = [{"images": [picture(0)], "texts": said(("What?\n", " this"), ("And?", ""))}, {"images": [picture(1), picture(2)], "texts": said(("Same <image>?", "no"))},
                 {"images": [], "texts": said(("Hi", "hi"))}, {"images": None, "texts": said(("Hi", "hi"))}, {"images": [picture(3)], "texts": said(("x", "y"))}]


@pytest.mark.parametrize("schema", [CAULDRON, FINEVISION])
def test_pairs_are_one_conversation_behind_its_images(tmp_path, schema):
    write(tmp_path / "x.parquet", CONVERSATIONS, schema)
    source = opened(tmp_path)
    assert [texts(example) for example in source.examples] == [
        ["<image>\nWhat?\n", " this", "And?", ""], ["<image>\n<image>\nSame ?", "no"], ["Hi", "hi"], ["Hi", "hi"], ["<image>\nx", "y"]]
    assert [example.images for example in source.examples] == [("0/0/0",), ("0/1/0", "0/1/1"), (), (), ("0/4/0",)]
    assert [example.id for example in source.examples] == [f"parquet/x/{n}" for n in range(5)]
    assert source.faults == {} and source.altered == {parquet.UNMARKED: 1}
    read = pickle.loads(pickle.dumps(source.reader))
    assert [read(key) for example in source.examples for key in example.images] == [picture(n)["bytes"] for n in range(4)]


def test_rows_of_onevision_are_rows_of_llava(tmp_path):
    rows = [{"id": "a", "image": picture(0), "conversations": talk("Look.\n<image>", "yes")}, {"id": "a", "image": picture(1), "conversations": talk("Look.", "no")},
            {"id": None, "image": None, "conversations": talk("Hi", "hi", "Ho", "ho")}, {"id": "d", "image": None, "conversations": talk("<image>", "no")}]
    write(tmp_path / "x.parquet", rows, ONEVISION)
    source = opened(tmp_path)
    assert [(example.id, example.images, texts(example)) for example in source.examples] == [
        ("parquet/a", ("0/0/0",), ["<image>\nLook.", "yes"]), ("parquet/a#2", ("0/1/0",), ["<image>\nLook.", "no"]), ("parquet/x/2", (), ["Hi", "hi", "Ho", "ho"])]
    assert source.faults == {"x[3]": "0 images, but its turns mark 1 places with <image>"}
    assert source.altered == {llava.MOVED: 1, llava.PLACED: 1, "ids made unique by a number, as the file repeats them": 1}
    assert source.read_image("0/1/0") == picture(1)["bytes"]


@pytest.mark.parametrize("images, pairs, reason", [
    ([None], said(("a", "b")), "an image of it is null"),
    ([], [], "holds no answer"),
    ([], None, "holds no answer"),
    ([], [None], "None is not a text"),
    ([], said(("a", None)), "None is not a text"),
    ([], said(("a", "an <image>")), "an answer holds <image>"),
])
def test_a_row_that_cannot_be_used_is_left_out_with_its_reason(tmp_path, images, pairs, reason):
    write(tmp_path / "x.parquet", [CONVERSATIONS[0], {"images": images, "texts": pairs}, CONVERSATIONS[4]])
    source = opened(tmp_path)
    assert [example.id for example in source.examples] == ["parquet/x/0", "parquet/x/2"] and list(source.faults) == ["x[1]"] and reason in source.faults["x[1]"]
    write(tmp_path / "y.parquet", [{"images": images, "texts": pairs}])
    with pytest.raises(UserError, match=r"y.parquet: none of its 1 rows can be used: y\[0\]: "):
        opened(tmp_path, "y.parquet")


def test_an_image_without_bytes_is_found_when_it_is_read(tmp_path):
    write(tmp_path / "x.parquet", [{"images": [{"bytes": None, "path": "a.png"}], "texts": said(("a", "b"))}])
    with pytest.raises(UserError, match="x.parquet: row 0: its image 0 holds no bytes"):
        opened(tmp_path).read_image("0/0/0")


def test_files_of_several_folders_layouts_and_a_store(tmp_path):
    write(tmp_path / "a" / "train-0.parquet", CONVERSATIONS[:3])
    write(tmp_path / "b" / "train-0.parquet", [{"image": picture(5), "conversations": talk("a", "b")}], ONEVISION)
    for name in ("a", "b"):
        fsspec.filesystem("memory").pipe_file(f"/{tmp_path.name}/{name}/train-0.parquet", (tmp_path / name / "train-0.parquet").read_bytes())
    for source in (opened(tmp_path, "*/train-*.parquet"), opened(f"memory://{tmp_path.name}", "{a,b}/train-0.parquet")):
        assert [example.id for example in source.examples] == [f"parquet/{name}" for name in ("a/train-0/0", "a/train-0/1", "a/train-0/2", "b/train-0/0")]
        assert source.read_image(source.examples[3].images[0]) == picture(5)["bytes"]


def test_in_their_order_images_cost_one_read_of_each_row_group(tmp_path, monkeypatch):
    write(tmp_path / "x.parquet", [{"images": [picture(n % 4)], "texts": said(("a", "b"))} for n in range(80)], group=10)
    read = []

    def counting(read_one, path, size, group, leaves):
        read.append((group, len(leaves)))
        return read_one(path, size, group, leaves)

    monkeypatch.setattr(parquet_file, "_group", functools.lru_cache(parquet_file.KEPT)(functools.partial(counting, parquet_file._group.__wrapped__)))
    source = opened(tmp_path)
    assert read == [(group, 3) for group in range(8)]  # at opening the texts, and no bytes of images
    read.clear()
    for example in source.examples:
        source.read_image(example.images[0])
    assert read == [(group, leaves) for group in range(8) for leaves in (3, 1)]
    assert len(pickle.dumps(source.reader)) < 1000  # goes to another process with every shard that is built


@pytest.mark.parametrize("name, view, message", [
    ("none.parquet", "all", "none.parquet: there is no such file"),
    ("x.parquet", "train", "x.parquet:train is not FILES:all"),
    ("other.parquet", "all", r"other.parquet: has the columns a, image, not those of The Cauldron \(images, texts\) or LLaVA-OneVision-Data"),
    ("text.parquet", "all", "text.parquet: is not a readable Parquet file"),
    ("empty.parquet", "all", "empty.parquet: is not a readable Parquet file"),
    ("cut.parquet", "all", r"cut.parquet: is not a readable Parquet file: .*\(is the download complete\?\)"),
])
def test_mistakes_are_one_line(tmp_path, name, view, message):
    write(tmp_path / "x.parquet", CONVERSATIONS)
    write(tmp_path / "other.parquet", [{"a": 1, "image": b""}], pa.schema([("a", pa.int64()), ("image", pa.binary())]))
    (tmp_path / "text.parquet").write_text("hello" * 9)
    (tmp_path / "empty.parquet").write_bytes(b"")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "x.parquet").read_bytes()[:-40])
    with pytest.raises(UserError, match=message) as error:
        opened(tmp_path, name, view)
    assert "\n" not in str(error.value)


def test_a_file_that_has_changed_is_not_read(tmp_path):
    write(tmp_path / "x.parquet", CONVERSATIONS)
    source = opened(tmp_path)
    write(tmp_path / "x.parquet", CONVERSATIONS[:2])
    with pytest.raises(UserError, match="x.parquet: has changed since it was opened"):
        source.read_image("0/4/0")


@pytest.mark.parametrize("compression", ["none", "snappy"])
def test_damaged_bytes_are_one_line_or_still_a_set(tmp_path, compression):
    write(tmp_path / "x.parquet", CONVERSATIONS, FINEVISION, compression=compression, use_dictionary=False)
    whole, draw = (tmp_path / "x.parquet").read_bytes(), np.random.default_rng(0)
    outcomes = set()
    for n in range(250):
        damaged = bytearray(whole)
        # Half of them in the footer, where the schema and all places stand.
        for at in draw.integers(0 if n % 2 else len(whole) * 2 // 3, len(whole), draw.integers(1, 4)):
            damaged[at] = draw.integers(256)
        (tmp_path / f"{n}.parquet").write_bytes(damaged)
        try:
            source = opened(tmp_path, f"{n}.parquet")
            for example in source.examples:
                for key in example.images:
                    source.read_image(key)
            outcomes.add("read")
        except UserError as error:
            assert "\n" not in str(error)
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


def test_a_set_is_built_from_them(tmp_path, capsys):
    write(tmp_path / "x.parquet", CONVERSATIONS + [{"images": [{"bytes": b"<html>", "path": None}], "texts": said(("a", "b"))}])
    assert main(["data", "build", "parquet:x.parquet:all", "--name=mine", "--workers=1", f"--data_dir={tmp_path}"]) == 0
    out = capsys.readouterr().out
    assert "mine: 6 examples, 5 images" in out and "1 images are missing or broken" in out
    assert main(["data", "verify", "mine", f"--data_dir={tmp_path}"]) == 0
    made, source = open_source("built:mine:all", str(tmp_path), "test"), opened(tmp_path)
    assert [texts(a) == texts(b) for a, b in zip(made.examples, source.examples, strict=True)] == [True] * 6
    assert made.read_image(made.examples[1].images[1]) == picture(2)["bytes"]
