import json

import ml_dtypes
import numpy as np
import pytest

from vlmjax.errors import UserError
from vlmjax.weights import store

ARRAYS = {
    "decoder/layers/0/norm/scale": np.arange(6, dtype=np.float32),
    "decoder/embed": np.arange(12, dtype=np.float32).reshape(4, 3).T,  # not contiguous
    "contrast_head/logit_scale": np.array(2.5, np.float32),
    "half": np.array([[1.5, -2.0]], ml_dtypes.bfloat16),
    "ids": np.zeros((0, 2), np.int32),
}


def assert_same(got, want):
    assert set(got) == set(want)
    for path in want:
        assert got[path].dtype == want[path].dtype and got[path].shape == want[path].shape, path
        np.testing.assert_array_equal(got[path], want[path])


def test_what_is_saved_is_loaded_and_other_readers_agree(tmp_path):
    store.save(tmp_path, ARRAYS, {"format": "vlmjax"})
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
    assert_same(store.load(tmp_path), ARRAYS)
    from safetensors import safe_open
    with safe_open(tmp_path / "model.safetensors", "np") as f:
        assert f.metadata() == {"format": "vlmjax"}
        np.testing.assert_array_equal(f.get_tensor("decoder/embed"), ARRAYS["decoder/embed"])


def test_large_trees_are_sharded_and_a_later_save_leaves_nothing_stale(tmp_path):
    store.save(tmp_path, ARRAYS, shard_bytes=40)
    assert (tmp_path / store.INDEX).exists() and len(list(tmp_path.glob("model-*.safetensors"))) > 1
    assert_same(store.load(tmp_path), ARRAYS)
    fewer = {"ids": ARRAYS["ids"]}
    store.save(tmp_path, fewer)
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
    assert_same(store.load(tmp_path), fewer)


def test_an_incomplete_write_is_never_visible(tmp_path, monkeypatch):
    store.save(tmp_path, ARRAYS)
    monkeypatch.setattr(type(store.epath.Path(tmp_path)), "replace", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        store.save(tmp_path, {"other": np.ones(3)})
    assert_same(store.load(tmp_path), ARRAYS)


def header(entry):
    text = json.dumps({"a": entry}).encode()
    return np.uint64(len(text)).tobytes() + text


@pytest.mark.parametrize("spoil, message", [
    (lambda b: b[:-1], "was it copied completely"),
    (lambda b: b[:4], "was it copied completely"),
    (lambda b: b[:40], "ends inside its header"),
    (lambda b: b[:8] + b"x" * (len(b) - 8), "is not a safetensors file"),
    (lambda b: header({"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}) + b"0", "'a' has the dtype F4"),
    (lambda b: header({"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}) + b"0000", r"do not make F32\[2\]"),
])
def test_damaged_files_are_refused_in_one_line(tmp_path, spoil, message):
    store.save(tmp_path, ARRAYS)
    file = tmp_path / "model.safetensors"
    file.write_bytes(spoil(file.read_bytes()))
    with pytest.raises(UserError, match=message) as error:
        store.load(tmp_path)
    assert "\n" not in str(error.value) and str(file) in str(error.value)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(UserError, match="holds no model.safetensors"):
        store.load(tmp_path)
    store.save(tmp_path, ARRAYS, shard_bytes=40)
    gone = sorted(tmp_path.glob("model-*.safetensors"))[0]
    gone.unlink()
    with pytest.raises(UserError, match=f"{gone.name}: is missing"):
        store.load(tmp_path)


def test_an_index_that_points_elsewhere_and_a_pickle_are_refused(tmp_path):
    store.save(tmp_path, ARRAYS, shard_bytes=40)
    index = json.loads((tmp_path / store.INDEX).read_text())
    index["weight_map"] = {name: "../" + file for name, file in index["weight_map"].items()}
    (tmp_path / store.INDEX).write_text(json.dumps(index))
    with pytest.raises(UserError, match="places tensors in '../model-00001.*', which is not a file of its own directory"):
        store.load(tmp_path)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match="pytorch_model.bin is a pickle, which is never loaded.*vlmjax convert --model=.*pytorch_model.bin --to=DIR"):
        store.load(tmp_path / "old")
