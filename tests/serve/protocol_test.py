"""JSON of OpenAI's chat completions: what is read, and what is refused with the field at fault."""
import base64

import pytest

from vlmjax.bundle import Piece
from vlmjax.data.example import Turn
from vlmjax.decode import Sampling
from vlmjax.serve import protocol

PNG = "data:image/png;base64," + base64.b64encode(b"bytes").decode()


def read(messages="is it red?", **fields):
    messages = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    return protocol.read({"messages": messages, **fields}, "demo", 0.0, ["</s>"])


def image(url=PNG):
    return {"type": "image_url", "image_url": {"url": url}}


def test_a_question_about_images():
    asked = read([{"role": "user", "content": [image(), image(), {"type": "text", "text": "which is red?"}]}, {"role": "assistant", "content": "the first"}, {"role": "user", "content": "and now?"}])
    assert asked.turns == (Turn("user", "<image><image>\nwhich is red?"), Turn("assistant", "the first"), Turn("user", "and now?"))
    assert asked.images == (b"bytes", b"bytes") and asked.sampling is None and not asked.stream and asked.most is None
    assert read([{"role": "user", "content": [{"type": "text", "text": "look: "}, image()]}]).turns == (Turn("user", "look: <image>"),)


def test_how_tokens_are_drawn():
    asked = read(temperature=0.5, top_p=0.9, top_k=3, seed=7, max_tokens=5, stop="\n", stream=True, stream_options={"include_usage": True}, model="demo", user="me")
    assert asked.sampling == Sampling(0.5, 3, 0.9) and (asked.seed, asked.most, asked.stops, asked.stream, asked.usage) == (7, 5, ("\n",), True, True)
    assert read(temperature=0, top_k=-1).sampling is None and read(max_completion_tokens=3, max_tokens=9).most == 3 and read(stop=["a", "b"]).stops == ("a", "b")
    assert read(n=1, presence_penalty=0.0, tools=[], response_format={"type": "text"}, logprobs=None) == read()
    assert protocol.read({"messages": [{"role": "user", "content": "a"}]}, "demo", 0.7, []).sampling == Sampling(0.7)


@pytest.mark.parametrize("fields, param, says", [
    ({"temprature": 1}, "temprature", "is not known; did you mean 'temperature'"), ({"n": 2}, "n", "2 is not supported, only 1"), ({"logprobs": True}, "logprobs", "not supported"),
    ({"presence_penalty": 0.5}, "presence_penalty", "0.5 is not supported, only 0"), ({"tools": [{}]}, "tools", "not supported"), ({"model": "gpt"}, "model", "'gpt' is not here; 'demo' is"),
    ({"temperature": -1}, "temperature", "-1 is less than 0"), ({"temperature": "hot"}, "temperature", "'hot' is not a number"), ({"temperature": 1, "top_p": 0}, "top_p", "top_p: 0.0 is not a probability"),
    ({"max_tokens": 0}, "max_tokens", "0 is less than 1"), ({"max_tokens": 1.5}, "max_tokens", "not a whole number"), ({"seed": -1}, "seed", "not between"), ({"seed": True}, "seed", "not a whole number"),
    ({"stop": ["a"] * 5}, "stop", "a list of up to 4"), ({"stop": [""]}, "stop", "is not a text"), ({"stream": "yes"}, "stream", "neither true nor false"), ({"stream_options": {"x": 1}}, "stream_options", "include_usage only")])
def test_a_field_that_is_wrong_or_would_change_the_answer_is_refused(fields, param, says):
    with pytest.raises(protocol.Refused, match=says) as refused:
        read(**fields)
    assert refused.value.param == param and refused.value.status == (404 if param == "model" else 400)


@pytest.mark.parametrize("messages, param, says", [
    ([], "messages", "not a list of messages"), ("a </s> b", "messages[0].content", "holds </s>, which has a meaning of its own"), ("an <image>", "messages[0].content", "holds <image>"),
    ([{"role": "system", "content": "be brief"}], "messages[0].role", "brings the system message it was trained with"),
    ([{"role": "assistant", "content": "a"}], "messages[0].role", "'assistant', where 'user' has the word"),
    ([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}], "messages[1].role", "take turns"), ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "messages", "the last one is not the user's"),
    ([{"role": "user", "content": [image("https://example.org/a.png")]}], "messages[0].content[0].image_url", "nothing is fetched from elsewhere"),
    ([{"role": "user", "content": [image("data:image/png;base64,!")]}], "messages[0].content[0].image_url", "is not base64"), ([{"role": "user", "content": [image(None)]}], "messages[0].content[0].image_url", "has no url"),
    ([{"role": "user", "content": [{"type": "input_audio"}]}], "messages[0].content[0]", "neither a text nor an image_url"), ([{"role": "user", "content": 3}], "messages[0].content", "neither a text nor a list"),
    ([{"role": "user", "content": "a", "tool_calls": [1]}], "messages[0].tool_calls", "not supported"),
    ([{"role": "user", "content": "a"}, {"role": "assistant", "content": [image()]}, {"role": "user", "content": "b"}], "messages[1].content[0]", "neither a text nor")])
def test_a_message_that_cannot_be_asked_is_refused(messages, param, says):
    with pytest.raises(protocol.Refused, match=says) as refused:
        read(messages)
    assert refused.value.param == param and refused.value.body()["error"]["param"] == param


def pieces(*texts, ended=True):
    return (Piece(text, n, ended and n == len(texts)) for n, text in enumerate(texts, 1))


@pytest.mark.parametrize("texts, ended, stops, most, said, reason, tokens", [
    (("a", "b", "c"), True, (), 9, "abc", "stop", 3), (("a", "b", "c"), False, (), 9, "abc", "length", 3), (("a", "b", "c"), True, (), 2, "ab", "length", 2),
    (("a", "x", "y", "b"), True, ("xy",), 9, "a", "stop", 3), (("a", "x", "z", "b"), True, ("xy",), 9, "axzb", "stop", 4), (("axy",), True, ("xy", "a"), 9, "", "stop", 1),
    (("a", "x"), True, ("xy",), 9, "ax", "stop", 2), (("x", "x", "y"), True, ("xy",), 9, "x", "stop", 3), (("", "ö"), True, (), 9, "ö", "stop", 2)])
def test_an_answer_ends_at_its_stop_its_end_or_its_limit(texts, ended, stops, most, said, reason, tokens):
    found = list(protocol.until(pieces(*texts, ended=ended), stops, most))
    assert "".join(text for text, *_ in found) == said and found[-1][1:] == (tokens, reason) and all(why is None for *_, why in found[:-1])


def test_what_may_be_a_stop_waits():
    assert [text for text, *_ in protocol.until(pieces("a x", "y", "z"), ("xyw",), 9)] == ["a ", "", "xyz"]
