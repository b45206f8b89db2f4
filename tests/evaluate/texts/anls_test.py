import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.golden import scorers
from vlmjax.evaluate.texts import anls


def test_both_are_as_their_programs_have_them():
    golden = scorers.read("docvqa")
    cases = [(said, answers.split("|")) for said, answers in zip(golden["said"], golden["answers"])]
    assert [anls.by_formula(*case) for case in cases] == pytest.approx(golden["formula"], abs=1e-4)
    assert [anls.by_harness(*case) for case in cases] == pytest.approx(golden["harness"], abs=1e-4)


def test_known_cases():
    assert anls.by_formula("aple", ["apple"]) == pytest.approx(0.8) and anls.by_formula(" Apple\n", ["pear", "apple"]) == 1
    assert (anls.by_formula("ac", ["ab"]), anls.by_harness("ac", ["ab"])) == (0, 0.5)
    assert anls.by_formula("a very long answer with apple", ["apple"]) == 0 and anls.by_formula("", ["a"]) == 0


WORDS = st.text("ab c", max_size=6)


@given(WORDS, WORDS, WORDS)
def test_the_distance_is_a_metric(a, b, c):
    assert (anls.levenshtein(a, b) == 0) == (a == b) and anls.levenshtein(a, b) == anls.levenshtein(b, a)
    assert abs(len(a) - len(b)) <= anls.levenshtein(a, b) <= min(max(len(a), len(b)), anls.levenshtein(a, c) + anls.levenshtein(c, b))
