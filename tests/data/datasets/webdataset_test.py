"""WebDataset's shards: which members are a sample, and what each view makes of it."""
import json
import pickle

import fsspec
import numpy as np
import pytest

from tests.data.tar_archive_test import tar
from tests.data.tiny import png
from vlmjax.__main__ import main
from vlmjax.commands.common import open_source
from vlmjax.data.datasets import llava, published, webdataset
from vlmjax.errors import UserError


def picture(n: int) -> bytes:
    return png(np.full((6, 8 + n, 3), 9 * n, np.uint8))


def talk(*texts, **more) -> bytes:
    return json.dumps({**more, "conversations": [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]}).encode()


def sample(n: int) -> list[tuple[str, bytes]]:
    return [(f"{n:03d}.png", picture(n)), (f"{n:03d}.txt", f"caption {n}\n".encode()), (f"{n:03d}.json", json.dumps({"caption": f"other {n}", "url": "x"}).encode())]


def opened(tmp_path, view="txt", name="x.tar"):
    return open_source(f"webdataset:{name}:{view}", str(tmp_path), "test")


def said(source):
    return [(example.id, example.caption) for example in source.examples]


def test_captions(tmp_path):
    (tmp_path / "x.tar").write_bytes(tar(sample(0) + sample(1)))
    source = opened(tmp_path)
    assert said(source) == [("webdataset/x:000", "caption 0"), ("webdataset/x:001", "caption 1")] and source.altered == {published.STRIPPED: 2}
    assert {example.turns[0].text for example in source.examples} == {f"<image>\n{published.CAPTION_PROMPT}"}
    assert said(opened(tmp_path, "json.caption")) == [("webdataset/x:000", "other 0"), ("webdataset/x:001", "other 1")] and opened(tmp_path, "json.caption").altered == {}
    read = pickle.loads(pickle.dumps(source.reader))
    assert [read(example.images[0]) for example in source.examples] == [picture(0), picture(1)]


def test_conversations(tmp_path):
    members = [("a/0.v1.json", b"{}"), ("a/0.json", talk("Look.\n<image>", "yes", image="elsewhere.jpg")), ("a/0.PNG", picture(0)), ("a/1.json", talk("Hi", "hi")),
               ("a/2.json", talk("Look", "no")), ("./a/2.jpeg", picture(2)), ("a/3.json", talk("<image>", "b", image="x.jpg")), ("a/4.json", talk("<image> <image>", "b", image=["x", "y"])), ("a/4.jpg", b"")]
    (tmp_path / "x.tar").write_bytes(tar(members))
    source = opened(tmp_path, "conversations")
    assert [([turn.text for turn in example.turns], example.id) for example in source.examples] == [
        (["<image>\nLook.", "yes"], "webdataset/x:a/0"), (["Hi", "hi"], "webdataset/x:a/1"), (["<image>\nLook", "no"], "webdataset/x:a/2")]
    assert source.altered == {llava.MOVED: 1, llava.PLACED: 1}
    assert source.faults == {"x:a/3": "has no image, though its .json names 'x.jpg'", "x:a/4": "its .json names 2 images, a sample has one"}
    assert [len(example.images) for example in source.examples] == [1, 0, 1] and source.read_image(source.examples[2].images[0]) == picture(2)


@pytest.mark.parametrize("view, members, reason", [
    ("txt", [("1.txt", b"a")], "has no image"),
    ("txt", [("1.jpg", b"a"), ("1.json", b"{}")], "has no .txt"),
    ("txt", [("1.jpg", b"a"), ("1.txt", b" \n")], "its answer is empty"),
    ("txt", [("1.jpg", b"a"), ("1.txt", b"\xff")], "can't decode byte 0xff"),
    ("txt", [("1.jpg", b"a"), ("1.txt", b"<image>")], "its answer holds <image>"),
    ("txt", [("1.jpg", b"a"), ("1.txt", b"a"), ("1.png", b"a")], "has more than one of a kind: 1.jpg, 1.png"),
    ("txt", [("1.jpg", b"a"), ("1.txt", b"a"), ("1.txt", b"b")], "has more than one of a kind: 1.txt, 1.txt"),
    ("json.caption", [("1.jpg", b"a"), ("1.json", b"{")], "Expecting property name"),
    ("json.caption", [("1.jpg", b"a"), ("1.json", b"[]")], "its .json has no 'caption'"),
    ("json.caption", [("1.jpg", b"a"), ("1.json", b'{"caption": ["a"]}')], "['a'] is not a text"),
    ("json.caption", [("1.jpg", b"a"), ("1.json", b"[" * 100000)], "recursion"),
    ("conversations", [("1.jpg", b"a"), ("1.json", b"[]")], "has no list 'conversations'"),
])
def test_a_sample_that_cannot_be_used_is_left_out_with_its_reason(tmp_path, view, members, reason):
    good = [("0.jpg", b"x"), ("0.txt", b"x"), ("0.json", talk("a", "b", caption="x"))]
    (tmp_path / "x.tar").write_bytes(tar(good + members))
    source = opened(tmp_path, view)
    assert [example.id for example in source.examples] == ["webdataset/x:0"] and list(source.faults) == ["x:1"] and reason in source.faults["x:1"]
    (tmp_path / "y.tar").write_bytes(tar(members))
    with pytest.raises(UserError, match="y.tar: none of its 1 rows can be used: y:1: "):
        opened(tmp_path, view, "y.tar")


def test_members_of_a_sample_may_lie_apart_and_some_belong_to_none(tmp_path):
    members = [member for n in range(3) for member in sample(n)]
    (tmp_path / "x.tar").write_bytes(tar(sorted(members, key=lambda member: member[0][-3:]) + [("README", b"x"), ("._000.png", b"x")]))
    source = opened(tmp_path)
    assert sorted(said(source)) == [(f"webdataset/x:{n:03d}", f"caption {n}") for n in range(3)] and source.faults == {}
    assert source.altered == {published.STRIPPED: 3, webdataset.NAMELESS: 2}


@pytest.mark.parametrize("place", ["disk", "memory"])
def test_many_shards_of_which_one_is_cut(tmp_path, place):
    shards = {f"{n:05d}.tar": tar(sample(n) + sample(n + 1)) for n in range(3)}
    shards["00001.tar"] = shards["00001.tar"][:6660]
    for name, content in shards.items():
        (tmp_path / name).write_bytes(content)
        fsspec.filesystem("memory").pipe_file(f"/{tmp_path.name}/{name}", content)
    source = opened(tmp_path if place == "disk" else f"memory://{tmp_path.name}", name="{00000..00002}.tar")
    assert [id_ for id_, _ in said(source)] == ["webdataset/00000:000", "webdataset/00000:001", "webdataset/00001:001", "webdataset/00002:002", "webdataset/00002:003"]
    assert list(source.faults) == ["00001", "00001:002"] and "ends inside '002.txt' (is the download complete?)" in source.faults["00001"]
    assert [source.read_image(example.images[0]) for example in source.examples] == [picture(n) for n in (0, 1, 1, 2, 3)]


@pytest.mark.parametrize("name, view, message", [
    ("x.tar", "text", "x.tar: no view 'text'; did you mean 'txt'"),
    ("x.tar", "json.", "x.tar: no view 'json.'; did you mean 'json.KEY'"),
    ("none.tar", "txt", "none.tar: there is no such file"),
    ("z.tar.gz", "txt", r"z.tar.gz: is compressed \(gzip\)"),
    ("html.tar", "txt", "html.tar: is not a tar archive"),
    ("empty.tar", "txt", "empty.tar: none of its 0 rows can be used"),
])
def test_mistakes_are_one_line(tmp_path, name, view, message):
    for file, content in {"x.tar": tar(sample(0)), "z.tar.gz": tar(sample(0), mode="w:gz"), "html.tar": b"<html>" * 500, "empty.tar": tar({})}.items():
        (tmp_path / file).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        opened(tmp_path, view, name)
    assert "\n" not in str(error.value)


def test_a_shard_that_has_changed_is_not_read(tmp_path):
    (tmp_path / "x.tar").write_bytes(tar(sample(0) + sample(1)))
    source = opened(tmp_path)
    (tmp_path / "x.tar").write_bytes(tar([("0.txt", b"other")] + sample(1)))
    for ask in (lambda: source.examples[1], lambda: source.read_image("0/512/100/x")):
        with pytest.raises(UserError, match="x.tar: has changed since it was opened"):
            ask()


def test_damaged_bytes_are_one_line_or_still_a_set(tmp_path):
    whole, draw, outcomes = tar(sample(0) + sample(1)), np.random.default_rng(0), set()
    for n in range(150):
        damaged = bytearray(whole)
        for at in draw.integers(0, len(whole) // 2, draw.integers(1, 30)):
            damaged[at] = draw.integers(256)
        (tmp_path / f"{n}.tar").write_bytes(damaged[: int(draw.integers(1, len(whole)))] if n % 3 == 0 else damaged)
        try:
            source = opened(tmp_path, ("txt", "json.caption", "conversations")[n % 3], f"{n}.tar")
            for example in source.examples:
                source.read_image(example.images[0])
            outcomes.add("read")
        except UserError as error:
            assert "\n" not in str(error)
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


def test_a_set_is_built_from_them(tmp_path, capsys):
    for n in range(2):
        (tmp_path / f"{n}.tar").write_bytes(tar(sample(2 * n) + sample(2 * n + 1) + [("bad.jpg", b"<html>"), ("bad.txt", b"x")]))
    assert main(["data", "build", "webdataset:{0..1}.tar:txt", "--name=mine", "--workers=1", f"--data_dir={tmp_path}"]) == 0
    out = capsys.readouterr().out
    assert "mine: 6 examples, 6 images" in out and "2 images are missing or broken" in out
    assert main(["data", "verify", "mine", f"--data_dir={tmp_path}"]) == 0
    made = open_source("built:mine:all", str(tmp_path), "test")
    assert said(made) == said(opened(tmp_path, name="{0..1}.tar")) and made.read_image(made.examples[3].images[0]) == picture(2)
