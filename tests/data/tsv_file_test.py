import base64
import csv
import io
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmjax.data import tsv_file
from vlmjax.data.files_at import File
from vlmjax.errors import UserError

CELLS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=6)


def encoded(image: bytes) -> str:
    return base64.b64encode(image.ljust(60)).decode()


@given(st.lists(st.tuples(CELLS, CELLS, st.integers(0, 2)), min_size=1, max_size=5), st.integers(3, 90), st.booleans(), st.sampled_from(["\n", "\r\n"]))
def test_cells_and_images_are_what_was_written(rows, chunk, mark, end):
    """Whatever is in them, and wherever the pieces of the file end; rows with one image have one key."""
    out = io.StringIO(newline="")
    bare = any("\r" in a + b for a, b, _ in rows)  # which the writer leaves without quotes, and then ends a row
    table = csv.writer(out, csv.excel_tab, lineterminator=end, quoting=csv.QUOTE_ALL if bare else csv.QUOTE_MINIMAL)
    table.writerow(["index", "a", "image", "b"])
    for i, (a, b, k) in enumerate(rows):
        table.writerow([i, a, encoded(b"%d" % k), b])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tsv_file, "_CHUNK", chunk)
        found, images = tsv_file.read(File("x.tsv", b"\xef\xbb\xbf" * mark + out.getvalue().encode()), ("a", "b"))
    assert [(row["index"], row["a"], row["b"]) for row in found] == [(str(i), a, b) for i, (a, b, _) in enumerate(rows)]
    numbers = [k for _, _, k in rows]
    assert [row["image"] for row in found] == [str(numbers.index(k)) for k in numbers]
    assert [pickle.loads(pickle.dumps(images))(row["image"]) for row in found] == [(b"%d" % k).ljust(60) for k in numbers]


def test_an_image_may_be_another_rows():
    rows, images = tsv_file.read(File("x.tsv", f"index\timage\n5\t7\n7\t{encoded(b'a')}\n1000007\t7\n".encode()), ())
    assert [row["image"] for row in rows] == ["7", "7", "7"] and images("7").startswith(b"a")


@pytest.mark.parametrize("content, message", [
    ("", "x.tsv: is empty"), ("index\tA\n", "has no column 'image'; it has index, A"), ("index\timage\n", "has no column 'A'"), ("index\timage\tA\n1\tx\n", "row 0: has 2 cells, not 3"),
    (f"index\timage\tA\n1\t{encoded(b'a')}\tx\n1\t1\tx\n", "row 1: its index '1' is another row's too"), ("index\timage\tA\n1\t2\tx\n", "index 1: its image '2' is neither base64 nor the index of a row with an image"),
    ("index\timage\tA\n1\t1\tx\n", "index 1: its image '1' is neither"), (b"index\timage\tA\n\xff\t1\tx\n", "after byte 14: is not a table of UTF-8")])
def test_what_is_no_such_table_is_said(content, message):
    with pytest.raises(UserError, match=message):
        tsv_file.read(File("x.tsv", content if isinstance(content, bytes) else content.encode()), ("A",))


def test_a_bad_image_and_a_changed_file_are_said(tmp_path):
    path = tmp_path / "x.tsv"
    path.write_text(f"index\timage\n1\t{'*' * 80}\n2\t{encoded(b'a')}\n")
    _, images = tsv_file.read(File(str(path)), ())
    with pytest.raises(UserError, match="index 1: its image is not base64"):
        images("1")
    with pytest.raises(UserError, match="has no image '3'"):
        images("3")
    path.write_text("index\timage\n")
    with pytest.raises(UserError, match="has changed since it was opened"):
        images("2")
