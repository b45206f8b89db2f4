"""What a run writes beside its checkpoints, in a store that neither appends nor renames (Orbax writes its own)."""
import json
import sys

import pytest
from etils import epath
from etils.epath.backend import fsspec_backend
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

from tests.evaluate import tiny as evaluate_tiny
from tests.train import tiny
from vlmjax import files
from vlmjax.data.pipeline import Fault
from vlmjax.errors import UserError
from vlmjax.evaluate import runner
from vlmjax.evaluate.answers import Answers
from vlmjax.train import metrics, record
from vlmjax.train.quarantine import Quarantine


class Store(MemoryFileSystem):
    """As gs:// behaves: objects are written whole."""

    protocol = ("gcs", "gs")
    store, pseudo_dirs = {}, [""]

    @classmethod
    def _strip_protocol(cls, path):
        return "/" + str(path).removeprefix("gs://").strip("/")

    def _open(self, path, mode="rb", **kwargs):
        if "a" in mode or "+" in mode:
            raise NotImplementedError(f"append to {path}")
        if "w" in mode:  # a store has no directories
            self.makedirs(path.rpartition("/")[0], exist_ok=True)
        return super()._open(path, mode, **kwargs)

    def mv(self, *paths, **kwargs):
        raise NotImplementedError(f"rename {paths}")

    mv_file = move = rename = cp_file = mv


@pytest.fixture
def store(monkeypatch):
    monkeypatch.setitem(_registry, "gcs", Store)
    fsspec_backend._get_filesystem.cache_clear()
    Store.store.clear()
    return epath.Path("gs://bucket/run")


def test_the_store_refuses(store):
    (store / "a").write_text("1")
    for refused in (lambda: (store / "a").rename(store / "b"), lambda: (store / "a").open("a").write("2")):
        with pytest.raises(NotImplementedError):
            refused()


def test_json_and_a_free_directory(store):
    files.check_writable(store)
    files.write_json(store / "config.json", {"a": 1})
    files.write_json(store / "config.json", {"a": 2})
    assert files.read_json(store / "config.json") == {"a": 2} and files.read_json(store / "none.json", 3) == 3


def test_metrics_grow_by_parts_and_events_are_copied(store):
    for steps in ((0, 1), (1, 2)):
        writer = metrics.Writer(store, "align", metrics.LoggingConfig())
        for step in steps:
            writer.add(step, {"loss": 10.0 * len(steps) + step})
            writer.flush()
        writer.close()
    assert [row["step"] for row in metrics.read(store, "align")] == [0, 1, 2]
    events = list((store / "events" / "align").iterdir())
    assert len(events) == 2 and all(b"loss" in path.read_bytes() for path in events)


def test_record_quarantine_and_evaluation(store):
    record.write(store, {"stages": []})
    assert record.read(store) == {"stages": []}
    found = Quarantine(store, "align")
    found.add(0, [Fault("e1", "empty file", 2)])
    found.settle()
    assert json.loads((store / "quarantine" / "align.json").read_text()) == {"e1": "empty file"}
    kept = Answers(store, "tiny", every=0.0)
    results, predictions = runner.evaluate(evaluate_tiny.oracle(), evaluate_tiny.TASK, "", kept=kept)
    assert list((store / "predictions" / "tiny.parts").iterdir())
    runner.write(store, "tiny", results, predictions, kept)
    assert runner.read_results(store)["tiny"] == json.loads(json.dumps(results)) and runner.read_predictions(store, "tiny") == predictions
    assert not (store / "predictions" / "tiny.parts").exists()


def test_a_stage_writes_to_a_store_what_it_writes_to_a_disk(store, tmp_path):
    stage = tiny.stage(steps=2)
    checkpoints = tiny.Checkpoints(tmp_path, "align")
    tiny.run(stage, store, checkpoints=checkpoints)
    assert [row["step"] for row in metrics.read(store, "align")] == [0, 1]


def test_a_store_whose_package_is_missing_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)  # as where it is not installed
    fsspec_backend._get_filesystem.cache_clear()
    with pytest.raises(UserError, match=r"gs://bucket/run: Please install gcsfs .* \(pip install 'vlmjax\[tpu\]'"):
        files.check_writable("gs://bucket/run")
