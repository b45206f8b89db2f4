import dataclasses
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.tiny import TOKENIZER
from vlmjax.data.conversation import RAW, TEMPLATES, Piece, Template, render, spans
from vlmjax.data.example import Example, Turn
from vlmjax.data.tokenizer import from_checkpoint
from vlmjax.errors import UserError

GOLDEN = pathlib.Path(__file__).parent.parent / "golden"
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


CHAT = (Turn("user", "<image>\nWho?"), Turn("assistant", "A cat."), Turn("user", "Where?"), Turn("assistant", "There."))
# What get_prompt() of haotian-liu/LLaVA's conversations returns for these turns.
VICUNA = ("A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the user's questions. ")
LLAMA_2 = ("You are a helpful language and vision assistant. You are able to understand the visual content that the user provides, and assist the user with a variety of "
           "tasks using natural language.")
PUBLISHED = {
    "vicuna_v1": VICUNA + "USER: <image>\nWho? ASSISTANT: A cat.</s>USER: Where? ASSISTANT: There.</s>",
    "llama_2": f"[INST] <<SYS>>\n{LLAMA_2}\n<</SYS>>\n\n<image>\nWho? [/INST] A cat. </s><s>[INST] Where? [/INST] There. </s>",
    "mistral": "[INST] <image>\nWho? [/INST] A cat. </s>[INST] Where? [/INST] There. </s>",
    "chatml": "<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\n<image>\nWho?<|im_end|><|im_start|>assistant\nA cat.<|im_end|>"
              "<|im_start|>user\nWhere?<|im_end|><|im_start|>assistant\nThere.<|im_end|>",
    "plain": "<image>A cat.\nThere.\n",
    "minigpt4": "###Human: <Img><image></Img>\nWho? ###Assistant: A cat.###Human: Where? ###Assistant: There.###",
    "minigpt4_llama_2": "[INST] <Img><image></Img>\nWho? [/INST] A cat.</s><s>[INST] Where? [/INST] There.</s>",
}
PROMPT_ENDS = {"vicuna_v1": "Where? ASSISTANT:", "llama_2": "Where? [/INST]", "mistral": "Where? [/INST]", "chatml": "Where?<|im_end|><|im_start|>assistant\n", "plain": "A cat.\n",
               "minigpt4": "Where? ###Assistant: ", "minigpt4_llama_2": "Where? [/INST] "}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_strings(name):
    assert "".join(span.text for span in spans(TEMPLATES[name], "</s>", CHAT)) == PUBLISHED[name]
    assert "".join(span.text for span in spans(TEMPLATES[name], "</s>", CHAT[:-1], prompt=True)).endswith(PROMPT_ENDS[name])


@pytest.mark.parametrize("family", ["llava", "llama"])  # with an image token in the vocabulary, and without; two ways of writing spaces
@pytest.mark.parametrize("name", ["vicuna_v1", "llama_2", "mistral", "plain"])
def test_a_whole_conversation_is_tokenised_once(family, name):
    tokenizer = from_checkpoint(GOLDEN / family / "model", {"image_token_index": 379} if family == "llava" else {})
    pieces = render(TEMPLATES[name], tokenizer, CHAT)
    ids = [id_ for piece in pieces for id_ in (piece.ids if not piece.image else (-1,))]
    if family == "llava":
        whole = tokenizer.encode(PUBLISHED[name])
        assert ids == [tokenizer.bos, *(-1 if id_ == tokenizer.image else id_ for id_ in whole)]
    else:
        before, after = PUBLISHED[name].split("<image>")
        assert ids == [tokenizer.bos, *tokenizer.encode(before), -1, *tokenizer.encode(after)]
    learned = [tokenizer.decode(piece.ids).strip() for piece in pieces if piece.supervised]
    assert learned == (["A cat.", "There."] if name != "plain" else ["A cat.\nThere."])
    ends = [id_ for piece in pieces if piece.supervised for id_ in piece.ids if id_ == tokenizer.eos]
    assert len(ends) == (0 if name == "plain" else 2)
    if name != "plain":
        prompt = [id_ for piece in render(TEMPLATES[name], tokenizer, CHAT[:-1], prompt=True) for id_ in (piece.ids if not piece.image else (-1,))]
        assert ids[: len(prompt)] == prompt


def test_minigpt4_tokenises_what_is_asked_and_what_is_answered_apart():
    """minigpt_base.py: prompt_wrap splits a prompt at its images, and the answer with its end is a string of its own."""
    tokenizer = from_checkpoint(GOLDEN / "llama" / "model", {})
    ids = lambda text: tuple(tokenizer.encode(text))
    turns = (Turn("user", "<image> Who?"), Turn("assistant", "A cat."))
    assert render(TEMPLATES["minigpt4"], tokenizer, turns) == [
        Piece((tokenizer.bos,)), Piece(ids("###Human: <Img>")), Piece(image=True), Piece(ids("</Img> Who? ###Assistant: ")), Piece(ids("A cat.###"), supervised=True)]  # fmt: skip
    assert render(TEMPLATES["minigpt4"], tokenizer, turns[:1], prompt=True) == render(TEMPLATES["minigpt4"], tokenizer, turns)[:-1]


@pytest.mark.parametrize("template", [dataclasses.replace(TEMPLATES["chatml"], bos=False), RAW, Template("parts", bos=False)], ids=lambda template: template.name)
def test_marks_stand_around_an_image_and_are_not_supervised(template):
    """InternVL's, also where an answer stands on both sides."""
    tokenizer = from_checkpoint(GOLDEN / "internvl" / "model", {"image_token_id": 335})
    (before, behind), name = tokenizer.around, tokenizer.text_of
    assert (name(before), name(behind), name(tokenizer.image)) == ("<img>", "</img>", "<IMG_CONTEXT>")
    pieces = render(template, tokenizer, (Turn("user", "<image>\n<image>What is this?"), Turn("assistant", "A boat.")))
    places = [i for i, piece in enumerate(pieces) if piece.image]
    assert len(places) == 2
    for i in places:
        assert pieces[i - 1] == Piece((before,)) and pieces[i + 1] == Piece((behind,))
    assert not {before, behind} & {id_ for piece in pieces if piece.supervised for id_ in piece.ids}


def test_a_template_says_which_token_it_lacks():
    tokenizer = from_checkpoint(GOLDEN / "qwen2" / "model", {})
    with pytest.raises(UserError, match="the template 'vicuna_v1' needs a token for bos"):
        render(TEMPLATES["vicuna_v1"], tokenizer, CHAT)
