import io
import multiprocessing
import pickle
import sys
import threading
import zipfile

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmjax.data import folders, zip_archive
from vlmjax.data.files_at import File
from vlmjax.errors import UserError

FILES = {"a.jpg": b"first", "deep/er/b.png": b"second" * 100, "deep/ü.jpg": b"third", "empty": b""}


def archive(files=FILES, prefix="", **how) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", **how) as made:
        for name, data in files.items():
            made.writestr(prefix + name, data)
    return content.getvalue()


@pytest.fixture(params=["folder", "stored", "deflated", "prefix", "memory://", "memory:// archive"])
def folder(request, tmp_path):
    """The same files in each kind of place."""
    place = tmp_path / "images.zip"
    if request.param == "folder":
        for name, data in FILES.items():
            (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "images" / name).write_bytes(data)
        return folders.open_folder(f"{tmp_path}/images")
    if request.param.startswith("memory"):
        fs, base = fsspec.filesystem("memory"), f"/{tmp_path.name}"
        for name, data in {"images.zip": archive()}.items() if "archive" in request.param else FILES.items():
            fs.pipe_file(f"{base}/{name}", data)
        return folders.open_folder(f"memory:/{base}/images.zip" if "archive" in request.param else f"memory:/{base}")
    place.write_bytes(archive(prefix="some/prefix/" if request.param == "prefix" else "", compression=zipfile.ZIP_STORED if request.param == "stored" else zipfile.ZIP_DEFLATED))
    return folders.open_folder(f"{place}/some/prefix" if request.param == "prefix" else str(place))


def test_every_kind_of_place_gives_the_same_bytes(folder):
    assert {name: folder.read(name) for name in FILES} == FILES
    assert folder.read("deep/./er/../er/b.png") == FILES["deep/er/b.png"]
    assert pickle.loads(pickle.dumps(folder)).read("a.jpg") == b"first"


@pytest.mark.parametrize("key", ["none.jpg", "deep", "../images/a.jpg", "deep/../../a.jpg", "/etc/passwd", "", ".", "..", "gs://bucket/a.jpg", "a\0.jpg", "line\nbreak.jpg"])
def test_a_key_that_leads_nowhere_is_one_line_that_names_folder_and_key(folder, key):
    with pytest.raises(UserError) as error:
        folder.read(key)
    message = str(error.value)
    assert "\n" not in message and folder.path.split("/some")[0] in message and repr(key)[1:-1] in message


def test_nothing_is_looked_for_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)  # as where it is not installed
    (tmp_path / "broken.zip").write_bytes(archive()[:-30])
    (tmp_path / "page.zip").write_bytes(b"<html>not found</html>")
    (tmp_path / "folder.zip").mkdir()
    (tmp_path / "folder.zip" / "a.jpg").write_bytes(b"here")
    for name, reason in (("none", "none/a.jpg: there is no such file"), ("none.zip", "none.zip: there is no such file"), ("none.zip/x", "none.zip: there is no such file"),
                         ("broken.zip", "broken.zip: is not a readable zip archive"), ("page.zip", "is the download complete")):
        folder = folders.open_folder(f"{tmp_path}/{name}")
        with pytest.raises(UserError, match=reason):
            folder.read("a.jpg")
    assert folders.open_folder(f"{tmp_path}/folder.zip").read("a.jpg") == b"here"
    for path in ("gs://bucket/images", "gs://bucket/images.zip", "nowhere://x"):
        with pytest.raises(UserError, match="cannot be read: (Please install gcsfs|Protocol not known)"):
            folders.open_folder(path).read("a.jpg")


@pytest.mark.parametrize("place", ["disk", "memory"])
def test_archives_in_a_folder_count_as_unpacked(tmp_path, place):
    """As the images of LLaVA's 665K are published: gqa/images.zip holds images/, vg/images.zip VG_100K/, vg/images2.zip VG_100K_2/."""
    made = {"gqa/images.zip": archive({"images/1.jpg": b"gqa"}), "vg/images.zip": archive({"VG_100K/1.jpg": b"vg"}), "vg/images2.zip": archive({"VG_100K_2/1.jpg": b"vg2"}),
            "top.zip": archive({"coco/train2017/1.jpg": b"coco", "gqa/images/1.jpg": b"farther"}), "coco/train2017/2.jpg": b"a file", "vg/VG_100K/1.jpg": b"a file first"}
    fs, base = (fsspec.filesystem("memory"), f"memory://{tmp_path.name}") if place == "memory" else (fsspec.filesystem("file", auto_mkdir=True), str(tmp_path))
    for name, data in made.items():
        fs.pipe_file(f"{base}/{name}", data)
    folder = folders.open_folder(base)
    assert [folder.read(key) for key in ("gqa/images/1.jpg", "vg/VG_100K/1.jpg", "vg/VG_100K_2/1.jpg", "coco/train2017/1.jpg", "coco/train2017/2.jpg")] == [b"gqa", b"a file first", b"vg2", b"coco", b"a file"]
    for key in ("gqa/images/2.jpg", "gqa/1.jpg", "ocr_vqa/images/1.jpg"):
        with pytest.raises(UserError, match=f"{key}: there is no such file"):
            folder.read(key)
    fs.pipe_file(f"{base}/textvqa/images.zip", archive()[:-9])
    with pytest.raises(UserError, match="textvqa/images.zip: is not a readable zip archive: .*is the download complete"):
        folder.read("textvqa/train_images/1.jpg")


def test_what_an_archive_holds_is_checked(tmp_path):
    place = tmp_path / "images.zip"
    whole = archive(compression=zipfile.ZIP_STORED)
    place.write_bytes(b"in front of it" + whole)
    folder = folders.open_folder(str(place))
    assert folder.read("a.jpg") == b"first"
    place.write_bytes(b"in front of it" + whole.replace(b"first", b"fIrst"))
    with pytest.raises(UserError, match="a.jpg': is damaged, or the archive has changed"):
        folder.read("a.jpg")
    (tmp_path / "bz2.zip").write_bytes(archive(compression=zipfile.ZIP_BZIP2))
    with pytest.raises(UserError, match="packed by method 12, not stored or deflated; unpack"):
        folders.open_folder(f"{tmp_path}/bz2.zip").read("a.jpg")
    secret = bytearray(whole)
    secret[whole.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "secret.zip").write_bytes(secret)
    with pytest.raises(UserError, match="a.jpg': is encrypted"):
        folders.open_folder(f"{tmp_path}/secret.zip").read("a.jpg")
    (tmp_path / "cut.zip").write_bytes(whole[whole.index(b"PK\1\2") + 7 :])
    with pytest.raises(UserError, match="its directory is cut short"):
        folders.open_folder(f"{tmp_path}/cut.zip").read("a.jpg")


def test_large_archives(tmp_path, monkeypatch):
    """More than 65,535 files, and offsets and sizes past 32 bits, as zipfile writes them when its limits are low."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 40)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)
    (tmp_path / "images.zip").write_bytes(archive())
    folder = folders.open_folder(f"{tmp_path}/images.zip")
    assert {name: folder.read(name) for name in FILES} == FILES


@given(st.dictionaries(st.text(st.characters(codec="utf-8", exclude_characters="/\\\0", exclude_categories=["C"]), min_size=1, max_size=9).filter(lambda name: name.strip(".")),
                       st.binary(max_size=300), max_size=8), st.booleans(), st.binary(max_size=50).filter(lambda comment: b"PK" not in comment))
def test_an_archive_reads_as_zipfile_reads_it(files, deflate, comment):
    content = io.BytesIO(archive(files, compression=zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED))
    with zipfile.ZipFile(content, "a") as made:
        made.comment = comment
    fsspec.filesystem("memory").pipe_file("/random.zip", content.getvalue())
    directory = zip_archive.Directory(File("memory://random.zip"))
    with zipfile.ZipFile(content) as made:
        assert {name: directory.read(name) for name in files} == {name: made.read(name) for name in files}


def test_threads_and_processes_share_one_folder(folder):
    wrong = []
    def many():
        wrong.extend(name for _ in range(50) for name, data in FILES.items() if folder.read(name) != data)

    threads = [threading.Thread(target=many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(folder.read, list(FILES), chunksize=1) == list(FILES.values())


def test_a_spawned_process_reads(tmp_path):
    (tmp_path / "images.zip").write_bytes(archive())
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(folders.open_folder(f"{tmp_path}/images.zip").read, list(FILES)) == list(FILES.values())
