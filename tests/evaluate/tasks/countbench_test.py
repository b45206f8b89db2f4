import pickle

import pyarrow
import pytest
from pyarrow import parquet

from tests.evaluate.tasks import standins
from vlmjax.errors import UserError
from vlmjax.evaluate.tasks import countbench


def table(tmp_path, numbers, **columns):
    """The publisher's columns, in row groups of three; the caption of each row states its number."""
    rows = {"image": [{"bytes": standins.picture(tmp_path / f"{i}.jpg", i), "path": f"{i}.jpg"} for i in range(len(numbers))], "text": [f"A set of {n} spoons" for n in numbers],
            "question": [f"How many {'spoons' if i % 2 else 'chairs'} are there?" for i in range(len(numbers))], "number": pyarrow.array(numbers, pyarrow.int32())} | columns
    path = tmp_path / countbench.SPLITS["test"]
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table({name: column for name, column in rows.items() if column is not None}), path, row_group_size=3)


def test_a_model_is_scored_with_its_files_and_never_sees_a_caption(tmp_path):
    table(tmp_path, [2, 10, 3, 2, 7])
    results, predictions = standins.scored("countbench", tmp_path)
    assert set(results["real"]) == {"accuracy", "accuracy/2", "accuracy/10", "accuracy/3", "accuracy/7", "off_by_one", "mae", "rmse"} and results["real"]["accuracy/2"]["n"] == 2
    assert [(row["id"], row["answer"], row["kind"]) for row in predictions[:5]] == [(str(i), n, n) for i, n in enumerate(("2", "10", "3", "2", "7"))]
    assert predictions[1]["question"] == "How many spoons are there?\nAnswer the question using a single word or phrase." and not any("set of" in str(row) for row in predictions)
    source, _ = countbench.COUNTBENCH.read(str(tmp_path))
    assert [pickle.loads(pickle.dumps(source.reader))(str(i)) for i in range(5)] == [(tmp_path / f"{i}.jpg").read_bytes() for i in range(5)]


def test_what_is_missing_or_wrong_is_said(tmp_path):
    with pytest.raises(UserError, match="^countbench: .*parquet: .*; what it needs is told by: vlmjax data sources countbench$"):
        countbench.COUNTBENCH.read(str(tmp_path))
    table(tmp_path, [2], number=None)
    with pytest.raises(UserError, match="parquet: has no column 'number'"):
        countbench.COUNTBENCH.read(str(tmp_path))
    table(tmp_path, [2, None])
    with pytest.raises(UserError, match=r"parquet\[1\]: the answer None is no number of objects"):
        countbench.COUNTBENCH.read(str(tmp_path))
    table(tmp_path, [2, 3], question=["How many?", None])
    with pytest.raises(UserError, match=r"parquet\[1\]: the question None is no text"):
        countbench.COUNTBENCH.read(str(tmp_path))
    table(tmp_path, [2, 3], image=[{"bytes": b"x", "path": "a"}, None])
    with pytest.raises(UserError, match="parquet: row 1: its image holds no bytes"):
        countbench.COUNTBENCH.read(str(tmp_path))[0].read_image("1")
