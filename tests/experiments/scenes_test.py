"""The model of drawn scenes: two steps of each stage, and its diagnosis."""
import json

import pytest

from vlmjax.__main__ import main


@pytest.mark.slow
def test_trained_and_diagnosed(tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["train", "--config=experiments/scenes.py:tiny", f"--workdir={run}"]) == 0, capsys.readouterr().err
    assert json.loads((run / "results.json").read_text())["scenes_exists"]["real"]["sets"]["n"] == 6
    capsys.readouterr()
    assert main(["diagnose", f"--model={run}", "--suites=exists,where", "--split=comp", "--sample=8", f"--output={run}/comp"]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    found = json.loads((run / "comp" / "diagnosis.json").read_text())
    assert list(found) == ["exists", "where"] and found["where"]["scores"]["real"]["sets"]["n"] == 2 and set(found["exists"]["scores"]) == {"real", "blind", "shuffled", "unparsed"}
    page = (run / "comp" / "diagnosis.html").read_text()
    assert "What is there" in page and "Small things" not in page and "data:image/png" in page and str(run / "comp" / "diagnosis.html") in said
    (run / "comp" / "diagnosis.html").unlink()
    assert main(["diagnose", f"--model={run}", "--suites=exists,where", "--split=comp", "--rescore", f"--output={run}/comp"]) == 0
    assert (run / "comp" / "diagnosis.html").read_text() == page
