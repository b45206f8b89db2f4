"""Intervals of ablations: what they cover, and what they are made of."""
import json

import numpy as np
import pytest

from vlmjax import ablate
from vlmjax.errors import UserError


def run(tmp_path, name, seed, scores, controls=("real",), data="d", images=2, kinds=("shape", "color"), **about):
    """A finished run's directory: each question's score under each control."""
    workdir = tmp_path / name / str(seed)
    (workdir / "predictions").mkdir(parents=True)
    rows = [{"id": f"q{i}", "image": f"i{i // images}", "question": "?", "answer": "a", "kind": kinds[i % len(kinds)] if kinds else "", "control": control, "prediction": "a", "correct": float(x)}
            for control in controls for i, x in enumerate(scores)]
    (workdir / "predictions" / "task.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (workdir / "results.json").write_text(json.dumps({"task": {**{c: {"exact_match": {}} for c in controls}, "unparsed": {}, "provenance": {"data": data}}}))
    (workdir / "record.json").write_text(json.dumps({"wall_seconds": 1.0, "git_commit": "c", "devices": {}, "versions": {}, "mesh": {}, **about}))
    return ablate.read(workdir, seed)


def test_intervals_cover_the_truth_as_often_as_they_say():
    """Differences of two rows over 40 images of 3 questions and 4 seeds, with effects of the image, of the question, of the seed and of all at once: of 400 drawn anew, 95 % or more."""
    rng, truth, covered, R, C, per = np.random.default_rng(0), 0.3, 0, 4, 40, 3
    clusters = np.repeat([f"i{c}" for c in range(C)], per)
    for _ in range(400):
        values = truth + np.repeat(rng.normal(0, 0.5, C), per) + rng.normal(0, 0.5, C * per) + rng.normal(0, 0.1, (R, 1)) + rng.normal(0, 0.5, (R, C * per))
        found = ablate.interval(values, clusters)
        covered += found["low"] <= truth <= found["high"]
    assert 0.945 <= covered / 400


@pytest.mark.parametrize("R, C, question, seed, rest", [(2, 100, 0.1, 0.1, 0.1), (3, 100, 0.1, 0.1, 0.1), (3, 200, 0.3, 0.05, 0.3)])
def test_they_do_where_few_seeds_make_the_most_of_it(R, C, question, seed, rest):
    """Two runs that happen to be alike are not taken for a proof that seeds do not matter."""
    rng, clusters, covered = np.random.default_rng(1), np.arange(C).astype(str), 0
    for _ in range(400):
        found = ablate.interval(rng.normal(0, question, C) + rng.normal(0, seed, (R, 1)) + rng.normal(0, rest, (R, C)), clusters)
        covered += found["low"] <= 0 <= found["high"]
    assert covered / 400 >= 0.94


def test_of_what_does_not_differ_at_all_there_is_no_interval():
    found = ablate.interval(np.zeros((2, 50)), np.arange(50).astype(str), 0.0)
    assert found["value"] == 0 and found["low"] is None and found["high"] is None


def test_of_one_seed_the_interval_is_that_of_the_questions():
    values, clusters = np.array([[1.0, 0, 1, 1]]), np.array(list("aabb"))
    found = ablate.interval(values, clusters)
    assert found["seeds"] is None and found["stderr"] == found["questions"] and found["runs"] == [0.75]
    assert found["high"] - found["value"] == pytest.approx(12.706 * found["stderr"], rel=1e-4)  # Student's of one degree of freedom: two images
    assert ablate.interval(values, clusters, 0.0)["high"] == 1.0 and ablate.interval(values, clusters, 0.0)["low"] == 0.0
    assert ablate.interval(np.array([[1.0]]), np.array(["a"]))["low"] is None  # of one question, too, nothing is known


def test_a_difference_is_paired_by_question_and_seed(tmp_path):
    """Hard questions and bad seeds are common to both rows: the difference knows exactly what the scores do not."""
    rng = np.random.default_rng(1)
    hard = {seed: rng.random(60) < 0.5 for seed in range(3)}
    base = [run(tmp_path, "base", seed, 0.5 * hard[seed]) for seed in hard]
    other = [run(tmp_path, "other", seed, 0.5 * hard[seed] + 0.25 + rng.normal(0, 1e-4, 60)) for seed in hard]
    cells = ablate.table({"base": base, "other": other})["task"]["real"]["exact_match"]
    assert cells["base"]["difference"] is None and cells["other"]["score"]["high"] - cells["other"]["score"]["low"] > 0.05
    assert cells["other"]["difference"]["value"] == pytest.approx(0.25, abs=1e-3) and 0 < cells["other"]["difference"]["high"] - cells["other"]["difference"]["low"] < 1e-3


def test_kinds_controls_and_missing_seeds(tmp_path):
    base = [run(tmp_path, "base", seed, [1, 0, 1, 0], ("real", "blind")) for seed in range(2)]
    other = [run(tmp_path, "other", seed, [1, 1, 0, 0]) for seed in (1, 2)]
    tables = ablate.table({"base": base, "none": [], "other": other})
    kinds = tables["task"]["real"]
    assert {name: cells["base"]["score"]["value"] for name, cells in kinds.items()} == {"exact_match": 0.5, "exact_match/shape": 1.0, "exact_match/color": 0.0}
    assert kinds["exact_match/shape"]["other"]["difference"]["runs"] == [-0.5]  # the one seed that both have
    assert list(tables["task"]["blind"]["exact_match"]) == ["base"]
    text = ablate.markdown(tables, ["base", "none", "other"], {"none": "status 2"})
    assert "| none | 0 | status 2 | – | – |" in text and "| other | 2 | 50.0 [" in text and "against base" in text


def test_a_difference_that_is_not_0_is_bold(tmp_path):
    rows = {"base": [run(tmp_path, "base", s, [0, 1] * 10) for s in range(2)], "sa|me": [run(tmp_path, "same", s, [1, 0, 0, 1] * 5) for s in range(2)],
            "all": [run(tmp_path, "all", s, [1, 1] * 9 + [1, 0]) for s in range(2)]}
    lines = ablate.markdown(ablate.table(rows), list(rows), {}).splitlines()
    assert [line for line in lines if line.startswith("| all |")][0].split(" | ")[3].startswith("**+45.0 [+")
    assert "**" not in [line for line in lines if line.startswith("| sa\\|me |")][0]


def test_runs_that_were_asked_otherwise_are_not_compared(tmp_path):
    with pytest.raises(UserError, match="task asked other questions than in .*base"):
        ablate.table({"base": [run(tmp_path, "base", 0, [1, 0])], "other": [run(tmp_path, "other", 0, [1, 0], data="e")]})


def test_what_runs_do_not_have_in_common_is_found(tmp_path):
    runs = [run(tmp_path, "a", 0, [1, 0]), run(tmp_path, "b", 0, [1, 0], git_commit="d")]
    assert ablate.unlike(runs) == {"git_commit": ["c", "d"]} and ablate.unlike(runs[:1]) == {}


def test_a_run_that_has_not_ended_is_none(tmp_path):
    assert ablate.read(tmp_path, 0) is None
    (tmp_path / "record.json").write_text('{"stages": []}')
    assert ablate.read(tmp_path, 0) is None
