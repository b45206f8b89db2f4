"""The report is one page that opens without a network, says what the run proves and no more, and never trusts a text from data."""
import base64
import hashlib
import io
import json
import math
import random
import re

import pytest
from PIL import Image

from vlmjax import report
from vlmjax.errors import UserError
from vlmjax.report import charts, gallery, heat, numbers, run, scores

PARAMETERS = {"encoder": 214_336, "text_tower": 107_840, "contrast_head": 8_449, "decoder": 235_072, "projector": 8_320}
STAGES = {   # name: objective, steps, trainable, frozen, first and last loss, seconds
    "contrast": ("contrastive", 420, ("encoder", "text_tower", "contrast_head"), (), 5.1, 0.62, 85.2),
    "language": ("next_token", 500, ("decoder",), (), 3.9, 0.31, 43.1),
    "align": ("next_token", 120, ("projector",), ("encoder", "decoder"), 2.8, 0.09, 11.4),
    "instruct": ("next_token", 560, ("projector", "decoder"), ("encoder",), 1.4, 0.012, 61.0),
}
ITEMS = [("0", "what color is the shape?", "red", "color"), ("0", "is there a circle?", "yes", "presence"),
         ("1", "is there not a circle?", "yes", "absence"), ("1", "what shape is in the image?", "square", "shape"),
         ("2", "is there a circle?", "no", "presence"), ("2", "what color is the shape?", "blue", "color")]
SCORES = {"prior": (0.670, 0.62, 0.64, 0.31, 0.24), "blind": (0.652, 0.66, 0.65, 0.34, 0.17),
          "shuffled": (0.571, 0.59, 0.60, 0.33, 0.12), "real": (0.9886, 0.994, 0.987, 0.961, 0.999)}
KINDS = ("presence", "absence", "shape", "color")


def png(size: int = 64, color: str = "red") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (size, size), color).save(file, "PNG")
    return file.getvalue()


def stage_record(name: str) -> dict:
    objective, steps, trainable, frozen, first, last, seconds = STAGES[name]
    sha = hashlib.sha256(name.encode()).hexdigest() if frozen else None
    return {"name": name, "objective": objective, "steps": steps, "examples": steps * 128, "supervised_tokens": steps * 300,
            "trainable": {part: PARAMETERS[part] for part in trainable}, "frozen": {part: PARAMETERS[part] for part in frozen},
            "frozen_sha256": {"before": sha, "after": sha}, "optimizer_bytes": {part: 8 * PARAMETERS[part] for part in trainable},
            "flops_per_step": 8.1e9, "recompiles": 0, "quarantined": 0, "loss": {"first": first, "last": last}, "seconds": seconds,
            "examples_per_step": 128, "step_seconds": 0.06123, "tokens_per_second": 43210.0, "tflops_per_device": 81.25, "mfu": 0.4124, "data_wait_share": 0.071, "hbm_peak": 3 * 2**29,
            "flops_convention": "causal attention counts half"}


def write_lines(path, rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_metrics(root, name: str) -> None:
    """Two parts that overlap, as after a run that was killed: the second one's values count."""
    objective, steps, trainable, _, first, last, _ = STAGES[name]
    draw = random.Random(name)
    rows = []
    for step in range(1, steps + 1):
        loss = (last + (first - last) * math.exp(-5 * step / steps)) * math.exp(draw.gauss(0, 0.09))
        rows.append({"step": step, "loss": loss, "lr": 1e-3, "examples_per_second": 2100.0, "step_seconds": 0.0625, "tokens_per_second": 43210.0, "data_wait_share": 0.01,
                     **{f"grad_norm/{part}": (0.2 + loss) * math.exp(draw.gauss(0, 0.25)) / (1 + i) for i, part in enumerate(trainable)},
                     **{f"param_norm/{part}": 30.0 for part in trainable}, **{f"update_norm/{part}": 0.01 for part in trainable},
                     **({"accuracy": 1 - math.exp(-4 * step / steps) + draw.gauss(0, 0.02)} if objective == "contrastive" else {})})
    cut, again = steps // 2, steps // 2 - 10
    write_lines(root / f"metrics/{name}-000.jsonl", [*rows[:again], *({**row, "loss": 77.0} for row in rows[again:cut])])
    write_lines(root / f"metrics/{name}-001.jsonl", rows[again:])


def predictions(items) -> list[dict]:
    rows, draw = [], random.Random(0)
    others = {kind: sorted({answer for _, _, answer, of in items if of == kind}) for kind in KINDS}
    for control in ("real", "blind", "shuffled"):
        for i, (image, question, answer, kind) in enumerate(items):
            right = i % 5 != 0 if control == "real" else draw.random() < 0.6
            said = answer if right else draw.choice([other for other in others[kind] if other != answer] or ["maybe"])
            rows.append({"id": f"easy_vqa/test/{image}/{i}", "image": image, "question": question, "answer": answer, "prediction": said,
                         "correct": said == answer, "control": control, "kind": kind})
    return rows


def fabricate(root, items=tuple(ITEMS), stages=tuple(STAGES), evaluated: bool = True):
    """A finished run of four stages with an evaluation, without the machinery that makes one."""
    root.mkdir(parents=True, exist_ok=True)
    fingerprint = hashlib.sha256(b"config").hexdigest()
    (root / "config.json").write_text(json.dumps({
        "fingerprint": fingerprint, "config": {"seed": 0, "run": list(STAGES)},
        "differences": {"stages.align.steps": [100, 120], "stages.instruct.optimizer.lr": [1e-3, 2e-3], "run": [["align"], list(STAGES)]}}))
    (root / "record.json").write_text(json.dumps({
        "versions": {"python": "3.11.2", "jax": "0.10.2", "flax": "0.12.8"}, "devices": {"kind": "cpu", "count": 1, "processes": 1},
        "mesh": {"replica": 1, "fsdp": 1, "tensor": 1}, "fingerprint": fingerprint, "git_commit": "0123abc", "wall_seconds": 231.0,
        "stages": [stage_record(name) for name in stages]}))
    for name in stages:
        write_metrics(root, name)
    if evaluated:
        sizes = (9673, 3300, 3200, 1500, 1673)
        names = ("exact_match", *(f"exact_match/{kind}" for kind in KINDS))
        entry = {control: {name: {"value": value, "stderr": math.sqrt(value * (1 - value) / n), "n": n, "variant": "all"}
                           for name, value, n in zip(names, values, sizes)} for control, values in SCORES.items()}
        single = lambda metric, value: {"real": {metric: {"value": value, "stderr": 0.007, "n": 1000, "variant": "all"}}, "unparsed": 0,
                                        "provenance": {"data": "9f31c2"}}
        (root / "results.json").write_text(json.dumps({
            "easy_vqa": {**entry, "unparsed": {"real": 0, "blind": 2}, "provenance": {"data": "9f31c2", "split": "test", "commit": "0123abc"}},
            "easy_vqa_zero_shot": single("accuracy", 0.957), "easy_vqa_caption": single("exact_match", 0.949)}))
        write_lines(root / "predictions/easy_vqa.jsonl", predictions(items))
    return root


def change(path, edit) -> None:
    value = json.loads(path.read_text())
    edit(value)
    path.write_text(json.dumps(value))


def test_a_finished_run_is_one_page_with_everything_in_it(tmp_path):
    path = report.write(fabricate(tmp_path / "demo"), lambda task, key: png())
    page = path.read_text()
    assert str(path) == str(tmp_path / "demo" / "report.html") and not list((tmp_path / "demo").glob(".*.tmp"))
    for text in ("98.9", "31.9 points", "9,673", "0123abc", "214,336", "The hashes are equal", "Nothing is frozen in this stage",
                 "stages.align.steps", "4 stages finished", "1 min 25 s", "8.1 GFLOP", "easy_vqa_zero_shot", "95.7 %", "± 0.7",
                 "61.2 ms", "43,210", "81.2 TFLOP/s", "41.2 %", "causal attention counts half", "7.1 %", "1.5 GiB"):
        assert text in page, text
    for control in ("prior", "blind", "shuffled", "real"):
        assert f">{control}<" in page
    assert page.count("<svg") >= 9 and page.count("data:image/png;base64,") == len(ITEMS)
    assert not re.search(r"https?://|<script|<link|url\(", page)


def add_maps(root, falls, prediction=None, left_out=None):
    """Maps of the first right and the first wrong answer."""
    rows = [row for row in run.read(root).predictions["easy_vqa"] if row["control"] == "real"]
    shown = [next(row for row in rows if row["correct"] == right) for right in (False, True)]
    maps = [{"id": row["id"], "prediction": prediction or row["prediction"], "log_probability": -0.5, "all_replaced": -9.0, "falls": falls, "view": base64.b64encode(png()).decode()} for row in shown]
    (root / "maps").mkdir(exist_ok=True)
    (root / "maps/easy_vqa.json").write_text(json.dumps({"mean_of": 64, "left_out": left_out or {}, "maps": maps}))


def test_a_heat_map_has_a_cell_for_each_token(tmp_path):
    root = fabricate(tmp_path / "demo")
    add_maps(root, [[1.5, -0.25], [0.0, -0.001]])
    page = report.write(root).read_text()
    assert "2 × 2 tokens" in page and "over 64 images" in page and page.count('class="answer mapped') == 2
    # The greatest fall is the darkest, a rise has a colour of its own, and each cell says its number.
    assert page.count('class="fall" fill-opacity="0.85"') == 2 and page.count('class="rise" fill-opacity="0.14"') == 2
    assert page.count(">1.50</text>") == page.count(">-0.25</text>") == 2 and "-0.00<" not in page
    assert "60.7 %" in page and "13.5 % at worst" in page and "under 0.1 %" in page
    assert "could not be laid out" not in page
    add_maps(root, [[0.02] * 24] * 24, left_out={"easy_vqa/test/9/1": "<no token>"})
    page = report.write(root).read_text()
    assert "could not be laid out: easy_vqa/test/9/1 (&lt;no token&gt;)" in page
    assert page.count('fill-opacity="0.17"') == 2 * 24 * 24 and "</text>" not in page[page.index("mapped"):page.index('id="stages"')]  # small falls stay pale


def test_a_map_of_an_answer_that_is_no_longer_there_is_not_drawn(tmp_path):
    root = fabricate(tmp_path / "demo")
    add_maps(root, [[1.0]], prediction="what another model said")
    assert "mapped" not in report.write(root).read_text().replace(".mapped", "")


def test_text_from_data_never_becomes_markup(tmp_path):
    evil = '<script>alert("x")</script>'
    root = fabricate(tmp_path / "demo", items=[("0", evil, evil, "color"), ("1", evil, "b", f'"{evil}')])
    change(root / "config.json", lambda config: config["differences"].update({evil: [evil, evil]}))
    change(root / "record.json", lambda record: (record["versions"].update({evil: evil}), record.update(git_commit=evil),
                                                 record["stages"][2]["frozen"].update({evil: 1})))
    change(root / "results.json", lambda results: (results.update({evil: results["easy_vqa_caption"]}),
                                                   results["easy_vqa"]["provenance"].update(prompt=evil)))
    page = report.write(root).read_text()
    assert "<script" not in page and page.count("&lt;script&gt;") > 8


def test_a_run_that_has_just_begun_says_what_is_missing(tmp_path):
    root = tmp_path / "new"
    root.mkdir()
    (root / "config.json").write_text(json.dumps({"fingerprint": "ab", "config": {}, "differences": {}}))
    page = report.write(root).read_text()
    for text in ("No results yet", "No stage has begun", "unchanged", "no predictions", "no times yet"):
        assert text in page, text


def test_an_unfinished_run_shows_its_curves_and_claims_no_proof(tmp_path):
    root = fabricate(tmp_path / "demo", stages=("contrast", "language"), evaluated=False)
    write_metrics(root, "align")
    page = report.write(root).read_text()
    assert "unfinished: 2 of 4 stages" in page and "Not finished: align, instruct" in page and "vlmjax evaluate" in page
    assert page.count("there is no proof") == 2 and page.count("No metrics were recorded") == 1
    assert page.count("62.5 ms") == 1 and "Tokens per second" not in page  # of the stage that has not finished; what is a fact is no curve


@pytest.mark.parametrize("hashes, said", [({"before": "a" * 64, "after": "b" * 64}, "The hashes differ"), (None, "There is no proof")])
def test_a_freeze_that_is_not_proven_is_never_called_proven(tmp_path, hashes, said):
    root = fabricate(tmp_path / "demo")
    change(root / "record.json", lambda record: record["stages"][2].update(frozen_sha256=hashes))
    page = report.write(root).read_text()
    assert said in page and "a frozen part is not proven unchanged" in page and "unchanged, proven" not in page


def test_a_score_that_guessing_reaches_is_not_called_seeing(tmp_path):
    root = fabricate(tmp_path / "demo")
    change(root / "results.json", lambda results: results["easy_vqa"]["real"]["exact_match"].update(value=0.671))
    page = report.write(root).read_text()
    assert "nothing here shows that the model looked" in page and "came from looking" not in page


def test_a_later_part_of_the_metrics_overrides_the_same_steps(tmp_path):
    fabricate(tmp_path / "demo")
    stage = run.read(tmp_path / "demo").stages[0]
    assert [line["step"] for line in stage.metrics] == list(range(1, 421)) and max(y for _, y in stage.series("loss")) < 20


@pytest.mark.parametrize("spoil, said", [
    (lambda root: (root / "config.json").unlink(), "not a run's directory"),
    (lambda root: (root / "record.json").write_text("{"), "record.json: not readable"),
    (lambda root: (root / "metrics/align-001.jsonl").write_text('{"step": 1}\n{"st'), "align-001.jsonl:2"),
])
def test_a_directory_that_cannot_be_read_is_a_line_that_names_the_file(tmp_path, spoil, said):
    root = fabricate(tmp_path / "demo")
    spoil(root)
    with pytest.raises(UserError, match=said) as error:
        report.write(root)
    assert "\n" not in str(error.value)


def test_values_that_are_not_finite_are_said_and_not_drawn(tmp_path):
    root = fabricate(tmp_path / "demo")
    write_lines(root / "metrics/align-002.jsonl", [{"step": 5, "loss": float("nan")}, {"step": 6, "loss": float("inf")}])
    page = report.write(root).read_text()
    assert "2 steps had no finite loss" in page and not re.search(r'points="[^"]*(nan|inf)', page)


def test_charts_keep_extremes_ends_and_round_ticks():
    points = [(i, 1.0) for i in range(10_000)]
    points[5003] = (5003, 9.0)
    thinned = charts.thin(points)
    assert (5003, 9.0) in thinned and len(thinned) <= charts.MOST_POINTS + 4 and thinned[0][0] == 0 and thinned[-1][0] == 9999
    smoothed = charts.smooth([(i, float(i)) for i in range(100)], 9)
    assert smoothed[0][1] == 0.5 and smoothed[-1][1] == 98.5 and smoothed[50][1] == pytest.approx(50)
    assert charts.ticks(0, 420, 6) == [0, 100, 200, 300, 400]
    assert charts.log_ticks(0.01, 10) == pytest.approx([0.01, 0.1, 1, 10])


@pytest.mark.parametrize("shown, expected", [
    (numbers.short(0.01234), "0.01234"), (numbers.short(1234.5678), "1,235"), (numbers.short(0.00002), "2e-5"), (numbers.short(float("nan")), "nan"),
    (numbers.scaled(8.1e9, "FLOP"), "8.1 GFLOP"), (numbers.scaled(2048, "B", 1024), "2 KiB"), (numbers.duration(85.2), "1 min 25 s"),
    (numbers.duration(7300), "2 h 01 min"), (numbers.count(None), "–"), (numbers.count(9673), "9,673")])
def test_numbers_read_as_people_write_them(shown, expected):
    assert shown == expected


def test_what_has_a_unit_is_no_fraction():
    assert scores.value({"value": 0.43, "unit": "objects"}) == "0.43 objects" and scores.error({"value": 0.43, "stderr": 0.02, "unit": "objects"}) == "± 0.02"
    assert scores.value({"value": 0.43}) == "43.0 %" and scores.error({"value": 0.43, "stderr": 0.02}) == "± 2.0"


def test_an_answer_that_is_right_in_part_shows_how_much():
    assert [heat.mark({"correct": score}) for score in (0, 1, True, False, 0.42, None)] == [" ✗", " ✓", " ✓", " ✗", " (42.0 %)", " ✗"]
    rows = [{"id": str(i), "control": "real", "question": "?", "answer": "a", "prediction": "b", "correct": score} for i, score in enumerate((0.3, 0.5, 0.0, 1.0))]
    assert "2 of 4 answers are wrong" in str(gallery.task_gallery("task", 0, rows, {}, None))


def test_other_measures_of_a_kind_have_their_whole_name():
    score = {"value": 0.5, "stderr": 0.1, "n": 4, "variant": "all"}
    text = str(scores.table(run.Task("pope", {"real": {metric: score for metric in ("accuracy", "accuracy/random", "f1", "f1/random")}}, None, {})))
    assert [text.count(f">{name}<") for name in ("all", "random", "f1", "f1/random")] == [1, 1, 1, 1]
