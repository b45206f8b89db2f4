import dataclasses
import io
import shutil

import fsspec
import numpy as np
import pytest
from PIL import Image

from tests.data.tiny import PROCESSOR, TinySource, png, qa
from vlmjax.data import measure, shards
from vlmjax.data.batch import BatchShape
from vlmjax.data.datasets import built
from vlmjax.data.example import Example, Turn
from vlmjax.data.pipeline import Pipeline
from vlmjax.errors import UserError

SHAPE = BatchShape(rows=2, length=40, images=1, targets=12, size=8)


@dataclasses.dataclass
class Reader:
    """Reads images by key in another process, too; `refuses` keys stand for a source that fails."""

    images: dict[str, bytes]
    refuses: tuple[str, ...] = ()

    def __call__(self, key: str) -> bytes:
        if key in self.refuses:
            raise ConnectionError("the network went away")
        if key not in self.images:
            raise UserError(f"{key}: there is no such file")
        return self.images[key]


@dataclasses.dataclass
class ManySource(TinySource):
    read: Reader | None = None

    @property
    def reader(self):
        return self.read


def source(refuses=()) -> ManySource:
    """Forty questions, two about each of twenty images, of which one is missing and one truncated; some texts."""
    rng = np.random.default_rng(0)
    images = {f"folder/{n}.png": png(rng.integers(0, 256, (8, 8 + n % 3, 3), np.uint8)) for n in range(20)}
    del images["folder/3.png"]
    images["folder/5.png"] = images["folder/5.png"][:60]
    examples = [qa(f"q{n}.{k}", (f"folder/{n}.png",), text, "red") for k, text in enumerate(("is it red?", "what color is it?")) for n in range(20)]
    examples += [Example(f"t{n}", (), (Turn("assistant", "it is a red square"),)) for n in range(5)]
    return ManySource("many", examples, images, read=Reader(images, refuses))


def build(directory, **more):
    return shards.build(source(), directory, "spec", **{"workers": 1, "shard_examples": 8, **more})


def test_examples_and_images_come_back_as_they_were(tmp_path):
    manifest = build(tmp_path / "many")
    made, original = built.open_source(tmp_path, "many", "all"), source()
    assert manifest["examples"] == 45 and manifest["images"] == 20 and len(manifest["files"]) == 12
    assert [(e.id, e.turns) for e in made.examples] == [(e.id, e.turns) for e in original.examples]
    for ours, theirs in zip(made.examples, original.examples):
        for mine, key in zip(ours.images, theirs.images, strict=True):
            assert mine.endswith(f"/{key}")
            if key in original.images:
                assert made.read_image(mine) == original.images[key]
    assert len({key for e in made.examples for key in e.images}) == 20  # two questions about an image share it, across shards


def test_missing_and_broken_images_are_in_the_manifest_and_examples_keep_their_place(tmp_path):
    manifest = build(tmp_path / "many")
    made = built.open_source(tmp_path, "many", "all")
    reasons = {key.split("/", 2)[2]: reason for key, reason in manifest["unreadable_images"].items()}
    assert set(reasons) == {"folder/3.png", "folder/5.png"} and "no such file" in reasons["folder/3.png"]
    assert len(made.facts) == 20 and made.facts.readable.sum() == 18
    sizes = {key.split("/", 2)[2]: (w, h) for key, w, h in zip(made.facts.keys, made.facts.width, made.facts.height)}
    assert sizes["folder/4.png"] == (9, 8) and sizes["folder/5.png"] == (0, 0)
    with pytest.raises(UserError, match="folder/3.png: was missing when built/many was built"):
        made.read_image(made.examples[3].images[0])


def test_a_build_that_was_interrupted_goes_on_and_gives_the_same_files(tmp_path):
    whole = build(tmp_path / "whole")
    with pytest.raises(ConnectionResetError):
        shards.build(source(), tmp_path / "cut", "spec", 1, 8, progress=lambda done, of: (_ for _ in ()).throw(ConnectionResetError) if done == 3 else None)
    written = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cut").glob("*.array_record")}
    assert len(written) == 6 and not (tmp_path / "cut" / "manifest.json").exists()
    again = build(tmp_path / "cut")
    assert all((tmp_path / "cut" / name).stat().st_mtime_ns == at for name, at in written.items())
    assert again == whole
    assert {path.name for path in (tmp_path / "cut").iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}


def test_several_processes_write_what_one_writes(tmp_path):
    assert build(tmp_path / "several", workers=2) == build(tmp_path / "one")


def test_a_directory_of_another_build_is_left_alone(tmp_path):
    build(tmp_path / "many")
    assert build(tmp_path / "many") == shards.read_manifest(tmp_path / "many")
    with pytest.raises(UserError, match="holds a data set built from spec"):
        shards.build(source(), tmp_path / "many", "other", 1)
    with pytest.raises(ConnectionResetError):
        shards.build(source(), tmp_path / "cut", "spec", 1, 8, progress=lambda done, of: (_ for _ in ()).throw(ConnectionResetError) if done else None)
    with pytest.raises(UserError, match="was begun with another shard_examples"):
        build(tmp_path / "cut", shard_examples=16)


@pytest.mark.parametrize("harm", ["cut", "flip", "remove", "facts"])
def test_verify_names_what_is_not_as_it_was_built(tmp_path, harm):
    build(tmp_path / "many")
    assert shards.verify(tmp_path / "many") == []
    path = tmp_path / "many" / ("images.npz" if harm == "facts" else "images-00001.array_record")
    data = bytearray(path.read_bytes())
    if harm == "remove":
        path.unlink()
    else:
        data[len(data) // 2] ^= 1
        path.write_bytes(bytes(data[:-7] if harm == "cut" else data))
    (line,) = shards.verify(tmp_path / "many")
    assert line.startswith(str(path))


def test_batches_are_those_of_the_source(tmp_path):
    whole = source()
    readable = [e for e in whole.examples if not set(e.images) & {"folder/3.png", "folder/5.png"}]
    plain = dataclasses.replace(whole, examples=readable)
    shards.build(plain, tmp_path / "many", "spec", 1, 8)
    a, b = (Pipeline([(s, 1.0)], PROCESSOR, "next_token", SHAPE, 0, 2) for s in (plain, built.open_source(tmp_path, "many", "all")))
    for step in range(a.steps(2)):
        one, other = a.batch(step), b.batch(step)
        assert a.ids(step) == b.ids(step) and all((one[key] == other[key]).all() for key in one)


def test_a_table_of_lengths_is_made_once_for_every_encoder(tmp_path, monkeypatch):
    build(tmp_path / "many")
    made = built.open_source(tmp_path, "many", "all")
    first = measure.table(made, PROCESSOR, "next_token", 0)
    monkeypatch.setattr(type(PROCESSOR), "measure", lambda *_: pytest.fail("measured again"))
    again = measure.table(made, PROCESSOR, "next_token", 0)
    assert all((getattr(first, name) == getattr(again, name)).all() for name in ("head", "tail", "supervised", "images", "group"))
    part = measure.table(built.open_source(tmp_path, "many[10:30]", "all"), PROCESSOR, "next_token", 0)
    assert (part.head == first.head[10:30]).all() and len(part) == 20
    with pytest.raises(BaseException, match="measured again"):
        measure.table(made, type(PROCESSOR)(PROCESSOR.tokenizer, dataclasses.replace(PROCESSOR.template, end="."), PROCESSOR.layout), "next_token", 0)


def test_a_part_is_of_examples(tmp_path):
    build(tmp_path / "many")
    assert [e.id for e in built.open_source(tmp_path, "many[:3]", "all").examples] == ["q0.0", "q1.0", "q2.0"]
    assert [e.id for e in built.open_source(tmp_path, "many[43:]", "all").examples] == ["t3", "t4"]
    with pytest.raises(UserError, match="none between 45 and None"):
        built.open_source(tmp_path, "many[45:]", "all")
    with pytest.raises(UserError, match="is not NAME:all"):
        built.open_source(tmp_path, "many", "questions")
    with pytest.raises(UserError, match="holds no built data set"):
        built.open_source(tmp_path, "few", "all")


def test_a_shard_that_is_gone_is_named(tmp_path):
    build(tmp_path / "many")
    shutil.copytree(tmp_path / "many", tmp_path / "copy")
    made = built.open_source(tmp_path, "copy", "all")
    (tmp_path / "copy" / "examples-00002.array_record").unlink()
    with pytest.raises(UserError, match="examples-00002.array_record: cannot be read"):
        made.examples[20]


def test_an_image_of_another_mode_is_kept_as_it_was(tmp_path):
    buffer = io.BytesIO()
    Image.new("CMYK", (8, 8)).save(buffer, "jpeg")
    made = TinySource("one", [qa("a", ("x.jpg",), "is it red?", "yes")], {"x.jpg": buffer.getvalue()})
    shards.build(made, tmp_path / "one", "spec", 1)
    opened = built.open_source(tmp_path, "one", "all")
    assert opened.read_image(opened.examples[0].images[0]) == buffer.getvalue() and opened.facts.width.tolist() == [8]


def test_a_set_in_a_store_is_read_from_a_mirror_of_what_is_asked_for(tmp_path, monkeypatch):
    build(tmp_path / "many")
    monkeypatch.setattr(shards, "MIRRORS", str(tmp_path / "mirrors"))
    store = f"memory://{tmp_path.name}"
    fsspec.filesystem("memory").put(str(tmp_path / "many"), f"{store}/many", recursive=True)
    made, original = built.open_source(store, "many", "all"), built.open_source(tmp_path, "many", "all")
    assert made.name == "built/many" and (made.facts.hashes == original.facts.hashes).all()
    (mirror,) = (tmp_path / "mirrors").iterdir()
    assert made.examples[20] == original.examples[20] and [path.name for path in mirror.glob("*.array_record")] == ["examples-00002.array_record"]
    key = made.examples[0].images[0]
    assert made.read_image(key) == original.read_image(key)
    a, b = (Pipeline([(s, 1.0)], PROCESSOR, "next_token", SHAPE, 0, 2).batch(1) for s in (made, original))
    assert all((a[name] == b[name]).all() for name in a)
    fsspec.filesystem("memory").pipe(f"{store}/many/examples-00004.array_record", b"cut")
    (mirror / "examples-00004.array_record").unlink()
    with pytest.raises(UserError, match="examples-00004.array_record: is not the file that was built"):
        built.BuiltSource(f"{store}/many").examples[35]
    with pytest.raises(UserError, match="none: holds no built data set"):
        built.open_source(store, "none", "all")
