"""SentencePiece's `tokenizer.model` → a `tokenizers` backend. Vicuna ships nothing else.

Only what is needed of its format (sentencepiece_model.proto): ModelProto.pieces = 1 {piece = 1, score = 2, type = 3},
ModelProto.trainer_spec = 2 {model_type = 3}.
"""
import struct
from collections.abc import Iterable, Iterator, Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from vlmjax.errors import UserError

BPE = 2  # TrainerSpec.ModelType; 1 is unigram
NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4  # SentencePiece.Type
SPACE = "▁"
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def backend(data: bytes, name: str) -> Tokenizer:
    """A BPE model with byte fallback, as Llama's: vocabulary, merges by rank, special tokens. Spaces and BOS come after."""
    pieces, kind = [], BPE
    try:
        for field, value in _fields(data):
            if field == 1:
                piece = dict(_fields(value))
                pieces.append((piece[1].decode(), struct.unpack("<f", piece.get(2, bytes(4)))[0], piece.get(3, NORMAL)))
            elif field == 2:
                kind = dict(_fields(value)).get(3, 1)
    except (IndexError, KeyError, ValueError, struct.error) as error:
        raise UserError(f"{name}: is not a SentencePiece model ({len(data)} bytes): {error!r}; was it copied completely?") from None
    if not pieces:
        raise UserError(f"{name}: is not a SentencePiece model: it holds no pieces")
    if kind != BPE:
        raise UserError(f"{name}: is a SentencePiece model of type {kind}, and vlmjax reads those of type {BPE} (BPE)")
    return of_pieces(pieces)


def of_pieces(pieces: Sequence[tuple[str, float, int]]) -> Tokenizer:
    """pieces: (text, score, type) in the order of their ids."""
    vocabulary = {piece: i for i, (piece, _, _) in enumerate(pieces)}
    unknown = next((piece for piece, _, type_ in pieces if type_ == UNKNOWN), None)
    out = Tokenizer(models.BPE(vocabulary, _merges(pieces, vocabulary), unk_token=unknown, fuse_unk=True, byte_fallback=True))
    add_special(out, ((piece, type_) for piece, _, type_ in pieces))
    return out


def add_special(tokenizer: Tokenizer, tokens: Iterable[tuple[str, int]]) -> None:
    """Makes those of (text, type) that no merge may cross known as such; all of them are in the vocabulary."""
    special = [AddedToken(token, special=type_ != USER_DEFINED, normalized=False) for token, type_ in tokens if type_ in (UNKNOWN, CONTROL, USER_DEFINED)]
    tokenizer.add_special_tokens([token for token in special if token.special])
    tokenizer.add_tokens([token for token in special if not token.special])


def llama_spaces(tokenizer: Tokenizer, legacy: bool) -> None:
    """Gives a backend the spaces of transformers' LlamaTokenizer: `▁` for a space and one before the text (legacy: before every part of it
    that a special token ends)."""
    tokenizer.normalizer = None
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always" if legacy else "first", split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(content=" ", left=1)])


def surround(tokenizer: Tokenizer, bos: str | None, eos: str | None) -> None:
    """What a raw prompt stands between."""
    around = [token for token in (bos, "$A", eos) if token]
    tokenizer.post_processor = processors.TemplateProcessing(single=around, special_tokens=[(token, tokenizer.token_to_id(token)) for token in around if token != "$A"])


def _merges(pieces: Sequence[tuple[str, float, int]], vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """Every way to make a piece of two others, best score first: a SentencePiece model stores the results of merges only."""
    found = []
    for piece, score, type_ in pieces:
        if type_ != NORMAL:
            continue
        ways = [(piece[:i], piece[i:]) for i in range(1, len(piece)) if piece[:i] in vocabulary and piece[i:] in vocabulary]
        found += [(-score, vocabulary[piece], vocabulary[left], vocabulary[right], left, right) for left, right in ways]
    return [(left, right) for *_, left, right in sorted(found)]


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protobuf message, in order: numbers as int, everything else as its bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        field, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
        elif kind in (_BYTES, _FIXED64, _FIXED32):
            if kind == _BYTES:
                size, at = _varint(data, at)
            else:
                size = 8 if kind == _FIXED64 else 4
            if at + size > len(data):
                raise ValueError(f"a field of {size} bytes ends behind the file")
            value, at = data[at : at + size], at + size
        else:
            raise ValueError(f"wire type {kind}")
        yield field, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
