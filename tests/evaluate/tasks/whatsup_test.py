import json

import pytest

from tests.evaluate.tasks import standins
from tests.golden import scorers
from vlmjax.errors import UserError
from vlmjax.evaluate import scoring
from vlmjax.evaluate.tasks import whatsup
from vlmjax.evaluate.texts import letters

GOLDEN = scorers.read("whatsup")


def files(data_dir, sets=25):
    for subset, file in whatsup.FILES.items():
        standins.write(data_dir / file, json.dumps([{"image_path": path, "caption_options": options} for path, options, _ in GOLDEN[subset]["rows"][: 4 * sets]]))


def test_accuracies_of_images_pairs_and_sets_are_the_publishers(tmp_path):
    files(tmp_path)
    _, items = whatsup.read(str(tmp_path), "controlled")
    rows = [{"id": item.id, "image": item.image, "answer": item.answer, "kind": item.kind, "group": item.group, "control": "real", "options": item.options,
             "prediction": "none of them" if chosen is None else letters.LETTERS[item.options.index(options[chosen])]} for item, (_, options, chosen) in zip(items, GOLDEN["A"]["rows"] + GOLDEN["B"]["rows"], strict=True)]
    found = scoring.rescore(rows, whatsup.WHATSUP)["real"]
    for subset in "AB":
        assert [100 * found[f"{metric}/{subset}"]["value"] for metric in ("accuracy", "pairs", "sets")] == pytest.approx(GOLDEN[subset]["numbers"])
        assert {relation.partition("_")[0]: value for relation, value in GOLDEN[subset]["relations"].items()} == {name.rpartition("/")[2]: pytest.approx(metric["value"]) for name, metric in found.items() if name.startswith(f"accuracy/{subset}/")}


def test_the_questions_of_a_set_are_the_same_and_its_answers_are_four(tmp_path):
    files(tmp_path)
    _, items = whatsup.read(str(tmp_path), "controlled")
    for start in range(0, len(items), 4):
        own = items[start : start + 4]
        assert len({(item.question, item.group) for item in own}) == 1 and {item.answer for item in own} == set("ABCD")
    assert len({item.options.index(min(item.options)) for item in items}) == 4  # the order of the alphabet is rotated


def test_a_model_is_scored_with_its_files(tmp_path):
    files(tmp_path, 1)
    for i, (path, _, _) in enumerate(GOLDEN["A"]["rows"][:4] + GOLDEN["B"]["rows"][:4]):
        standins.picture(tmp_path / path.replace("data/", "whatsup/"), i)
    results, predictions = standins.scored("whatsup", tmp_path)
    real = results["real"]
    assert {metric: real[metric]["n"] for metric in ("accuracy", "accuracy/A", "accuracy/A/on", "accuracy/B/in-front", "pairs", "pairs/B", "sets", "sets/A")} == {"accuracy": 8, "accuracy/A": 4, "accuracy/A/on": 1, "accuracy/B/in-front": 1, "pairs": 4, "pairs/B": 2, "sets": 2, "sets/A": 1}
    assert predictions[0]["question"].startswith("Which of these statements describes the image?\nA. A thing-0 ") and predictions[0]["image"].startswith("controlled_images/thing-0_left_of_")
    assert results["prior"]["accuracy"]["value"] == 0.25  # a set's own answers say nothing about it


def test_what_is_missing_or_wrong_is_said(tmp_path):
    with pytest.raises(UserError, match="^whatsup: .*controlled_images_dataset.json: .*; what it needs is told by: vlmjax data sources whatsup$"):
        whatsup.WHATSUP.read(str(tmp_path))
    with pytest.raises(UserError, match="has no split 'A'; it has controlled"):
        whatsup.read(str(tmp_path), "A")
    for row, message in (({"image_path": "a_beside_b.jpeg", "caption_options": ["a", "b"]}, "'a_beside_b.jpeg' is not named THING_RELATION_THING"), ({"image_path": "a_on_b.jpeg", "caption_options": "a"}, "'a' is not a list of 2 to 26 options")):
        standins.write(tmp_path / whatsup.FILES["A"], json.dumps([row]))
        with pytest.raises(UserError, match=message):
            whatsup.read(str(tmp_path), "controlled")
