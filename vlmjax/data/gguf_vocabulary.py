"""The vocabulary in a GGUF file's metadata (`tokenizer.ggml.*`) → a `tokenizers` backend with the ids of the original tokenizer."""
from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer

from vlmjax.data import byte_level, sentencepiece
from vlmjax.data.byte_level import SPLITS
from vlmjax.errors import UserError, did_you_mean

KEY = "tokenizer.ggml."
UNUSED = 5  # fills a vocabulary up to the rows of the embedding; the other types are SentencePiece's


def backend(metadata: Mapping[str, Any], where: str) -> Tokenizer:
    """Byte-level BPE (`gpt2`) or SentencePiece BPE (`llama`), with BOS and EOS around a raw prompt where the file says so. SentencePiece's spaces
    are those of transformers' LlamaTokenizer (not `legacy`), since a file does not say which its original has."""
    readers = {"gpt2": _byte_level, "llama": _sentencepiece}
    kind = _name(metadata, "model")
    if kind not in readers:
        raise UserError(f"{where}: {KEY}model is {kind!r}, and vlmjax reads {' and '.join(readers)}")
    tokens = _texts(metadata, "tokens", where)
    types = _numbers(metadata, "token_type", int, len(tokens), where) if KEY + "token_type" in metadata else [sentencepiece.NORMAL] * len(tokens)
    used = next((n for n in range(len(tokens), 0, -1) if types[n - 1] != UNUSED), 0)
    tokens, types = tokens[:used], types[:used]
    if len(tokens) != len(set(tokens)) or not tokens:
        raise UserError(f"{where}: {KEY}tokens is empty or spells two tokens alike; is the file damaged?")
    out = readers[kind](metadata, tokens, types, where)
    add = {role: metadata.get(f"{KEY}add_{role}_token", default) for role, default in (("bos", kind == "llama" or metadata.get(KEY + "pre") == "llama-bpe"), ("eos", False))}
    around = {role: tokens[id_] if add[role] and (id_ := id_of(metadata, f"{role}_token_id", len(tokens), where)) is not None else None for role in add}
    if any(around.values()):
        sentencepiece.surround(out, around["bos"], around["eos"])
    return out


def id_of(metadata: Mapping[str, Any], name: str, size: int, where: str) -> int | None:
    """A token's id by the metadata's name for it, None where the file has none."""
    id_ = metadata.get(KEY + name)
    if id_ is not None and (not isinstance(id_, int) or not 0 <= id_ < size):
        raise UserError(f"{where}: {KEY}{name} is {repr(id_)[:60]}, and the vocabulary has {size} tokens")
    return id_


def _byte_level(metadata: Mapping[str, Any], tokens: list[str], types: list[int], where: str) -> Tokenizer:
    pre = _name(metadata, "pre")
    if pre not in SPLITS:
        raise UserError(f"{where}: {KEY}pre is {pre!r}, which says how words are split and is not known; known: {', '.join(SPLITS)}{did_you_mean(pre, SPLITS)}")
    out = byte_level.backend({token: i for i, token in enumerate(tokens)}, _texts(metadata, "merges", where), pre, f"{where}: {KEY}merges")
    sentencepiece.add_special(out, zip(tokens, types))
    return out


def _sentencepiece(metadata: Mapping[str, Any], tokens: list[str], types: list[int], where: str) -> Tokenizer:
    scores = _numbers(metadata, "scores", float, len(tokens), where)
    if metadata.get(KEY + "add_space_prefix", True) is not True or metadata.get(KEY + "remove_extra_whitespaces", False):
        raise UserError(f"{where}: {KEY}add_space_prefix or remove_extra_whitespaces differs from Llama's, and vlmjax reads no other SentencePiece vocabulary")
    out = sentencepiece.of_pieces(list(zip(tokens, scores, types)))
    sentencepiece.llama_spaces(out, legacy=False)
    return out


def _name(metadata: Mapping[str, Any], name: str) -> str:
    """A short text; `nothing` where there is none."""
    return str(metadata.get(KEY + name, "nothing"))[:60]


def _texts(metadata: Mapping[str, Any], name: str, where: str) -> list[str]:
    found = metadata.get(KEY + name)
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise UserError(f"{where}: has no {KEY}{name}, a list of texts, so its tokenizer cannot be made")
    return found


def _numbers(metadata: Mapping[str, Any], name: str, kind: type, size: int, where: str) -> list[Any]:
    """At least `size` of them: behind the tokens that are used there may be more."""
    found = metadata.get(KEY + name)
    if not isinstance(found, list) or len(found) < size or not all(isinstance(number, kind) for number in found):
        raise UserError(f"{where}: {KEY}{name} is not one number for each of {size} tokens; is the file damaged?")
    return found
