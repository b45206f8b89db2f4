"""Chat templates: turns → token ids, with what is supervised known from the structure and never found again by tokenising twice."""
import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from vlmjax.data.example import IMAGE_MARK, Turn
from vlmjax.data.tokenizer import Tokenizer
from vlmjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Template:
    """How turns are written. A turn is prefix + text + suffix; an answer is prefix + text + eos + suffix, with text and eos supervised.

        <bos>  user[0] question user[1]  assistant[0] answer <eos> assistant[1]  user[0] …
                                                      ------------ supervised

    raw: a text of the user is a whole prompt, and what stands in front of it is the tokenizer's business (see `Tokenizer.encode_raw`).
    """

    name: str
    bos: bool = True
    user: tuple[str, str] = ("", "")
    assistant: tuple[str, str] = ("", "")
    eos: bool = True
    raw: bool = False


class Piece(NamedTuple):
    """A run of tokens, or (`image`) the place of one image, which has as many tokens as the layout says."""

    ids: tuple[int, ...] = ()
    supervised: bool = False
    image: bool = False


def render(template: Template, tokenizer: Tokenizer, turns: Sequence[Turn], prompt: bool = False) -> list[Piece]:
    """The pieces of a conversation, each tokenised on its own; empty ones are left out.

    `prompt`: the turns end with the user's, and the pieces end where the answer begins: `render(turns[:-1], prompt=True)` is a
    prefix of `render(turns)`, whose next token is the first of the answer.
    """
    if prompt and (not turns or turns[-1].role != "user"):
        raise UserError("conversation: a prompt ends with a turn of the user")
    pieces = [Piece((tokenizer.bos,))] if template.bos else []
    for turn in turns:
        answer = turn.role == "assistant"
        prefix, suffix = template.assistant if answer else template.user
        if template.raw and not answer:
            pieces += _raw(tokenizer, turn.text)
            continue
        pieces.append(Piece(tuple(tokenizer.encode(prefix))))
        for i, text in enumerate(turn.text.split(IMAGE_MARK)):
            if i:
                pieces.append(Piece(image=True))
            pieces.append(Piece(tuple(tokenizer.encode(text)), supervised=answer))
        if answer and template.eos:
            pieces.append(Piece((tokenizer.eos,), supervised=True))
        pieces.append(Piece(tuple(tokenizer.encode(suffix))))
    if prompt:
        pieces.append(Piece(tuple(tokenizer.encode(template.assistant[0]))))
    return [piece for piece in pieces if piece.ids or piece.image]


def _raw(tokenizer: Tokenizer, prompt: str) -> list[Piece]:
    """A prompt as its family's processor tokenises it: whole where the vocabulary has an image token, else part by part between the images."""
    if tokenizer.image is None:
        first, *rest = prompt.split(IMAGE_MARK)
        return [Piece(tuple(tokenizer.encode_raw(first))), *(piece for text in rest for piece in (Piece(image=True), Piece(tuple(tokenizer.encode(text)))))]
    pieces, ids = [], []
    for id_ in tokenizer.encode_raw(prompt):
        if id_ == tokenizer.image:
            pieces += [Piece(tuple(ids)), Piece(image=True)]
            ids = []
        else:
            ids.append(id_)
    return [*pieces, Piece(tuple(ids))]


RAW = Template("raw", bos=False, eos=False, raw=True)
TEMPLATES = {template.name: template for template in (Template("plain_qa"),)}
