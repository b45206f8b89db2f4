"""From bytes to text, vlmjax computes what transformers 5 computed (tests/golden, made by make.py there)."""
import functools
import pathlib
import re

import numpy as np
import pytest

from vlmjax import pretrained
from vlmjax.parity import golden, table

GOLDEN = pathlib.Path(__file__).parent.parent / "golden"
FAMILIES = ("clip", "llama", "mistral", "qwen2", "llava", "internvl", "internvl_chat", "blip-2")
DOCUMENT = pathlib.Path(pretrained.__file__).parent / "weights" / "README.md"


@functools.cache
def rows(family):
    return golden.compare(GOLDEN / family)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_stage_is_the_references(family):
    assert not [row for row in rows(family) if not row.ok], "\n" + table.text(rows(family))
    stages = {row.stage for row in rows(family)}
    assert {"tokens", "logits", "loss", "gradient"} <= stages and ({"pixels", "normalised", "vision_hidden"} <= stages or family in ("llama", "mistral", "qwen2"))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_table_in_the_documentation_is_of_these_rows(family):
    lines = [re.split(r" *\| *", line.strip("| \n")) for line in DOCUMENT.read_text().splitlines() if line.startswith(f"| {family} |")]
    assert [(line[1], int(line[2])) for line in lines] == [(row.stage, row.entries) for row in rows(family)]
    for line, row in zip(lines, rows(family)):
        assert line[3] == "identical" if row.bar == 0 else float(line[3].removeprefix("≤ ").replace("identical", "0")) <= row.bar


@pytest.mark.parametrize("path", ["encoder/layers/1/attention/k/kernel", "text_tower/position_embed", "contrast_head/logit_scale", "contrast_head/vision_norm/bias"])
def test_one_wrong_parameter_is_seen(path, monkeypatch):
    """The comparison can fail: a thousandth more in one leaf is many times the bar."""
    read = pretrained.Checkpoint.arrays
    monkeypatch.setattr(pretrained.Checkpoint, "arrays", lambda self: {k: np.asarray(v) * (1.001 if k == path else 1) for k, v in read(self).items()})
    assert "logits" in {row.stage for row in golden.compare(GOLDEN / "clip") if not row.ok}


def test_the_golden_files_stay_small():
    """Half a megabyte for all benchmarks' programs, and not much more than that for a family of models."""
    sizes = {file.relative_to(GOLDEN): file.stat().st_size for file in GOLDEN.rglob("*") if file.is_file() and file.parent.name != "__pycache__"}
    scorers = sum(size for file, size in sizes.items() if file.parts[0] == "scorers")
    assert scorers < 5e5 and sum(sizes.values()) - scorers < 5.5e6
