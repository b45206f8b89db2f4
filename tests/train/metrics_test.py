"""Metrics as files: what was cut or changed is named."""
import pytest

from vlmjax.errors import UserError
from vlmjax.train import metrics


@pytest.mark.parametrize("line", [b'{"step": 1, "lo', b"[1]", b'{"loss": 1.0}', b"", b"\xff"])
def test_a_part_with_a_line_that_is_no_row_is_named_in_one_line(tmp_path, line):
    (tmp_path / "metrics").mkdir()
    part = tmp_path / "metrics" / "align-000.jsonl"
    part.write_bytes(b'{"step": 0, "loss": 1.0}\n' + line + b"\n")
    with pytest.raises(UserError, match=f"{part}: (line 2 is no row of metrics|cannot be read: .*decode)") as error:
        metrics.read(tmp_path, "align")
    assert "\n" not in str(error.value)
