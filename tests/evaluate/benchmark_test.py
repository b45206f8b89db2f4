import zipfile

import pytest

from tests.evaluate.tasks import standins
from vlmjax.errors import UserError
from vlmjax.evaluate import benchmark


def test_images_lie_in_a_folder_or_in_its_archive(tmp_path):
    for folder in ("pope/val2014", "val2014"):
        held = standins.picture(tmp_path / folder / "a.jpg", 0)
        assert benchmark.images("pope", str(tmp_path), folder).read_image("a.jpg") == held
        with zipfile.ZipFile(tmp_path / f"{folder}.zip", "w") as archive:
            archive.write(tmp_path / folder / "a.jpg", "val2014/a.jpg")
        (tmp_path / folder / "a.jpg").unlink()
        assert benchmark.images("pope", str(tmp_path), folder).read_image("a.jpg") == held
        with pytest.raises(UserError, match="val2014.*b.jpg"):
            benchmark.images("pope", str(tmp_path), folder).read_image("b.jpg")


def test_rows_are_a_list_or_lines_whatever_the_name(tmp_path):
    standins.write(tmp_path / "list.json", ' [{"a": 1},\n {"a": 2}]')
    standins.write(tmp_path / "lines.json", '{"a": 1}\n\n{"a": 2}\n')
    expected = [({"a": 1}), ({"a": 2})]
    assert [row for _, row in benchmark.rows(str(tmp_path), "list.json", need=["a"])] == [row for _, row in benchmark.rows(str(tmp_path), "lines.json", need=["a"])] == expected
    for text, said in (('{"b": 1}', r"x.json\[0\]: has no 'a'"), ('{"a": 1}\n7', r"x.json\[1\]: is 7, not an object"), ('{"a": 1}\n{', r"x.json\[1\]: Expecting")):
        standins.write(tmp_path / "x.json", text)
        with pytest.raises(UserError, match=said):
            list(benchmark.rows(str(tmp_path), "x.json", need=["a"]))


def test_yes_has_precision_and_recall():
    rows = [{"id": str(i), "image": str(i), "answer": answer, "parsed": said} for i, (answer, said) in enumerate((("yes", "yes"), ("yes", None), ("no", "yes"), ("no", "no"), ("yes", "yes")))]
    found = {metric: score["value"] for metric, score in benchmark.of_yes(rows).items()}
    assert found == {"f1": pytest.approx(2 / 3), "precision": pytest.approx(2 / 3), "recall": pytest.approx(2 / 3), "yes": 0.6}


def test_what_a_row_holds_is_a_text_or_an_id_where_it_should_be():
    row = {"text": "a", "id": 7, "name": "b", "any": [None]}
    assert benchmark.fields("x[0]", row, ("text",), ("id", "name"), ("any",)) is row
    for key, value in (("text", 7), ("text", None), ("text", "\ud800"), ("id", 7.5), ("id", True), ("id", []), ("name", "\ud800")):
        with pytest.raises(UserError, match=rf"^x\[0\]: {key}: "):
            benchmark.fields("x[0]", row | {key: value}, ("text",), ("id", "name"), ("any",))
