"""Jinja of published checkpoints ↔ Template."""
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.tiny import TOKENIZER
from vlmjax import files
from vlmjax.data import chat_template
from vlmjax.data.conversation import TEMPLATES, Template, render, spans
from vlmjax.data.example import Turn
from vlmjax.errors import UserError

CHATML = """{%- for message in messages %}
    {%- if loop.first and message['role'] != 'system' %}{{ '<|im_start|>system\\nBe kind.<|im_end|>\\n' }}{% endif %}
    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
INST = ("{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
        "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + eos_token }}{% else %}{{ raise_exception('no system') }}{% endif %}{% endfor %}")


def test_chatml_with_its_system_message():
    found = chat_template.parse(CHATML, "x", "<s>", "<|im_end|>")
    want = Template("checkpoint", bos=False, first="<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n", user=("<|im_start|>user\n", "<|im_end|>\n"),
                    assistant=("<|im_start|>assistant\n", "\n"), end="<|im_end|>", eos=False, whole=True, jinja=CHATML)
    assert found == want
    turns = (Turn("user", "Who?"), Turn("assistant", "I."))
    # The model learns its answer and the token that ends it, not the line break after that.
    assert [span.text for span in spans(found, "", turns) if span.supervised] == ["I.", "<|im_end|>"]


def test_instructions_with_a_start_and_an_end_token():
    found = chat_template.parse(INST, "x", "<s>", "</s>")
    assert found == Template("checkpoint", bos=True, user=("[INST] ", " [/INST]"), assistant=(" ", ""), end="</s>", eos=False, whole=True, jinja=INST)
    # Where the start token also begins the system message, it is written once.
    assert chat_template.parse(CHATML, "x", "<|im_start|>", "<|im_end|>").first == "system\nBe kind.<|im_end|>\n<|im_start|>user\n"


def test_a_prompt_is_the_beginning_of_the_whole():
    source = "{% for m in messages %}{{ m['role'] + ' says ' + m['content'] + '</s>' }}{% endfor %}{% if add_generation_prompt %}assistant says {% endif %}"
    template = chat_template.parse(source, "x", "", "</s>")
    assert (template.user, template.assistant) == (("user says ", "</s>"), ("assistant says ", ""))
    assert template.end == "</s>" and template.first is None


@pytest.mark.parametrize("source, message", [
    ("{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}{% endif %}{% endfor %}", "does not write every turn once"),
    ("{% for m in messages %}{{ m['content'] | upper }};{% endfor %}", "does more than write text around turns"),
    ("{% for m in messages %}{{ loop.index }}: {{ m['content'] }}\n{% endfor %}", "does more than write text around turns"),
    ("{% for m in messages %}{{ m['content'] }}", "cannot be rendered"),
    ("{{ raise_exception('needs a tool') }}", "needs a tool"),
    ("{{ ''.__class__.__mro__ }}", "cannot be rendered|does not write every turn"),
])
def test_a_template_that_does_more_is_refused(source, message):
    with pytest.raises(UserError, match=message):
        chat_template.parse(source, "x", "<s>", "</s>")


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Co"]), min_size=1, max_size=8)
around = st.text(st.sampled_from("<|>\n {}%'\"\\[]ab"), max_size=6)


@given(st.sampled_from([name for name in TEMPLATES if name != "plain"]), st.lists(texts, min_size=2, max_size=4))
def test_ours_are_written_as_jinja_that_says_the_same(name, contents):
    same(TEMPLATES[name], contents)


@given(around, around, around, around, around, st.lists(texts, min_size=2, max_size=4))
def test_any_text_around_turns_is_written(first, user, asked, assistant, answered, contents):
    same(Template("any", first=first, user=(user, asked), assistant=(assistant, answered), end="!", whole=True), contents)


def same(template, contents):
    source = chat_template.write(template, "<s>", "</s>")
    turns = tuple(Turn(("user", "assistant")[i % 2], text) for i, text in enumerate(contents))
    messages = [{"role": turn.role, "content": turn.text} for turn in turns]
    assert chat_template._render(source, "x", messages, "<s>", "</s>", False) == "<s>" + "".join(span.text for span in spans(template, "</s>", turns))
    if len(turns) % 2:
        assert chat_template._render(source, "x", messages, "<s>", "</s>", True) == "<s>" + "".join(span.text for span in spans(template, "</s>", turns, prompt=True))


def test_marks_around_an_image_and_an_end_without_a_token_are_written_and_read():
    ours, turns = TEMPLATES["minigpt4"], (Turn("user", "<image> Who?"), Turn("assistant", "I."))
    found = chat_template.parse(chat_template.write(ours, "<s>", "</s>"), "x", "<s>", "</s>")
    assert (found.marks, found.end, found.stops) == (ours.marks, "###", True)
    assert "".join(span.text for span in spans(found, "</s>", turns)) == "###Human: <Img><image></Img> Who? ###Assistant: I.###"
    assert not chat_template.parse(CHATML, "x", "<s>", "<|im_end|>").stops


def test_where_the_source_lies(tmp_path):
    assert chat_template.read(tmp_path) is None
    files.write_json(tmp_path / "tokenizer_config.json", {"chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]})
    assert chat_template.read(tmp_path) == "d"
    files.write_json(tmp_path / "chat_template.json", {"chat_template": "c"})
    assert chat_template.read(tmp_path) == "c"
    (tmp_path / chat_template.FILE).write_text("j")
    assert chat_template.read(tmp_path) == "j"


def test_a_conversation_is_laid_out_by_it():
    template = chat_template.parse("{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] + ' ' }}{% else %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}", "x", "", "</s>")
    pieces = render(template, TOKENIZER, (Turn("user", "is it red?"), Turn("assistant", "yes")))
    assert [piece.supervised for piece in pieces] == [False, True] and pieces[1].ids == (*TOKENIZER.encode("yes"), TOKENIZER.eos)
