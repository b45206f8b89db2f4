"""`vlmjax chat` as a user meets it, with a tiny model that has opinions but no sense."""
import functools
import io

import numpy as np
import pytest

from tests.data.tiny import png
from tests.evaluate import tiny
from vlmjax import bundle, decode, pretrained
from vlmjax.__main__ import main
from vlmjax.commands import chat
from vlmjax.data import conversation
from vlmjax.data.example import Turn
from vlmjax.errors import UserError

RED, BLUE = (np.full((16, 16, 3), tiny.COLORS[color], np.uint8) for color in ("red", "blue"))


@functools.cache
def model():
    """Says words alone: nothing else has a logit above 0."""
    flat = {path: leaf.copy() for path, leaf in tiny.parameters().items()}
    words = [tiny.TOKENIZER.encode(word)[0] for word in "red blue gray yes no square it is".split()]
    others = np.setdiff1d(np.arange(48), words)
    flat["decoder/embed"][others] *= 0.01
    return bundle.make(tiny.tiny.modules(), flat, tiny.TOKENIZER, tiny.model().template, tiny.LAYOUT)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat")
    pretrained.save(model(), folder / "model")
    for name, image in (("red", RED), ("blue", BLUE)):
        (folder / f"{name}.png").write_bytes(png(image))
    return folder


def say(capsys, monkeypatch, *argv, lines=""):
    """(status, what stands on standard output, and on stderr)."""
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    status = main(["chat", *argv])
    return status, *capsys.readouterr()


def test_each_line_is_a_turn_of_one_conversation(saved, capsys, monkeypatch):
    lines = f"is it red?\nwhat color is it?\n/image {saved}/blue.png\nis it blue?\n/new\nis it red?\n/quit\nnever asked\n"
    status, out, err = say(capsys, monkeypatch, f"--model={saved}", f"--image={saved}/red.png", "--max_new_tokens=4", lines=lines)
    assert status == 0 and not err
    turns, expected = (), []
    for question, images in (("<image>\nis it red?", [RED]), ("what color is it?", [RED]), ("<image>\nis it blue?", [RED, BLUE])):
        turns += (Turn("user", question),)
        expected.append(model().reply(turns, images, 4))
        turns += (Turn("assistant", expected[-1]),)
    expected.append(model().reply((Turn("user", "is it red?"),), (), 4))  # of the new conversation, which has no image
    assert out.splitlines() == expected and len(set(expected)) > 1 and all(expected)


def test_alone_every_question_is_the_first(saved, capsys, monkeypatch):
    asked = [f"--model={saved}", f"--image={saved}/red.png", "--max_new_tokens=4", "--alone", "--question=is it red?", "--question=what color is it?"]
    status, out, _ = say(capsys, monkeypatch, *asked)
    assert status == 0 and out.splitlines() == [model().reply((Turn("user", f"<image>\n{question}"),), [RED], 4) for question in ("is it red?", "what color is it?")]


def test_drawn_answers_hang_on_the_seed(saved, capsys, monkeypatch):
    ask = lambda seed: say(capsys, monkeypatch, f"--model={saved}", "--max_new_tokens=8", "--alone", "--temperature=5", f"--seed={seed}", "--question=is it red?", "--question=is it red?")[1].splitlines()
    first = ask(1)
    assert first == ask(1) and first[1] == ask(2)[0] and first[0] != first[1]


def test_a_reply_is_what_the_bare_prompt_says(saved):
    """The template's string, as a raw prompt."""
    turns = (Turn("user", "<image>is it red?"),)
    prompt = "".join(span.text for span in conversation.spans(model().template, "", turns, True))
    said = model().reply(turns, [RED], 5)
    assert said and said == model().generate([prompt], [[RED]], 5)[0]


@pytest.mark.parametrize("flags, lines, message", [
    (["--temperature=-1"], "", "--temperature: -1.0 is less than 0"), (["--top_p=0.5"], "", "--top_p, --top_k: say from what is drawn, and nothing is at --temperature=0"),
    (["--temperature=1", "--top_p=2"], "", "top_p: 2.0 is not a probability"), (["--image=none.png", "--question=a"], "", "image none.png: "), (["--question=<image>?"], "", "question: <image> is the place of an image"),
    ([], "/show me\n", "/show is not known: /image FILE"), (["--max_new_tokens=0", "--question=is it red?"], "", "max_new_tokens: 0 is less than 1"), (["--seed=-1", "--temperature=1", "--question=is it red?"], "", "seed: -1")])  # fmt: skip
def test_a_mistake_is_one_line(saved, capsys, monkeypatch, flags, lines, message):
    status, out, err = say(capsys, monkeypatch, f"--model={saved}", *flags, lines=lines)
    assert status == 2 and not out and message in err and err.count("\n") == 1


def test_at_a_terminal_a_mistake_does_not_end_the_conversation(saved, capsys, monkeypatch):
    terminal = io.StringIO(f"/image {saved}/none.png\nis it red?\n")
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stdin", terminal)
    assert main(["chat", f"--model={saved}", "--max_new_tokens=4"]) == 0
    out, err = capsys.readouterr()
    assert err.splitlines()[0] == chat.HELP and "none.png: " in err.splitlines()[1] and out == f"> > {model().reply((Turn('user', 'is it red?'),), (), 4)}\n> "


def test_at_a_terminal_an_answer_can_be_stopped(saved, capsys, monkeypatch):
    """It is forgotten, and the conversation goes on."""
    whole, asked = bundle.Bundle.stream, []

    def stream(self, turns, *args):
        asked.append(turns)
        yield next(whole(self, turns, *args))
        raise KeyboardInterrupt

    terminal = io.StringIO("is it red?\nis it blue?\n")
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stdin", terminal)
    monkeypatch.setattr(bundle.Bundle, "stream", stream)
    assert main(["chat", f"--model={saved}", "--max_new_tokens=4"]) == 0
    assert [[turn.text for turn in turns] for turns in asked] == [["is it red?"], ["is it blue?"]]
    first = [model().reply(turns, (), 1) for turns in asked]
    assert capsys.readouterr()[0] == f"> {first[0]}\n> {first[1]}\n> "


def test_an_answer_comes_piece_by_piece():
    """Token by token, and joined it is the reply, greedy and drawn."""
    turns = (Turn("user", "<image>is it red?"),)
    for sampling, seed in ((None, 0), (decode.Sampling(1.5), 1), (decode.Sampling(1.5), 2)):
        pieces = list(model().stream(turns, [RED], 6, sampling, seed))
        assert "".join(pieces) == model().reply(turns, [RED], 6, sampling, seed)
        assert sampling or len([piece for piece in pieces if piece]) > 2


def test_a_piece_never_ends_inside_a_character(monkeypatch):
    """Here each token is a byte."""
    made, said = model(), "größer 猫!".encode()
    ids = iter([np.array([[[*said[:n], *(-1,) * (len(said) - n)]]]) for n in range(1, len(said) + 1)])
    monkeypatch.setattr(bundle.Bundle, "grow", lambda *args: ids)
    monkeypatch.setattr(bundle.Bundle, "text", lambda self, ids: bytes(id_ for id_ in ids if id_ >= 0).decode(errors="replace"))
    assert list(made.stream((Turn("user", "is it red?"),))) == [*"größer 猫!"]


def test_a_question_that_cannot_be_asked_changes_nothing():
    talk = chat.Conversation(model(), 2, None, 7)
    talk.show([png(RED)])
    with pytest.raises(UserError):
        list(talk.ask("a <image> mark"))
    assert not talk.turns and len(talk.waiting) == 1 and talk.seed == 7
