"""InternVL's meta files: which rows of each entry are read, how often, and where their images are."""
import json
import pickle
import zipfile

import fsspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.tiny import PROCESSOR, png
from vlmjax.__main__ import main
from vlmjax.commands.common import open_source
from vlmjax.data.batch import BatchShape
from vlmjax.data.datasets import internvl, llava
from vlmjax.data.pipeline import Pipeline
from vlmjax.errors import UserError


def row(n, image=None, question="is it red?", **more):
    conversations = [{"from": "human", "value": question}, {"from": "gpt", "value": "yes"}]
    return {"id": n, **({} if image is None else {"image": image}), **more, "conversations": conversations}


def entry(name, **more):
    return {"root": "data/coco/", "annotation": f"{name}.jsonl", "data_augment": False, "repeat_time": 1, **more}


def written(tmp_path, meta, **rows):
    """tmp_path/meta.json, and NAME.jsonl of each list of rows."""
    (tmp_path / "meta.json").write_text(meta if isinstance(meta, str) else json.dumps(meta))
    for name, lines in rows.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return str(tmp_path)


def opened(data_dir, view="all"):
    return open_source(f"internvl:meta.json:{view}", data_dir, "test")


def ids(source):
    return [example.id for example in source.examples]


@pytest.fixture
def data_dir(tmp_path):
    meta = {"a": entry("a", repeat_time=2, length=2), "b+": entry("b", root="data", repeat_time=0.5, length=7, max_dynamic_patch=6), "c": entry("c", root="")}
    (tmp_path / "data" / "coco").mkdir(parents=True)
    for n in range(3):
        (tmp_path / "data" / "coco" / f"{n}.png").write_bytes(png(np.full((8, 8, 3), 40 * n, np.uint8)))
    return written(tmp_path, meta, a=[row(n, f"{n}.png") for n in range(2)], b=[row(n, "coco/2.png") for n in range(4)] + [row(4)], c=[row(0)])


def test_an_entry_is_repeated_or_its_first_rows_are_read(data_dir):
    source = opened(data_dir)
    assert ids(source) == ["internvl/a/0", "internvl/a/1", "internvl@2/a/0", "internvl@2/a/1", "internvl/b+/0", "internvl/b+/1", "internvl/c/0"]
    assert source.altered == {"rows that b+ has less than the 'length' in its entry, 7": 2, internvl.TILES: 2, llava.PLACED: 4} and source.faults == {}
    assert source.name == "internvl/meta.json"
    assert ids(opened(data_dir, "b+")) == ["internvl/b+/0", "internvl/b+/1"] and opened(data_dir, "b+").name == "internvl/meta.json/b+"
    assert ids(opened(data_dir, "a")) == ids(source)[:4]


def test_images_are_under_the_root_of_their_entry(data_dir):
    source = opened(data_dir)
    assert [example.images for example in source.examples] == [("data/coco/0.png",), ("data/coco/1.png",)] * 2 + [("data/coco/2.png",)] * 2 + [()]
    read = pickle.loads(pickle.dumps(source.reader))
    for n, i in ((0, 0), (1, 3), (2, 4)):
        assert read(source.examples[i].images[0]) == png(np.full((8, 8, 3), 40 * n, np.uint8))
    for key in ("data/coco/../../meta.json", "data/coco//etc/passwd", "data/coco/none.png", "elsewhere/0.png"):
        with pytest.raises(UserError):
            read(key)


def test_an_archive_inside_another_root(data_dir, tmp_path):
    with zipfile.ZipFile(tmp_path / "data" / "more.zip", "w") as made:
        made.writestr("top/1.png", b"png")
    source = opened(written(tmp_path, {"a": entry("a", root="data"), "b": entry("b", root="data/more.zip/top/")}, a=[row(0, "coco/0.png")], b=[row(1, "1.png")]))
    assert [len(source.read_image(example.images[0])) for example in source.examples] == [len(png(np.zeros((8, 8, 3), np.uint8))), 3]


def test_paths_of_a_store(data_dir, tmp_path):
    fs, store = fsspec.filesystem("memory"), f"memory://{tmp_path.name}"
    for path in tmp_path.rglob("*.*"):
        fs.pipe_file(f"/{tmp_path.name}/{path.relative_to(tmp_path)}", path.read_bytes())
    meta = {"a": entry("a", root=f"{store}/data/coco", annotation=f"{store}/a.jsonl")}
    written(tmp_path, meta)
    for source in (opened(data_dir), open_source("internvl:meta.json:a", store, "test"), open_source(f"internvl:{store}/meta.json:a", data_dir, "test")):
        assert source.read_image(source.examples[1].images[0]) == png(np.full((8, 8, 3), 40, np.uint8))


@pytest.mark.parametrize("share, read", [(0.5, 2), (0.99, 4), (0.2, 1), (0.39, 1), (1, 5), (1.0, 5), (3.0, 15)])
def test_a_share_is_of_the_rows_of_the_file_and_not_of_the_usable_ones(tmp_path, share, read):
    rows = [row(0), row(1), "{", row(3), row(4)]
    source = opened(written(tmp_path, {"a": entry("a", repeat_time=share)}, a=rows))
    broken = max(1, int(share)) if read > 2 else 0
    assert len(source.examples) == read - broken and list(source.faults) == ["a: a.jsonl[2]"] * bool(broken)


@pytest.mark.parametrize("image, question, text", [
    ("a", "is it <image> red?", "is it <image> red?"),
    ("a", "is it red?\n<image>", "is it red?\n<image>"),
    ("a", "is it red?", "<image>\nis it red?"),
    (["a", "b"], "<image> or <image>", "<image> or <image>"),
    (["a", "b"], "is it red?", "<image>\n<image>\nis it red?"),
])
def test_marks_stay_where_they_are(tmp_path, image, question, text):
    source = opened(written(tmp_path, {"a": entry("a")}, a=[row(0, image, question)]))
    assert source.examples[0].turns[0].text == text and source.altered == ({} if "<image>" in question else {llava.PLACED: 1})


def test_what_is_left_out(tmp_path):
    rows = [row(0), row(1, video="x.mp4"), row(2, "", video="x.mp4"), row(3, ["a", "b"], "<image>"), row(4, "a", video="x.mp4")]
    source = opened(written(tmp_path, {"a": entry("a")}, a=rows))
    assert ids(source) == ["internvl/a/0", "internvl/a/4"]
    assert [reason.split(",")[0] for reason in source.faults.values()] == ["is about a video"] * 2 + ["2 images"] and list(source.faults)[0] == "a: a.jsonl[1]"


@pytest.mark.parametrize("meta, message", [
    ("{", "meta.json: is not JSON"),
    ("[" * 100_000, "meta.json: is not JSON"),
    ('{"a": {}, "a": {}}', "meta.json: has 'a' 2 times"),
    ([], "meta.json: is not {NAME"),
    ({}, "meta.json: is not {NAME"),
    ({"a": 3}, "meta.json: is not {NAME"),
    ({"a": entry("a", repeat_times=2)}, "'a': has an unknown key 'repeat_times'; did you mean 'repeat_time'"),
    ({"a": {"annotation": "a.jsonl"}}, "'a': its 'root' is a path, not None"),
    ({"a": {"root": ""}}, "'a': its 'annotation' is a path, not None"),
    ({"a": entry("a", repeat_time=0)}, "'repeat_time' is a number above 0"),
    ({"a": entry("a", repeat_time=True)}, "'repeat_time' is a number above 0"),
    ({"a": entry("a", repeat_time="2")}, "'repeat_time' is a number above 0"),
    ({"a": entry("a", repeat_time=1e9)}, "'repeat_time' is a number above 0, at most 1,000"),
    ({"a": entry("a", repeat_time=1.5)}, "'repeat_time' of 1.5 is above 1 and not whole"),
    ({"a": entry("a", data_augment=True)}, "'data_augment' is True; images are not augmented here"),
    ({"a": entry("a", length="5")}, "'length' is a whole number"),
    ({"a": entry("a", max_dynamic_patch=1.5)}, "'max_dynamic_patch' is a whole number"),
    ({"a": entry("none")}, "none.jsonl: there is no such file"),
    ({"a": entry("a"), "b": entry("a", repeat_time=0.3)}, r"a.jsonl \(entry 'b', repeat_time 0.3\): none of its 0 rows can be used"),
])
def test_mistakes_are_one_line(tmp_path, meta, message):
    with pytest.raises(UserError, match=message) as error:
        opened(written(tmp_path, meta, a=[row(0), row(1)]))
    assert "\n" not in str(error.value)


def test_an_unknown_entry_is_named(data_dir):
    with pytest.raises(UserError, match=r"has no entry 'b'; did you mean 'b\+'"):
        opened(data_dir, "b")


def test_an_epoch_shows_each_entry_as_often_as_it_is_repeated(data_dir):
    pipeline = Pipeline([(opened(data_dir), 1.0)], PROCESSOR, "next_token", BatchShape(1, 32, 2, 8, 8), 0, 1)
    shown = [id_ for step in range(pipeline.steps(1.0)) for row in pipeline.ids(step) for id_ in row]
    assert sorted(shown) == sorted(ids(opened(data_dir)))


def test_a_set_is_built_from_all_of_them(data_dir, capsys):
    assert main(["data", "build", "internvl:meta.json:all", "--name=mine", "--workers=1", f"--data_dir={data_dir}"]) == 0
    said = capsys.readouterr().out
    assert "mine: 7 examples, 3 images" in said and "b+ has less than the 'length' in its entry, 7: 2" in said
    assert main(["data", "verify", "mine", f"--data_dir={data_dir}"]) == 0
    assert ids(open_source("built:mine:all", data_dir, "test")) == ids(opened(data_dir))


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "a.jsonl", "\ud800", "data"]),
                    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["root", "annotation", "repeat_time", "length", "a"]), inner, max_size=4), max_leaves=8)


@given(JSON | st.builds(lambda value, key: {"a": {**entry("a"), key: value}}, JSON, st.sampled_from(list(entry("")) + ["length", "max_dynamic_patch"])))
def test_whatever_a_meta_file_holds_is_read_or_refused_in_one_line(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("meta")
    try:
        assert len(opened(written(path, json.dumps(content), a=[row(0)])).examples)
    except UserError as error:
        assert "\n" not in str(error)
