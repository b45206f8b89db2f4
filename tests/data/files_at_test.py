import sys

import fsspec
import pytest

from vlmjax.data import files_at
from vlmjax.data.files_at import File
from vlmjax.errors import UserError


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("place", ["disk", "memory"])
def test_parts_of_a_file(tmp_path, place, held):
    (tmp_path / "x").write_bytes(b"0123456789")
    fsspec.filesystem("memory").pipe_file(f"/{tmp_path.name}/x", b"0123456789")
    file = File(f"{tmp_path}/x" if place == "disk" else f"memory://{tmp_path.name}/x")
    assert file.exists() and file.size() == 10 and file.name == "x"
    file = file.held() if held else file
    assert (file.content is not None) == (held and place == "memory")
    assert [file.read(), file.read(3), file.read(3, 5), file.read(8, 20), file.read(4, 4)] == [b"0123456789", b"3456789", b"34", b"89", b""]


def test_what_keeps_a_file_from_being_read_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)  # as where it is not installed
    assert not File(f"{tmp_path}/none").exists() and not File("memory://none").exists()
    for path, message in ((f"{tmp_path}/none", "none: there is no such file"), ("memory://none", "none: there is no such file"), (str(tmp_path), "cannot be read: Is a directory"),
                          ("gs://bucket/x", "gs://bucket/x: cannot be read: Please install gcsfs"), ("nowhere://x", "cannot be read: Protocol not known"),
                          (f"{tmp_path}/two\nlines", r"two\\nlines': there is no such file"), (f"{tmp_path}/{'x' * 300}", "cannot be read: File name too long")):
        with pytest.raises(UserError, match=message) as error:
            File(path).read()
        assert "\n" not in str(error.value)


def test_join():
    assert files_at.join("/data", "a/b.json") == "/data/a/b.json"
    assert files_at.join("/data/", "/a/b.json") == "/a/b.json"
    assert files_at.join("gs://b/data", "a.json") == "gs://b/data/a.json"
    assert files_at.join("/data", "gs://b/a.json") == "gs://b/a.json"
