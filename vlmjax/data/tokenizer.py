"""One interface to a tokenizer.json, and a word-level vocabulary for small closed worlds."""
import os
from collections.abc import Iterable, Sequence

import tokenizers
from etils import epath
from tokenizers import decoders, models, normalizers, pre_tokenizers

from vlmjax.data.example import IMAGE_MARK
from vlmjax.errors import UserError

SPECIALS = {"pad": "<pad>", "bos": "<s>", "eos": "</s>", "image": IMAGE_MARK}


class Tokenizer:
    """Token ids of texts. `pad`, `bos`, `eos` and `image` are the ids of the special tokens, `vocabulary` is the number of ids."""

    def __init__(self, backend: tokenizers.Tokenizer, name: str = "tokenizer"):
        ids = {role: backend.token_to_id(token) for role, token in SPECIALS.items()}
        if missing := [SPECIALS[role] for role, id_ in ids.items() if id_ is None]:
            raise UserError(f"{name}: has no special token {', '.join(missing)}")
        self.pad, self.bos, self.eos, self.image = ids["pad"], ids["bos"], ids["eos"], ids["image"]
        self.vocabulary = backend.get_vocab_size()
        self.control = tuple(SPECIALS[role] for role in ("pad", "bos", "eos"))  # what a text must not spell out
        self._backend = backend
        self._closed = isinstance(backend.model, models.WordLevel)

    def encode(self, text: str) -> list[int]:
        """Ids of exactly this text: nothing is added, special tokens written out in it are recognised."""
        if self._closed:
            self._refuse_unknown(text)
        return self._backend.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens dropped."""
        return self._backend.decode([int(i) for i in ids], skip_special_tokens=True)

    def save(self, path: str | os.PathLike) -> None:
        epath.Path(path).write_text(self._backend.to_str(pretty=True))

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Tokenizer":
        try:
            text = epath.Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: cannot be read: {error}") from None
        try:
            backend = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises bare Exception
            raise UserError(f"{path}: is not a tokenizer.json: {error}") from None
        return cls(backend, name=str(path))

    def _refuse_unknown(self, text: str) -> None:
        """A word-level model without <unk> fails on an unknown word, but does not say which."""
        for token in SPECIALS.values():
            text = text.replace(token, " ")
        for word, _ in self._backend.pre_tokenizer.pre_tokenize_str(self._backend.normalizer.normalize_str(text)):
            if self._backend.token_to_id(word) is None:
                raise UserError(f"tokenizer: the word {word!r} of {text.strip()!r} is not in its vocabulary of {self.vocabulary}")


def word_level(texts: Iterable[str]) -> Tokenizer:
    """The vocabulary of `texts`: the specials (ids 0 to 3), then lower-cased words and single punctuation marks in sorted order."""
    normalizer, splitter = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
    words = {word for text in set(texts) for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))}
    vocabulary = {token: i for i, token in enumerate([*SPECIALS.values(), *sorted(words)])}
    backend = tokenizers.Tokenizer(models.WordLevel(vocabulary))
    backend.normalizer, backend.pre_tokenizer = normalizer, splitter
    backend.decoder = decoders.WordPiece(cleanup=True)  # joins words with spaces, and none before . , ? !
    backend.add_special_tokens([tokenizers.AddedToken(token, special=True, normalized=False) for token in SPECIALS.values()])
    return Tokenizer(backend)
