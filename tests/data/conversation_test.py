import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.tiny import TOKENIZER
from vlmjax.data.conversation import TEMPLATES, Piece, Template, render
from vlmjax.data.example import Example, Turn
from vlmjax.errors import UserError

FRAMED = Template("framed", user=("what?", "it"), assistant=("a", "no"))
utterances = st.lists(st.sampled_from(["yes", "is it red?", "a blue square", "", "<image>", "<image> it"]), min_size=1, max_size=4)


def ids(text):
    return tuple(TOKENIZER.encode(text))


def test_what_is_written_and_what_is_supervised():
    turns = (Turn("user", "<image>is it red?"), Turn("assistant", "yes"))
    assert render(TEMPLATES["plain_qa"], TOKENIZER, turns) == [
        Piece((TOKENIZER.bos,)), Piece(image=True), Piece(ids("is it red?")),
        Piece(ids("yes"), supervised=True), Piece((TOKENIZER.eos,), supervised=True),
    ]  # fmt: skip
    assert render(FRAMED, TOKENIZER, turns)[-4:] == [
        Piece(ids("a")), Piece(ids("yes"), supervised=True), Piece((TOKENIZER.eos,), supervised=True), Piece(ids("no")),
    ]  # fmt: skip


@given(utterances, utterances, st.sampled_from([TEMPLATES["plain_qa"], FRAMED]))
def test_a_prompt_ends_where_the_answer_begins(asked, answered, template):
    turns = tuple(turn for q, a in zip(asked, answered) for turn in (Turn("user", q), Turn("assistant", a)))
    full, prompt = render(template, TOKENIZER, turns), render(template, TOKENIZER, turns[:-1], prompt=True)
    assert full[: len(prompt)] == prompt
    assert full[len(prompt)].supervised or full[len(prompt)].image
    supervised = [piece.ids for piece in full if piece.supervised]
    expected = [run for turn in turns[1::2] for run in (*(ids(text) for text in turn.text.split("<image>") if ids(text)), (TOKENIZER.eos,))]
    assert supervised == expected


def test_refusals():
    with pytest.raises(UserError, match="ends with a turn of the user"):
        render(FRAMED, TOKENIZER, (Turn("assistant", "yes"),), prompt=True)
    with pytest.raises(UserError, match="'system' is not one of"):
        Turn("system", "")
    with pytest.raises(UserError, match="example x: 2 images, but its turns mark 1"):
        Example("x", ("a", "b"), (Turn("user", "<image>"),))
