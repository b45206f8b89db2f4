"""`vlmjax diagnose`: what is asked, what is written, and what is refused; a trained model's is in tests/experiments/scenes_test.py."""
import json

import pytest

from tests.evaluate import diagnose_test, tiny
from vlmjax import pretrained
from vlmjax.__main__ import main
from vlmjax.commands import diagnose
from vlmjax.evaluate import runner, scoring
from vlmjax.evaluate.tasks import TASKS


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """A model that sees small things only when they are large; `score_all` is a stand-in that leaves its answers."""
    pretrained.save(tiny.model(), tmp_path / "m" / "model")

    def score(model, names, config, data_dir, output, job):
        for name in names:
            leave(name, config, output)

    def leave(name, config, output):
        def answer(item, control):
            return item.answer if control == "real" and ("detail" not in name or int(item.kind.split()[0]) > 4) else "I see a red dot" if "detail" in name else "yes"

        rows = diagnose_test.rows(TASKS[name], answer, config.controls, sets=12)
        runner.write(output, name, {**scoring.rescore(rows, TASKS[name]), "provenance": {"split": config.split}}, rows)

    monkeypatch.setattr(diagnose, "score_all", score)
    return tmp_path / "m"


def test_a_page_that_says_where_it_fails(saved, capsys):
    assert main(["diagnose", f"--model={saved}", "--suites=exists,detail"]) == 0
    said, found = capsys.readouterr().out, json.loads((saved / "diagnosis.json").read_text())
    assert list(found) == ["exists", "detail"] and str(saved / "diagnosis.html") in said and "scenes_detail       exact_match/2 px" in said
    levels = {name.split("/")[1]: score["value"] for name, score in found["detail"]["scores"]["real"].items() if "/" in name}
    assert levels == {"2 px": pytest.approx(1 / 6), "3 px": pytest.approx(1 / 6), "4 px": pytest.approx(1 / 6), "6 px": 1.0, "8 px": 1.0, "12 px": 1.0}
    assert found["detail"]["answers"]["blue"] == {"red": 6, "blue": 6} and found["exists"]["seen"] == 1.0
    page = (saved / "diagnosis.html").read_text()
    for text in ("What is there", "Small things", "What was said", "data:image/png;base64", "had by looking", "<script" ):
        assert (text in page) == (text != "<script"), text
    assert "How many" not in page
    assert main(["diagnose", f"--model={saved}", "--suites=count"]) == 0  # what is there stays on the page
    assert list(json.loads((saved / "diagnosis.json").read_text())) == ["exists", "count", "detail"]
    capsys.readouterr()
    page = (saved / "diagnosis.html").read_text()
    (saved / "diagnosis.html").unlink()
    assert main(["diagnose", f"--model={saved}", "--suites=exists,detail", "--rescore"]) == 0  # from stored answers
    assert (saved / "diagnosis.html").read_text() == page


def test_other_splits_have_a_directory_of_their_own(saved, capsys):
    assert main(["diagnose", f"--model={saved}", "--suites=exists"]) == 0 and main(["diagnose", f"--model={saved}", "--suites=exists", "--split=comp"]) == 0
    assert (saved / "diagnosis.json").exists() and (saved / "comp" / "diagnosis.json").exists()
    capsys.readouterr()
    assert main(["diagnose", f"--model={saved}", "--suites=exists", "--split=comp", "--rescore", f"--output={saved}"]) == 2
    assert "its answers to exists are of the split test; say --split=test" in capsys.readouterr().err


@pytest.mark.parametrize("flags, says", [(["--suites=exist"], "--suites: no suite 'exist'; did you mean 'exists'"), (["--split=train"], "--split: 'train' is neither test nor comp"),
                                         (["--suites=detail", "--split=comp"], "the split comp has none of detail"), (["--rescore"], "is missing; there is nothing to score again")])
def test_mistakes_are_one_line(saved, capsys, flags, says):
    assert main(["diagnose", f"--model={saved}", *flags]) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1


def test_a_model_that_is_no_directory_needs_an_output(saved, tmp_path, capsys):
    (tmp_path / "m.gguf").write_text("")
    for model in (tmp_path / "m.gguf", "hf://org/name"):
        for split in ("test", "comp"):
            assert main(["diagnose", f"--model={model}", f"--split={split}"]) == 2
            assert "--output: say where results go" in capsys.readouterr().err
