"""VQA accuracy: what the two programs are known to do, and the score of agreement."""
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmjax.evaluate.texts import vqa_accuracy


def test_texts_are_made_alike_also_where_it_was_not_meant():
    known = {"Two.": "2", "1,000": "1000", "3.5.": "3.5", "dont": "don't", "cant": "can't", "im": "im", "well-known": "well known", "t-shirt": "t shirt", "new york, ny": "new york ny", "none": "0",
             "eleven": "eleven", "twenty-one": "twenty 1", "10:30": "10:30", "50%": "50%", "$5.00": "$5.00", "1/2": "1 2", "black/white": "black white", "a.m.": "am", "u.s.a.": "usa", "[red]": "red",
             "1,000 - 2/3": "1000 23", "somebody'd": "somebodyd", "a" + "." * 40: "a" + "." * 8, "an apple a day": "apple day"}
    assert {text: vqa_accuracy.official(text) for text in known} == known


def test_the_evalai_processor_differs():
    known = {"What's that?": "what 's that", "1,000": "1000", "Yes, it is": "yes it is", "the dog's bowl": "dog 's bowl", "a\nb": "b", "Two.": "2"}
    assert {text: vqa_accuracy.evalai(text) for text in known} == known


@pytest.mark.parametrize("same, score", [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_agreement_leaves_each_annotator_out_once(same, score):
    assert vqa_accuracy.by_official("red", ("red",) * same + ("blue",) * (10 - same)) == pytest.approx(score)


def test_where_all_say_the_same_the_official_program_wants_it_to_the_letter():
    assert [vqa_accuracy.by_official(said, ("yes",) * 10) for said in ("yes", " yes\n", "Yes", "yes.")] == [1, 1, 0, 0]
    assert vqa_accuracy.by_official("Yes", ("yes",) * 9 + ("no",)) == 1
    assert [vqa_accuracy.by_evalai(said, ("yes",) * 10) for said in ("yes", "Yes", "the yes.")] == [1, 1, 1]


@given(st.lists(st.sampled_from(["red", "Red", "a red", "two", "2"]), min_size=2, max_size=10), st.sampled_from(["red", "2", "blue"]))
def test_agreement_is_that_over_all_others(answers, said):
    others = [sum(answer == said for j, answer in enumerate(answers) if j != i) for i in range(len(answers))]
    assert vqa_accuracy.agreement(said, answers) == pytest.approx(sum(min(1, n / 3) for n in others) / len(answers))
