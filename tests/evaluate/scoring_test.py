import numpy as np
import pytest

from vlmjax.evaluate import scoring


def rows(scores, images):
    return [{"score": float(score), "image": str(image)} for score, image in zip(scores, images)]


def test_standard_error_is_clustered_by_image():
    scores = np.random.default_rng(0).integers(0, 2, 40)
    one = scoring.mean(rows(scores, range(40)), "all")
    assert one["stderr"] == pytest.approx(scores.std(ddof=1) / 40**0.5) and one["value"] == scores.mean() and one["n"] == 40
    # Five equal answers about each image are worth one.
    assert scoring.mean(rows(np.repeat(scores, 5), np.repeat(range(40), 5)), "all")["stderr"] == pytest.approx(one["stderr"])
    assert scoring.mean(rows(scores, ["same"] * 40), "all")["stderr"] is None


def test_the_error_of_a_ratio_is_what_drawing_images_again_gives():
    rng = np.random.default_rng(1)
    images = np.repeat(np.arange(300), 4)
    bias = rng.uniform(0.3, 0.9, 300)[images]
    said, right = rng.random(1200) < bias, rng.random(1200) < bias
    held = [{"image": str(i), "said": s, "right": r} for i, s, r in zip(images, said, right)]
    f1 = lambda of: scoring.ratio(of, lambda row: 2 * (row["said"] and row["right"]), lambda row: int(row["said"]) + int(row["right"]), "f1")
    by_image = [held[i : i + 4] for i in range(0, 1200, 4)]
    again = [f1([row for k in rng.integers(0, 300, 300) for row in by_image[k]])["value"] for _ in range(400)]
    assert f1(held)["value"] == pytest.approx(2 * (said & right).sum() / (said.sum() + right.sum())) and f1(held)["stderr"] == pytest.approx(np.std(again), rel=0.15)
    assert f1([row | {"said": False, "right": False} for row in held]) == {"value": None, "stderr": None, "n": 0, "variant": "f1"}


def test_a_total_knows_what_its_parts_share():
    one, score = lambda row: 1.0, lambda row: row["score"]
    drawn = np.random.default_rng(2).integers(0, 2, (2, 60))
    a, b = (rows(of, range(60)) for of in drawn)
    apart = scoring.total([(100, a, score, one), (100, [row | {"image": row["image"] + "b"} for row in b], score, one)], "all", "points")
    shared = scoring.total([(100, a, score, one), (100, a, score, one)], "all", "points")
    errors = [100 * scoring.mean(of, "all")["stderr"] for of in (a, b)]
    assert apart == {"value": pytest.approx(100 * drawn.mean(axis=1).sum()), "stderr": pytest.approx(np.hypot(*errors), rel=0.01), "n": 120, "variant": "all", "unit": "points"}
    assert shared["stderr"] == pytest.approx(2 * errors[0])
    assert scoring.shown({"value": 0.43, "stderr": 0.02, "unit": "objects"}) == "0.43 ± 0.02"
    assert scoring.shown({"value": 75.0, "stderr": 5.0, "unit": "points"}) == "75.0 ± 5.0" and scoring.shown({"value": 0.5, "stderr": 0.03}) == "50.0 ± 3.0"
    assert scoring.total([(1, a, score, one), (1, [], score, one)], "all")["value"] is None


def test_sets_that_share_images_depend_on_each_other():
    """Three sets of two questions: the first two are about one image, the third one is apart."""
    held = [{"id": str(i), "image": image, "group": group} for i, (image, group) in enumerate((("a", "1"), ("b", "1"), ("b", "2"), ("c", "2"), ("d", "3"), (None, "3"), ("e", ""), (None, "")))]
    assert scoring.clusters(held) == [0, 0, 0, 0, 1, 1, 2, 3]
    # 80 blocks of two images, and three sets that ask about both; a model is right about an image or wrong.
    rng = np.random.default_rng(3)
    asked = [(f"{block}/{image}", f"{block}/{one}") for block in range(80) for one in range(3) for image in range(2)]

    def answered():
        right = {image: float(rng.random() < 0.5) for image in dict.fromkeys(image for image, _ in asked)}
        return [{"id": str(i), "image": image, "group": group, "score": right[image]} for i, (image, group) in enumerate(asked)]

    for of in (scoring.mean, scoring.sets):
        again = [of(answered(), "all") for _ in range(300)]
        assert np.mean([one["stderr"] for one in again]) == pytest.approx(np.std([one["value"] for one in again]), rel=0.15)
