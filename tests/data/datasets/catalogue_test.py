"""What `vlmjax data sources` says agrees with the recipes, and with what lies there."""
import importlib.util
import pathlib
import zipfile

import pytest

from vlmjax.__main__ import main
from vlmjax.commands.common import open_source
from vlmjax.data.datasets import catalogue, published
from vlmjax.data.datasets.catalogue import CATALOGUE
from vlmjax.errors import UserError

EXPERIMENTS = pathlib.Path(__file__).parents[3] / "experiments"


def said(capsys, *arguments) -> str:
    assert main(["data", "sources", *arguments]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("recipe", ["llava", "llava_1_5", "demo"])
def test_the_recipes_find_their_data_where_the_catalogue_says(recipe):
    spec = importlib.util.spec_from_file_location(recipe, EXPERIMENTS / f"{recipe}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    known = {spec for entry in CATALOGUE.values() for spec in entry.specs}
    named = [spec for stage in module.get_config().stages.values() for spec, _ in stage.data]
    assert named and all(spec in known or spec.startswith("easy_vqa:") for spec in named), named


def test_every_stage_names_files_of_its_entry():
    for name, entry in CATALOGUE.items():
        places = {place for part in entry.parts for place in (part.path, part.folder) if place}
        for spec in entry.specs:
            if not spec.startswith("easy_vqa:"):
                file, folder = published.paths("", *spec.partition(":")[2].rsplit(":", 1))
                assert file.lstrip("/") in places, (name, spec)
                assert any(place == folder.lstrip("/") or place.startswith(f"{folder.lstrip('/')}/") for place in places), (name, spec)
        assert all(part.url.startswith("http") and part.size for part in entry.parts) and entry.licence and entry.page.startswith("http")


def test_a_line_for_each_source(tmp_path, capsys):
    lines = said(capsys, f"--data_dir={tmp_path}").splitlines()
    assert [line.split()[0] for line in lines] == list(CATALOGUE)
    assert "7 of 7 missing" in lines[1] and "665,298 conversations" in lines[1]


def test_what_is_there_and_what_is_missing(tmp_path, capsys):
    root = tmp_path / "LLaVA-Finetune"
    (root / "images" / "coco" / "train2017").mkdir(parents=True)
    with zipfile.ZipFile(root / "images" / "coco" / "train2017.zip", "w"), zipfile.ZipFile(root / "images" / "coco" / "x.zip", "w"):
        pass
    (root / "images" / "gqa").mkdir()
    (root / "images" / "gqa" / "images.zip").write_bytes(b"")
    out = said(capsys, "llava-665k", f"--data_dir={tmp_path}")
    assert f"under {tmp_path} (5 of 7 missing)" in out
    assert "present  LLaVA-Finetune/images/coco/train2017  18 GB  http://images.cocodataset.org/zips/train2017.zip" in out
    assert "packed   LLaVA-Finetune/images/gqa/images  20.3 GB" in out and "read from its archive, LLaVA-Finetune/images/gqa/images.zip\n" in out
    assert "missing  LLaVA-Finetune/images/ocr_vqa/images  size not stated" in out
    assert "or leave the archive as it is in LLaVA-Finetune/images/vg/images2.zip\n" in out
    assert "licence  hub: CC BY 4.0" in out and "stages   llava:LLaVA-Finetune/llava_v1_5_mix665k.json:LLaVA-Finetune/images" in out


def test_packed_archives_are_read_as_the_catalogue_says(tmp_path):
    """Each part that may stay packed: an image in its archive, under the folder that the archive holds, is found by the key that the data set has."""
    for name, entry in CATALOGUE.items():
        data_dir = tmp_path / name
        for part in entry.parts:
            if part.packed:
                (data_dir / part.packed).parent.mkdir(parents=True, exist_ok=True)
                inside = part.what.rpartition("holds ")[2] if "holds " in part.what else ""
                with zipfile.ZipFile(data_dir / part.packed, "w") as made:
                    made.writestr(f"{inside}1.jpg", part.path)
        for spec in entry.specs:
            kind, _, rest = spec.partition(":")
            if kind in ("llava", "coco") and (rest.endswith("LLaVA-Finetune/images") or ".zip" in rest):
                folder = published.open_folder(published.paths(data_dir, *rest.rsplit(":", 1))[1])
                for part in entry.parts:
                    if part.packed and (part.folder == rest.rsplit(":", 1)[1] or not part.folder):
                        assert folder.read(f"{part.path.removeprefix('LLaVA-Finetune/images/')}/1.jpg" if not part.folder else "1.jpg").decode() == part.path
                        assert part.state(str(data_dir)) == "packed"


def test_mistakes_are_one_line(tmp_path, capsys):
    with pytest.raises(UserError, match="no source 'llava-665'; did you mean 'llava-665k'"):
        catalogue.describe("llava-665", str(tmp_path))
    assert main(["data", "build"]) == 2
    assert "data: build needs the name of a data set" in capsys.readouterr().err
    with pytest.raises(UserError, match="there is no such file"):
        open_source(CATALOGUE["llava-665k"].specs[0], str(tmp_path), "test")
