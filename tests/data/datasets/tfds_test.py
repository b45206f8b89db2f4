"""Data sets that TensorFlow Datasets has prepared: each kind of feature, in a small one made here."""
import concurrent.futures
import io
import pickle

import numpy as np
import pytest
import tensorflow_datasets
from PIL import Image

from vlmjax.commands.common import open_source
from vlmjax.data.datasets import published, tfds
from vlmjax.data.images import decode
from vlmjax.errors import UserError

F = tensorflow_datasets.features


def png(n: int) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (4 + n, 3), (n, 0, 0)).save(content, "png")
    return content.getvalue()


class Toy(tensorflow_datasets.core.GeneratorBasedBuilder):
    """Record n of 5 has n captions and 2 images more."""

    name = "toy"
    BUILDER_CONFIGS = [tensorflow_datasets.core.BuilderConfig(name="small", version="1.2.0")]
    url_infos = {}

    def _info(self):
        return tensorflow_datasets.core.DatasetInfo(builder=self, disable_shuffling=True, features=F.FeaturesDict({
            "image": F.Image(encoding_format="png"), "pair": F.Sequence(F.Image(encoding_format="png")), "captions": F.Sequence({"text": F.Text(), "n": np.int64}),
            "question": F.Text(), "label": F.ClassLabel(names=["cat", "dog"]), "box": F.BBoxFeature(), "meta": {"file": F.Text(), "score": np.float32}}))  # fmt: skip

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(5), "test": self._generate_examples(2)}

    def _generate_examples(self, n):
        for i in range(n):
            yield i, {"image": png(i), "pair": [png(i), png(i + 1)], "captions": [{"text": f" c{i}.{k}", "n": k} for k in range(i)], "question": f"q{i}", "label": i % 2,
                      "box": F.BBox(0.0, 0.0, 1.0, 1.0), "meta": {"file": f"f{i}", "score": 0.5}}  # fmt: skip


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("tfds"))
    tensorflow_datasets.disable_progress_bar()
    Toy(data_dir=path, file_format="array_record").download_and_prepare()
    return path


def opened(data_dir, spec):
    return open_source(f"tfds:{spec}", data_dir, "test")


def test_captions(data_dir):
    source = opened(data_dir, "toy/small:1.2.0:train[:3]:image=image,caption=captions/text")
    assert [(e.id, e.images, e.caption) for e in source.examples] == [
        ("tfds/toy/small/train/1", ("train/1",), "c1.0"), ("tfds/toy/small/train/2/0", ("train/2",), "c2.0"), ("tfds/toy/small/train/2/1", ("train/2",), "c2.1")]
    assert {e.turns[0].text for e in source.examples} == {f"<image>\n{published.CAPTION_PROMPT}"}
    assert source.name == "tfds/toy/small/train[:3]" and source.faults == {"train/0": "has no answer"} and source.altered == {published.STRIPPED: 3}


def test_questions_with_several_images_labels_and_ids(data_dir):
    source = opened(data_dir, "toy/small:train[3:]+test:image=pair,question=question,answer=label,id=meta/file")
    assert [(e.id, e.images, e.caption) for e in source.examples] == [
        ("tfds/toy/small/f3", ("train/3/0", "train/3/1"), "dog"), ("tfds/toy/small/f4", ("train/4/0", "train/4/1"), "cat"),
        ("tfds/toy/small/f0", ("test/0/0", "test/0/1"), "cat"), ("tfds/toy/small/f1", ("test/1/0", "test/1/1"), "dog")]
    assert source.examples[0].turns[0].text == "<image>\n<image>\nq3"
    keys = [key for e in source.examples for key in e.images] * 5
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        widths = [decode(data).width - 4 for data in pool.map(source.read_image, keys)]
    assert widths == [3, 4, 4, 5, 0, 1, 1, 2] * 5
    assert pickle.loads(pickle.dumps(source.reader))("test/1/0") == png(1)
    with pytest.raises(UserError, match="no record train/2 in this source"):
        source.read_image("train/2/0")


def test_parts_of_a_split_have_the_ids_and_keys_of_the_whole(data_dir):
    view = "image=image,question=question,answer=meta/score"
    whole, front, back = (opened(data_dir, f"toy/small:{split}:{view}") for split in ("train", "train[:40%]", "train[40%:]"))
    assert [*front.examples, *back.examples] == list(whole.examples)
    assert back.read_image("train/4") == whole.read_image("train/4") == png(4)


def test_texts_without_images(data_dir):
    source = opened(data_dir, "toy/small:test:question=question,answer=captions/n")
    assert [(e.images, [turn.text for turn in e.turns]) for e in source.examples] == [((), ["q1", "0"])]


@pytest.mark.parametrize("spec, message", [
    ("toy/small:2.0.0:train:question=question,answer=label", "no prepared data set in .*/toy/small/2.0.0"),
    ("toy:train:question=question,answer=label", "no prepared data set in .*/toy/VERSION"),
    ("toi/small:train:question=question,answer=label", "no prepared data set in .*/toi/small/VERSION"),
    ("toy/small:trian:question=question,answer=label", "Unknown split 'trian'"),
    ("toy/small:train[:9]:question=question,answer=label", "incompatible with 5 examples"),
    ("toy/small:train[:question=question,answer=label", "parsing split"),
    ("toy/small:train:image=image,caption=caption/text", "caption=caption/text: no such feature; did you mean 'captions/text'"),
    ("toy/small:train:image=question,caption=question", "image=question: is not an image but Text"),
    ("toy/small:train:question=question", "needs question= and answer=, or image= and caption="),
    ("toy/small:train:caption=question", "needs question= and answer=, or image= and caption="),
    ("toy/small:train:picture=image", "'picture' in its view is not PART=FEATURE"),
    ("toy/small:test[:1]:image=image,caption=captions/text", "none of its 1 rows can be used: test/0: has no answer"),
    ("toy:x", "is not NAME:SPLIT:VIEW|is not NAME.*:SPLIT"),
])
def test_mistakes_are_one_line(data_dir, spec, message):
    with pytest.raises(UserError, match=message) as error:
        opened(data_dir, spec)
    assert "\n" not in str(error.value)


def test_another_format_says_how_to_prepare(data_dir, tmp_path):
    info = tensorflow_datasets.builder_from_directory(f"{data_dir}/toy/small/1.2.0").info
    info.set_file_format("tfrecord", override=True, override_if_initialized=True)
    target = tmp_path / "toy" / "small" / "1.2.0"
    target.mkdir(parents=True)
    info.write_to_directory(str(target))
    with pytest.raises(UserError, match="is not prepared as ArrayRecord") as error:
        opened(str(tmp_path), "toy/small:train:question=question,answer=label")
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="file_format='array_record'"):
        tfds.build(tmp_path)
