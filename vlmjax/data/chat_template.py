"""Chat templates of published checkpoints, written in Jinja ↔ `Template`, so that training and inference lay turns out the same way.

A template is rendered once with marks in place of the turns' texts; what stands between the marks are its prefixes and suffixes. Whether that is all
it does is then checked on other conversations: a template that does more is refused, never approximated.
"""
import json
from collections.abc import Mapping, Sequence

import jinja2
import jinja2.ext
from etils import epath
from jinja2.sandbox import ImmutableSandboxedEnvironment

from vlmjax import files
from vlmjax.data.conversation import Template, spans
from vlmjax.data.example import IMAGE_MARK, Turn
from vlmjax.errors import UserError

FILE = "chat_template.jinja"
_MARKS = [f"\ue000{i}\ue001" for i in range(4)]  # private use: in no text and in no template
_PROBES = (("What is this?", "A cat."), ("Hi", "Hello.", "And\nthat?", "Two dogs,\n\none tree."), ("a", "b", "c", "d", "e", "f"))


def read(directory: epath.PathLike) -> str | None:
    """The Jinja source in a checkpoint's directory, None where there is none."""
    directory = epath.Path(directory)
    if (directory / FILE).exists():
        return (directory / FILE).read_text()
    for name in ("chat_template.json", "processor_config.json", "tokenizer_config.json"):
        source = (files.read_json(directory / name) or {}).get("chat_template")
        if isinstance(source, list):  # several by name
            source = {entry.get("name"): entry.get("template") for entry in source if isinstance(entry, Mapping)}.get("default")
        if isinstance(source, str):
            return source
    return None


def parse(source: str, where: str, bos: str = "", eos: str = "") -> Template:
    """The Template that renders as `source` does. bos, eos: the texts of these tokens, empty where there is none."""
    def render(texts: Sequence[str], ask: bool = False) -> str:
        messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
        return _render(source, where, messages, bos, eos, ask)

    whole = render(_MARKS)
    if [mark for mark in _MARKS if whole.count(mark) != 1]:
        raise UserError(f"{where}: its chat template does not write every turn once, in the roles user and assistant; name one of vlmjax's own (template)")
    rest, between = whole, []
    for mark in _MARKS:
        before, _, rest = rest.partition(mark)
        between.append(before)
    first, middle, again, _ = between
    end = rest
    question = render(_MARKS[:1]).partition(_MARKS[0])[2]  # what follows a question when no answer is asked for
    if not middle.startswith(question):
        question = ""
    template = Template(
        "checkpoint", bos=bool(bos) and first.startswith(bos), first=first.removeprefix(bos) if bos else first, user=(again.removeprefix(end), question),
        assistant=(middle.removeprefix(question), end[_stop(end, eos) :]), end=end[: _stop(end, eos)], eos=False, whole=True,
        stops=bool(eos and end.strip()) and eos not in end, jinja=source,
    )
    before, around, behind = render([f"{_MARKS[0]}{IMAGE_MARK}{_MARKS[1]}"]).partition(IMAGE_MARK)
    if around and _MARKS[0] in before and _MARKS[1] in behind:
        template = Template(**{**vars(template), "marks": (before.partition(_MARKS[0])[2], behind.partition(_MARKS[1])[0])})
    if template.first == template.user[0]:
        template = Template(**{**vars(template), "first": None})
    for probe in _PROBES:
        turns = tuple(Turn(("user", "assistant")[i % 2], text) for i, text in enumerate(probe))
        for count, ask in ((len(probe), False), (len(probe) - 1, True)):
            mine = (bos if template.bos else "") + "".join(span.text for span in spans(template, eos, turns[:count], prompt=ask))
            theirs = render(probe[:count], ask)
            # A space before an answer belongs to the answer's first token, so a prompt stops short of it.
            if (mine.rstrip(" ") != theirs.rstrip(" ")) if ask else mine != theirs:
                raise UserError(f"{where}: its chat template does more than write text around turns ({theirs[-80:]!r} where vlmjax would write {mine[-80:]!r}); name one of vlmjax's own (template)")
    return template


def write(template: Template, bos: str = "", eos: str = "") -> str | None:
    """Jinja that renders as the Template does, None for raw prompts."""
    if template.jinja:
        return template.jinja
    if template.raw or template.only_images:
        return None
    (user, asked), (assistant, answered) = template.user, template.assistant
    asks = f"message['content'].replace({json.dumps(IMAGE_MARK)}, {json.dumps(IMAGE_MARK.join(template.marks))})" if any(template.marks) else "message['content']"
    text = lambda *parts: "{{ " + json.dumps("".join(parts), ensure_ascii=False) + " }}" if "".join(parts) else ""
    start = text(bos) if template.bos else ""
    opening = text(user) if template.first is None else "{% if loop.first %}" + text(template.first) + "{% else %}" + text(user) + "{% endif %}"
    prompt = assistant.rstrip(" ") if template.whole else assistant
    return (start + "{% for message in messages %}{% if message['role'] == 'assistant' %}" + text(assistant) + "{{ message['content'] }}"
            + text(template.end, eos if template.eos else "", answered) + "{% else %}" + opening + f"{{{{ {asks} }}}}" + text(asked) + "{% endif %}{% endfor %}"
            + "{% if add_generation_prompt %}" + text(prompt) + "{% endif %}")


def _stop(end: str, eos: str) -> int:
    """Where the part of an answer's ending ends that the model has to write itself: after its end token."""
    return end.find(eos) + len(eos) if eos and eos in end else len(end)


def _render(source: str, where: str, messages: list[dict], bos: str, eos: str, ask: bool) -> str:
    """As transformers does (utils/chat_template_utils.py): sandboxed, blocks trimmed, loop controls."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols])

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment.globals["raise_exception"] = refuse
    try:
        return environment.from_string(source).render(messages=messages, bos_token=bos, eos_token=eos, add_generation_prompt=ask)
    except (jinja2.TemplateError, TypeError, KeyError, ValueError, AttributeError) as error:
        raise UserError(f"{where}: its chat template cannot be rendered for turns of user and assistant ({error}); name one of vlmjax's own (template)") from None
