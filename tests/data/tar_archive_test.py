import io
import tarfile

import fsspec
import numpy as np
import pytest

from vlmjax.data import tar_archive
from vlmjax.data.files_at import File
from vlmjax.errors import UserError

LONG = "deep/" * 30 + "x" * 120 + ".jpg"
FILES = {"a.jpg": b"first" * 300, "./dir/b.json": b"{}", "ü.jpg": b"", LONG: b"long", "dir/" + "y" * 95 + ".txt": b"prefix", "last.txt": b"z" * 512}


def tar(files=FILES, format=tarfile.GNU_FORMAT, mode="w") -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=mode, format=format) as made:
        for name, data in files.items() if isinstance(files, dict) else files:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 0.5 if format == tarfile.PAX_FORMAT else 0
            made.addfile(info, io.BytesIO(data))
            link = tarfile.TarInfo("link.jpg")
            link.type, link.linkname, link.size = tarfile.LNKTYPE, name if format != tarfile.USTAR_FORMAT else "a", 700  # a size, and no content behind it
            made.addfile(link)
    return content.getvalue()


def written(tmp_path, content: bytes) -> File:
    (tmp_path / "x.tar").write_bytes(content)
    return File(f"{tmp_path}/x.tar")


def scanned(file: File):
    return list(tar_archive.members(file, lambda name: True))


@pytest.mark.parametrize("chunk", [1, 600, 1 << 20])
@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_members_are_those_that_were_put_in(tmp_path, format, chunk, monkeypatch):
    monkeypatch.setattr(tar_archive, "_CHUNK", chunk)
    files = {name: data for name, data in FILES.items() if format != tarfile.USTAR_FORMAT or name != LONG}
    file = written(tmp_path, tar(files, format))
    assert {member.name: member.content for member in scanned(file)} == files
    assert {member.name: tar_archive.read(file, member.start, member.size) for member in scanned(file)} == files
    assert [member.content for member in tar_archive.members(file, lambda name: name.endswith(".json"))] == [data if name.endswith(".json") else None for name, data in files.items()]


def test_a_size_may_be_written_in_bytes(tmp_path):
    """As GNU does above 8 GiB, and pax in its extended header."""
    made = bytearray(tar({"a.jpg": b"x" * 700}))
    made[124:136] = b"\x80" + (700).to_bytes(11)
    made[148:156] = b" " * 8
    made[148:156] = b"%06o\0 " % sum(made[:512])
    assert [(member.size, member.content) for member in scanned(written(tmp_path, made))] == [(700, b"x" * 700)]


def test_a_store_is_read_through(tmp_path):
    fsspec.filesystem("memory").pipe_file(f"/{tmp_path.name}/x.tar", tar())
    assert {member.name: member.content for member in scanned(File(f"memory://{tmp_path.name}/x.tar"))} == FILES


def test_an_archive_that_is_cut_gives_what_it_has_and_says_so(tmp_path):
    whole = tar({f"{n}.txt": b"x" * 700 for n in range(3)})
    starts = [member.start for member in scanned(written(tmp_path, whole))]
    for stop, count, reason in ((starts[1] - 20, 1, "ends inside a header"), (starts[1] - 512, 1, "has no end"), (starts[1] + 5, 1, "ends inside '1.txt'"), (starts[2] + 699, 2, "ends inside '2.txt'")):
        found = []
        with pytest.raises(tar_archive.Damaged, match=f"x.tar: {reason}"):
            for member in tar_archive.members(written(tmp_path, whole[:stop]), lambda name: False):
                found.append(member.name)
        assert found == [f"{n}.txt" for n in range(count)]


@pytest.mark.parametrize("content, message", [
    (tar(mode="w:gz"), r"is compressed \(gzip\)"), (tar(mode="w:bz2"), r"is compressed \(bzip2\)"), (tar(mode="w:xz"), r"is compressed \(xz\)"),
    (b"", "is not a tar archive"), (b"<html>" * 200, "is not a tar archive"), (b"x", "is not a tar archive"),
    (tar() + tar(), "goes on behind its end"), (tar()[:2048] + b"\1" * 512 + tar()[2560:], "is damaged at byte"),
])
def test_what_cannot_be_read_is_one_line(tmp_path, content, message):
    with pytest.raises(UserError, match=f"x.tar: {message}") as error:
        scanned(written(tmp_path, content))
    assert "\n" not in str(error.value)


def test_an_archive_that_has_changed_is_not_read(tmp_path):
    file = written(tmp_path, tar())
    member = scanned(file)[-1]
    for content in (tar({"a": b"y" * 9000}), b"short"):
        with pytest.raises(UserError, match="has changed since it was opened"):
            tar_archive.read(written(tmp_path, content), member.start, member.size)


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_damaged_bytes_are_one_line_or_still_members(tmp_path, format):
    whole, draw, refused = tar(format=format), np.random.default_rng(0), 0
    for n in range(400):
        damaged = bytearray(whole)
        start = int(draw.integers(len(whole) // 512)) * 512
        # Most in one header, whose sum is then put right, so that what it says is looked at.
        for at in draw.integers(0, 512, draw.integers(1, 4)):
            damaged[start + at] = draw.integers(256)
        if n % 2:
            damaged[start + 148 : start + 156] = b" " * 8
            damaged[start + 148 : start + 156] = b"%06o\0 " % sum(damaged[start : start + 512])
        file = written(tmp_path, damaged)
        try:
            for member in scanned(file):
                assert tar_archive.read(file, member.start, member.size) == member.content
        except UserError as error:
            assert "\n" not in str(error)
            refused += 1
    assert 40 < refused < 400
