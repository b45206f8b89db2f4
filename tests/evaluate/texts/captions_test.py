"""Words and scores of captions, beside what pycocoevalcap says of them."""
import itertools

import numpy as np
import pytest

from tests.golden import scorers
from vlmjax.evaluate.texts import captions, ptb

GOLDEN = scorers.read("coco_captions")
KNOWN = ((("a cat sits on a red mat", "the cat is on the mat", "a cat on a mat"), "a cat on a red mat"), (("two dogs run in the park", "dogs running through a park", "a pair of dogs play outside"), "two dogs play in the park"),
         (("a man rides a wave on a surfboard", "a surfer on a wave", "man surfing in the ocean"), "a man on a wave"))


def rows(pairs):
    return [{"id": str(i), "image": str(i), "answer": answers[0], "answers": list(answers), "parsed": said, "prediction": said} for i, (answers, said) in enumerate(pairs)]


def test_words_are_those_of_the_program_in_java():
    texts = list(itertools.chain(GOLDEN["ugly"], *GOLDEN["captions"]))
    assert len(texts) > 200
    for text, words in zip(texts, GOLDEN["words"], strict=True):
        assert " ".join(ptb.words(text)) == words, text


@pytest.mark.parametrize("text, words", [
    ("", ""), ("A man's dog isn't here.", "a man 's dog is n't here"), ("t-shirt (red)", "t-shirt -lrb- red -rrb-"), ("Mr. X at 10:30 a.m., etc.", "mr. x at 10:30 a.m. etc."), ("the end. The start", "the end the start"),
    ("What?! No! Yes.", "what ?! no yes"), ("50% of $3.50", "50 % of $ 3.50")])
def test_words(text, words):
    assert " ".join(ptb.words(text)) == words


def test_scores_are_those_of_the_official_program():
    said, references = [c[0] for c in GOLDEN["captions"]], [c[1:] for c in GOLDEN["captions"]]
    found = captions.more(rows(list(zip(references, said))))
    assert captions.cider(said, references) == pytest.approx(GOLDEN["CIDEr of each"], abs=1e-8) and found["cider"]["value"] == pytest.approx(100 * GOLDEN["CIDEr"])
    assert [found[f"bleu_{n}"]["value"] for n in (1, 2, 3, 4)] == pytest.approx(GOLDEN["BLEU"], abs=1e-8)
    each = [captions.rouge_l(text, of) for text, of in zip(said, references)]
    assert each == pytest.approx(GOLDEN["ROUGE-L of each"], abs=1e-8) and np.mean(each) == pytest.approx(GOLDEN["ROUGE-L"])


def test_known_cases():
    references, said = zip(*KNOWN)
    found = captions.more(rows(KNOWN))
    assert captions.cider(said, references) == pytest.approx([4.422961, 2.224414, 2.231499], abs=1e-6)
    assert [found[f"bleu_{n}"]["value"] for n in (1, 2, 3, 4)] == pytest.approx([1.0, 0.925820, 0.776135, 0.584707], abs=1e-6)
    assert [captions.rouge_l(text, of) for text, of in zip(said, references)] == pytest.approx([1.0, 0.833333, 0.8], abs=1e-5)
    assert found["words"]["value"] == 17 / 3 and found["cider"]["unit"] == "points"
    assert captions.more(rows(KNOWN[:1]))["cider"]["value"] == 0  # of one image no n-gram weighs anything


def test_of_nothing_that_is_right_there_is_a_score_and_no_error():
    found = captions.more(rows([(("a cat",), "dogs"), (("a dog sits",), None)]))
    assert found["cider"]["value"] == 0 and 0 <= found["bleu_4"]["value"] < 1e-3 and found["bleu_1"]["stderr"] is None and captions.rouge_l("dogs", ("a cat",)) == 0


def test_the_error_of_bleu_is_what_drawing_images_again_gives():
    rng = np.random.default_rng(0)
    words = np.array("a the man dog cat red big sits on mat".split())
    held = rows([((" ".join(rng.choice(words, 9)), " ".join(rng.choice(words, 9))), " ".join(rng.choice(words, rng.integers(5, 9)))) for _ in range(300)])
    found, table = captions.more(held), np.stack([captions.counts(row["parsed"], row["answers"]) for row in held])
    again = [table[rng.integers(0, 300, 300)].sum(axis=0) for _ in range(400)]
    for n in (1, 2, 3):
        assert found[f"bleu_{n}"]["stderr"] == pytest.approx(np.std([captions.bleu(counts, n) for counts in again]), rel=0.15), n
