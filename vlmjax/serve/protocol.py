"""OpenAI's chat completions, as far as a vision-language model can keep what they promise: JSON → what is asked, and answers → JSON.

What would change an answer and is not computed here is refused, never left out without a word.
"""
import base64
import binascii
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vlmjax.bundle import Piece
from vlmjax.data.example import IMAGE_MARK, ROLES, Turn
from vlmjax.decode import Sampling
from vlmjax.errors import UserError, did_you_mean

# Fields that change no answer.
UNREAD = ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key")
# Fields that change none when they say this.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,), "presence_penalty": (0,), "frequency_penalty": (0,), "repetition_penalty": (1,), "logprobs": (False,), "logit_bias": ({},), "tools": ([],), "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False), "response_format": ({"type": "text"},), "modalities": (["text"],), "min_p": (0,), "best_of": (1,), "echo": (False,)}
READ = ("messages", "model", "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "seed", "stop", "stream", "stream_options")
MOST_STOPS = 4


class Refused(UserError):
    """A request that is not answered. status: of HTTP; param: the field at fault; code: as OpenAI calls it."""

    def __init__(self, message: str, param: str | None = None, status: int = 400, code: str = "invalid_value"):
        super().__init__(message)
        self.param, self.status, self.code = param, status, code

    def body(self) -> dict[str, Any]:
        return {"error": {"message": str(self), "type": "invalid_request_error" if self.status < 500 else "server_error", "param": self.param, "code": self.code}}


@dataclasses.dataclass(frozen=True)
class Asked:
    """A request. images: encoded files, in the order of the marks in the turns; most: tokens of the answer; stops: texts before which it ends; usage: a stream says its tokens, too."""

    turns: tuple[Turn, ...]
    images: tuple[bytes, ...]
    most: int | None
    sampling: Sampling | None
    seed: int | None
    stops: tuple[str, ...]
    stream: bool
    usage: bool


def read(body: Any, name: str, temperature: float, control: Sequence[str]) -> Asked:
    """The JSON of a request to the model `name`. temperature: where it says none. control: texts of special tokens, which nobody may write into a message."""
    if not isinstance(body, Mapping):
        raise Refused("the body is not a JSON object")
    for key, value in body.items():
        if key in READ or key in UNREAD or value is None:
            continue
        if key not in NEUTRAL:
            raise Refused(f"{key}: is not known{did_you_mean(key, (*READ, *NEUTRAL))}", key, code="unknown_parameter")
        if value not in NEUTRAL[key]:
            raise Refused(f"{key}: {value!r} is not supported, only {' or '.join(map(repr, NEUTRAL[key]))}", key, code="unsupported_value")
    if (asked := body.get("model")) not in (None, name):
        raise Refused(f"model: {asked!r} is not here; {name!r} is", "model", 404, "model_not_found")
    turns, images = _messages(body.get("messages"), control)
    most = _number(body, "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens", int, None)
    if most is not None and most < 1:
        raise Refused(f"max_tokens: {most} is less than 1", "max_tokens")
    heat, top_p, top_k = _number(body, "temperature", float, temperature), _number(body, "top_p", float, 1.0), _number(body, "top_k", int, 0)
    try:
        sampling = Sampling(heat, min(max(top_k, 0), 2**31 - 1), top_p) if heat else None  # others write -1 for all
    except UserError as error:
        raise Refused(str(error), str(error).split(":")[0]) from None
    seed = _number(body, "seed", int, None)
    if seed is not None and not 0 <= seed < 2**32:
        raise Refused(f"seed: {seed} is not between 0 and 2**32 - 1", "seed")
    stops = body.get("stop") or ()
    stops = (stops,) if isinstance(stops, str) else stops
    if not isinstance(stops, (list, tuple)) or len(stops) > MOST_STOPS or not all(isinstance(stop, str) and stop for stop in stops):
        raise Refused(f"stop: is not a text, or a list of up to {MOST_STOPS}", "stop")
    options = body.get("stream_options") or {}
    if not isinstance(options, Mapping) or set(options) - {"include_usage"}:
        raise Refused("stream_options: knows include_usage only", "stream_options")
    return Asked(turns, images, most, sampling, seed, tuple(stops), _flag(body, "stream"), _flag(options, "include_usage"))


def _messages(messages: Any, control: Sequence[str]) -> tuple[tuple[Turn, ...], tuple[bytes, ...]]:
    if not isinstance(messages, list) or not messages:
        raise Refused("messages: is not a list of messages", "messages")
    turns, images = [], []
    for i, message in enumerate(messages):
        where = f"messages[{i}]"
        if not isinstance(message, Mapping):
            raise Refused(f"{where}: is not an object", where)
        role, content = message.get("role"), message.get("content")
        if role in ("system", "developer"):
            raise Refused(f"{where}.role: the model's template brings the system message it was trained with; say it in the user's message", f"{where}.role", code="unsupported_value")
        if role != ROLES[i % 2]:
            raise Refused(f"{where}.role: {role!r}, where {ROLES[i % 2]!r} has the word: user and assistant take turns, and the user begins", f"{where}.role")
        if extra := [key for key, value in message.items() if key not in ("role", "content", "name", "refusal") and value]:
            raise Refused(f"{where}.{extra[0]}: is not supported", f"{where}.{extra[0]}", code="unsupported_value")
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if not isinstance(parts, list) or not parts:
            raise Refused(f"{where}.content: is neither a text nor a list of parts", f"{where}.content")
        text, after_image = "", False
        for k, part in enumerate(parts):
            at = f"{where}.content[{k}]" if parts is content else f"{where}.content"
            kind = part.get("type") if isinstance(part, Mapping) else None
            if kind == "text" and isinstance(part.get("text"), str):
                for token in (IMAGE_MARK, *control):
                    if token in part["text"]:
                        raise Refused(f"{at}: holds {token}, which has a meaning of its own", at)
                text += ("\n" if after_image and part["text"] else "") + part["text"]  # as the models were trained: images, a new line, the question
                after_image = after_image and not part["text"]
            elif kind == "image_url" and role == "user":
                images.append(_image(part.get("image_url"), f"{at}.image_url"))
                text, after_image = text + IMAGE_MARK, True
            else:
                raise Refused(f"{at}: is neither a text nor{' the' if role != 'user' else ''} an image_url{' of a user' if role != 'user' else ''}", at)
        if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
            raise Refused(f"{where}.content: holds half of a character (a lone surrogate)", f"{where}.content")
        turns.append(Turn(role, text))
    if turns[-1].role != "user":
        raise Refused("messages: the last one is not the user's", "messages")
    return tuple(turns), tuple(images)


def _image(value: Any, where: str) -> bytes:
    """The file in a data URL. Others are not fetched: a server that opens addresses it is given opens its own network."""
    url = value.get("url") if isinstance(value, Mapping) else value
    if not isinstance(url, str):
        raise Refused(f"{where}: has no url", where)
    head, comma, data = url.partition(",")
    if not (head.startswith("data:image/") and head.endswith(";base64") and comma):
        raise Refused(f"{where}: is not a data URL (data:image/png;base64,…), and nothing is fetched from elsewhere", where)
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise Refused(f"{where}: is not base64: {error}", where) from None


def _number(body: Mapping[str, Any], key: str, kind: type, default: Any) -> Any:
    value = body.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else int):
        raise Refused(f"{key}: {value!r} is not {'a number' if kind is float else 'a whole number'}", key)
    if value < 0 and key == "temperature":
        raise Refused(f"{key}: {value} is less than 0", key)
    try:
        return kind(value)
    except OverflowError:
        raise Refused(f"{key}: is too large a number", key) from None


def _flag(body: Mapping[str, Any], key: str) -> bool:
    value = body.get(key)
    if value not in (None, True, False):
        raise Refused(f"{key}: {value!r} is neither true nor false", key)
    return bool(value)


def until(pieces: Iterator[Piece], stops: Sequence[str], most: int) -> Iterator[tuple[str, int, str | None]]:
    """The answer up to the first of `stops` or `most` tokens: (text, tokens so far, None or why it ended: stop, length). Text that may be the beginning of a stop waits for what follows."""
    held, count = "", 0
    for piece in pieces:
        held, count = held + piece.text, piece.tokens
        places = [place for stop in stops if (place := held.find(stop)) >= 0]
        if places:
            yield held[: min(places)], count, "stop"
            return
        if piece.ended or count >= most:
            yield held, count, "stop" if piece.ended else "length"
            return
        waits = max((n for stop in stops for n in range(1, len(stop)) if held.endswith(stop[:n])), default=0)
        yield held[: len(held) - waits], count, None
        held = held[len(held) - waits :]
    yield held, count, "length"  # the model's own limit


def usage(prompt: int, answer: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


def completion(about: Mapping[str, Any], text: str, reason: str, used: Mapping[str, int]) -> dict[str, Any]:
    """about: id, created, model."""
    return {**about, "object": "chat.completion", "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "logprobs": None, "finish_reason": reason}], "usage": used}


def chunk(about: Mapping[str, Any], delta: Mapping[str, str] | None, reason: str | None = None, used: Mapping[str, int] | None = None) -> dict[str, Any]:
    """A part of a stream; without a delta the last one, which says the tokens."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]
    return {**about, "object": "chat.completion.chunk", "choices": choices, **({"usage": used} if used is not None else {})}
