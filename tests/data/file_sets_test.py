import fsspec
import pytest

from vlmjax.data import file_sets
from vlmjax.errors import UserError

NAMES = ("a(b,c)/s-00.tar", "a(b,c)/s-01.tar", "d/s-00.tar", "d/s-01.tar", "d/s-02.TAR", "d/x.txt", "d/[1].tar")


@pytest.fixture(params=["disk", "memory"])
def place(request, tmp_path):
    for name in NAMES:
        if request.param == "disk":
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(b"x")
        else:
            fsspec.filesystem("memory").pipe_file(f"/{tmp_path.name}/{name}", b"x")
    return str(tmp_path) if request.param == "disk" else f"memory://{tmp_path.name}"


@pytest.mark.parametrize("name, found", [
    ("d/s-00.tar", ["d/s-00.tar"]),
    ("d/[1].tar", ["d/[1].tar"]),
    ("d", ["d/[1].tar", "d/s-00.tar", "d/s-01.tar", "d/s-02.TAR"]),
    ("d/s-{00..01}.tar", ["d/s-00.tar", "d/s-01.tar"]),
    ("d/s-0{0..1}.tar", ["d/s-00.tar", "d/s-01.tar"]),
    ("{d,a(b,c)}/s-{01..01}.tar", None),
    ("d/{s-01,s-00}.tar", ["d/s-01.tar", "d/s-00.tar"]),
    ("a(b,c)/s-*.tar", ["a(b,c)/s-00.tar", "a(b,c)/s-01.tar"]),
    ("**/s-00.tar", ["a(b,c)/s-00.tar", "d/s-00.tar"]),
    ("d/s-0[0-1].tar", ["d/s-00.tar", "d/s-01.tar"]),
])
def test_a_name_of_files(place, name, found):
    if found is None:
        with pytest.raises(UserError, match="there is no such file"):
            file_sets.find(place, name, ".tar")
        return
    paths = file_sets.find(place, name, ".tar")
    assert [path.split(place.rsplit("/", 1)[-1] + "/")[1] for path in paths] == found
    assert file_sets.find("elsewhere", f"{place}/{name}", ".tar") == paths


@pytest.mark.parametrize("name, message", [
    ("none.tar", "none.tar: there is no such file"),
    ("d/s-{00..05}.tar", "s-02.tar: there is no such file"),
    ("x-*.tar", r"x-\*.tar: there is no such file"),
    ("d/s-{1..00}.tar", "is not a range of numbers"),
    ("d/s-{5..1}.tar", "is not a range of numbers"),
    ("d/{000..999}{000..999}{0..9}", "stands for more than 1,000,000 files"),
    ("d/{s-00,s-00}.tar", "names .*s-00.tar more than once"),
])
def test_mistakes_are_one_line(place, name, message):
    with pytest.raises(UserError, match=message) as error:
        file_sets.find(place, name, ".tar")
    assert "\n" not in str(error.value)


def test_a_folder_of_folders_is_named_otherwise(place):
    with pytest.raises(UserError, match=r"holds no file .parquet itself; of folders inside it, name .*/d/\*\*/\*.parquet"):
        file_sets.find(place, "d/", ".parquet")


def test_labels_tell_files_apart():
    assert file_sets.labels(["/x/ab/1.tar", "/x/ac/1.tar"]) == ["ab/1", "ac/1"]
    assert file_sets.labels(["gs://x/y/s.1.tar", "gs://x/y/s.2.tar"]) == ["s.1", "s.2"]
    assert file_sets.labels(["/x/1.tar"]) == ["1"]
