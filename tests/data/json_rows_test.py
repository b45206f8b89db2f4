import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmjax.data import json_rows
from vlmjax.data.files_at import File
from vlmjax.errors import UserError

VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=6)


def rows(file: File) -> list:
    kept = json_rows.Rows(file)
    for start, raw in json_rows.scan(file):
        kept.append(start, raw)
    return [kept[i] for i in range(len(kept))]


@given(st.lists(VALUES, max_size=6), st.booleans(), st.sampled_from([None, 1]), st.integers(3, 30), st.booleans())
def test_rows_are_what_json_reads(values, escaped, indent, chunk, mark):
    """Whatever the file's spelling, and wherever its pieces end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_rows, "_CHUNK", chunk)
        bom = b"\xef\xbb\xbf" if mark else b""
        assert rows(File("x.json", bom + json.dumps(values, ensure_ascii=escaped, indent=indent).encode(errors="surrogatepass"))) == values
        lines = b"\r\n".join(json.dumps(value, ensure_ascii=True).encode() for value in values)
        assert rows(File("x.jsonl", bom + lines)) == values


@pytest.mark.parametrize("content, message", [
    (b"", "is not JSON: Expecting value at byte 0"),
    (b"{", "is not JSON: Expecting property name enclosed in double quotes at byte 1"),
    (b'{"a": 1}', "is not a list"),
    (b"[1, 2", "is not JSON: the file ends after row 1, where a comma or the end of the list belongs"),
    (b'[{"a": 1}, {"b"', "is not JSON: row 1: Expecting ':' delimiter at byte 15"),
    (b"[1 2]", "is not JSON: '2' after row 0"),
    (b"[1,]", "is not JSON: row 1: Expecting value at byte 3"),
    (b"[1] [2]", "is not JSON: goes on after its list of 1 rows"),
    (b"[" * 100_000, "is not JSON: row 0: is nested too deeply"),
])
def test_a_broken_list_says_where(content, message):
    with pytest.raises(UserError) as error:
        list(json_rows.scan(File("x.json", content)))
    assert f"x.json: {message}" in str(error.value) and "\n" not in str(error.value)


def test_a_broken_line_is_a_row_like_others():
    found = [raw for _, raw in json_rows.scan(File("x.jsonl", b'{"a": 1}\n\n  \nnot json\n{"b": 2}'))]
    assert found == [b'{"a": 1}', b"not json", b'{"b": 2}']


def test_a_file_that_changes_is_noticed(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n{"a": 2}\n')
    file = File(f"{tmp_path}/x.jsonl")
    kept = json_rows.Rows(file)
    for start, raw in json_rows.scan(file):
        kept.append(start, raw)
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n{"a": 3}\n')
    assert kept[0] == {"a": 1}
    with pytest.raises(UserError, match="x.jsonl: has changed since it was opened"):
        kept[1]
