"""Chat templates: turns → token ids, with what is supervised known from the structure and never found again by tokenising twice."""
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from vlmjax.data.example import IMAGE_MARK, Turn
from vlmjax.data.tokenizer import Tokenizer
from vlmjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Template:
    """How turns are written. A turn is prefix + text + suffix; an answer is prefix + text + end + eos + suffix, with text, end and eos supervised.

        <bos>  first question user[1]  assistant[0] answer end <eos> assistant[1]  user[0] question …
                                                    ----------------- supervised

    first: stands before the first question in place of user[0], and holds a system message; None: user[0] does. whole: everything between two
    images is tokenised as one string, as the published models were trained; otherwise part by part. joined: what is supervised and what is not are tokenised as one
    string each. marks: text around each image of a question. stops: an answer is over where `end` is written, which is no token of the vocabulary. only_images: of a question only the
    image is kept. jinja: the source of a checkpoint's template, kept for its export. raw: a text of the user is a whole prompt, and what stands in front of it is the tokenizer's business (`Tokenizer.encode_raw`).
    """

    name: str
    bos: bool = True
    first: str | None = None
    user: tuple[str, str] = ("", "")
    assistant: tuple[str, str] = ("", "")
    end: str = ""
    eos: bool = True
    whole: bool = False
    joined: bool = False
    marks: tuple[str, str] = ("", "")
    stops: bool = False
    only_images: bool = False
    raw: bool = False
    jinja: str = ""


class Piece(NamedTuple):
    """A run of tokens, or the place of one image: `image` is then the number of its tiles, and the layout says how many tokens each has; 0 for a run of tokens."""

    ids: tuple[int, ...] = ()
    supervised: bool = False
    image: int = 0


class Span(NamedTuple):
    text: str
    supervised: bool = False


def spans(template: Template, eos: str, turns: Sequence[Turn], prompt: bool = False) -> list[Span]:
    """The parts of a conversation as text, images as marks, without BOS. eos: the text of that token. `prompt`: see `render`."""
    out = []
    for i, turn in enumerate(turns):
        if turn.role == "assistant":
            prefix, suffix = template.assistant
            out += [Span(prefix), Span(turn.text, True), Span(template.end, True), Span(eos if template.eos else "", True), Span(suffix)]
        else:
            prefix, suffix = template.user
            text = IMAGE_MARK * turn.text.count(IMAGE_MARK) if template.only_images else turn.text.replace(IMAGE_MARK, IMAGE_MARK.join(template.marks))
            out += [Span(template.first if i == 0 and template.first is not None else prefix), Span(text), Span(suffix)]
    if prompt:  # a space before an answer is in the answer's first token
        out.append(Span(template.assistant[0].rstrip(" ") if template.whole else template.assistant[0]))
    return [span for span in out if span.text]


def render(template: Template, tokenizer: Tokenizer, turns: Sequence[Turn], prompt: bool = False) -> list[Piece]:
    """The pieces of a conversation; empty ones are left out.

    `prompt`: the turns end with the user's, and the pieces end where the answer begins: `render(turns[:-1], prompt=True)` is a
    prefix of `render(turns)`, whose next token is the first of the answer.
    """
    if prompt and (not turns or turns[-1].role != "user"):
        raise UserError("conversation: a prompt ends with a turn of the user")
    for role, needed in (("bos", template.bos), ("eos", template.eos)):
        if needed and getattr(tokenizer, role) is None:
            raise UserError(f"conversation: the template {template.name!r} needs a token for {role}, and the tokenizer has none")
    pieces = [Piece((tokenizer.bos,))] if template.bos else []
    if template.raw:
        pieces += [piece for turn in turns for piece in (_raw(tokenizer, turn.text) if turn.role == "user" else _parts(tokenizer, [Span(turn.text, True)]))]
    else:
        found = spans(template, tokenizer.text_of(tokenizer.eos) if template.eos else "", turns, prompt)
        pieces += _whole(tokenizer, found) if template.whole else _parts(tokenizer, _joined(found) if template.joined else found)
    return [part for piece in pieces if piece.ids or piece.image for part in _between(tokenizer.around, piece)]


def _between(around: Sequence[int], piece: Piece) -> list[Piece]:
    """An image's place between the tokens that stand around it."""
    if not piece.image or not around:
        return [piece]
    before, behind = around
    return [Piece((before,)), piece, Piece((behind,))]


def _joined(found: Sequence[Span]) -> list[Span]:
    """Neighbours that are supervised, or are not, as one."""
    return [Span("".join(span.text for span in run), supervised) for supervised, run in itertools.groupby(found, lambda span: span.supervised)]


def _parts(tokenizer: Tokenizer, found: Sequence[Span]) -> Iterator[Piece]:
    """Each span tokenised on its own."""
    for text, supervised in found:
        for i, part in enumerate(text.split(IMAGE_MARK)):
            if i:
                yield Piece(image=1)
            yield Piece(tuple(tokenizer.encode(part)), supervised)


def _whole(tokenizer: Tokenizer, found: Sequence[Span]) -> Iterator[Piece]:
    """The spans as one string; a token is supervised when it holds a character of a supervised span.

        spans      … ASSISTANT:·   The answer   </s>
        tokens     … ASS IST ANT :  ▁The ▁answer </s>        ▁The holds the space before the answer, too
    """
    mark = IMAGE_MARK if tokenizer.image is None else tokenizer.text_of(tokenizer.image)
    text = "".join(span.text for span in found).replace(IMAGE_MARK, mark)
    learned = b"".join((b"\1" if span.supervised else b"\0") * len(span.text.replace(IMAGE_MARK, mark)) for span in found)
    if tokenizer.image is not None:
        chunks = [text]  # the mark is a token
    else:
        chunks = text.split(mark)
    start = 0
    for i, chunk in enumerate(chunks):
        if i:
            yield Piece(image=1)
            start += len(mark)
        run: list[int] = []
        flag = False
        for id_, begin, stop in tokenizer.encode_with_offsets(chunk):
            supervised = learned.find(1, start + begin, start + (stop if stop > begin else begin + 1)) >= 0
            image = id_ == tokenizer.image
            if run and (image or supervised != flag):
                yield Piece(tuple(run), flag)
                run = []
            if image:
                yield Piece(image=1)
            else:
                run.append(id_)
                flag = supervised
        yield Piece(tuple(run), flag)
        start += len(chunk)


def _raw(tokenizer: Tokenizer, prompt: str) -> list[Piece]:
    """A prompt as its family's processor tokenises it: whole where the vocabulary has an image token, else part by part between the images."""
    if tokenizer.image is None:
        first, *rest = prompt.split(IMAGE_MARK)
        return [Piece(tuple(tokenizer.encode_raw(first))), *(piece for text in rest for piece in (Piece(image=1), Piece(tuple(tokenizer.encode(text)))))]
    pieces, ids = [], []
    for id_ in tokenizer.encode_raw(prompt.replace(IMAGE_MARK, tokenizer.text_of(tokenizer.image))):
        if id_ == tokenizer.image:
            pieces += [Piece(tuple(ids)), Piece(image=1)]
            ids = []
        else:
            ids.append(id_)
    return [*pieces, Piece(tuple(ids))]


RAW = Template("raw", bos=False, eos=False, raw=True)
# haotian-liu/LLaVA, llava/conversation.py: conv_vicuna_v1, conv_llava_llama_2, conv_mistral_instruct, conv_chatml_direct and conv_llava_plain. Vision-CAIR/MiniGPT-4,
# train_configs/minigpt4_stage2_finetune.yaml, minigpt4_llama2_stage2_finetune.yaml and models/minigpt_base.py; further turns as its conversation.py joins them.
_VICUNA = ("A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the user's questions.")
_LLAMA_2 = ("You are a helpful language and vision assistant. You are able to understand the visual content that the user provides, "
            "and assist the user with a variety of tasks using natural language.")
TEMPLATES = {template.name: template for template in (
    Template("plain_qa"),
    Template("vicuna_v1", first=f"{_VICUNA} USER: ", user=("USER: ", " "), assistant=("ASSISTANT: ", ""), whole=True),
    Template("llama_2", first=f"[INST] <<SYS>>\n{_LLAMA_2}\n<</SYS>>\n\n", user=("<s>[INST] ", " [/INST]"), assistant=(" ", ""), end=" ", whole=True),
    Template("mistral", user=("[INST] ", " [/INST]"), assistant=(" ", ""), end=" ", whole=True),
    Template("chatml", first="<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\n", user=("<|im_start|>user\n", "<|im_end|>"),
             assistant=("<|im_start|>assistant\n", ""), end="<|im_end|>", eos=False, whole=True),
    Template("plain", end="\n", eos=False, whole=True, only_images=True),
    Template("minigpt4", first="###Human: ", user=("Human: ", " "), assistant=("###Assistant: ", ""), end="###", eos=False, joined=True, marks=("<Img>", "</Img>"), stops=True),
    Template("minigpt4_llama_2", first="[INST] ", user=("<s>[INST] ", " [/INST] "), joined=True, marks=("<Img>", "</Img>")),
)}  # fmt: skip
