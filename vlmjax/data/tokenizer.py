"""One interface to the tokenizers of runs and of published checkpoints, and a word-level vocabulary for small closed worlds."""
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tokenizers
from etils import epath
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from vlmjax import files
from vlmjax.data import byte_level, gguf_vocabulary, sentencepiece
from vlmjax.data.example import IMAGE_MARK
from vlmjax.errors import UserError

SPECIALS = {"pad": "<pad>", "bos": "<s>", "eos": "</s>", "image": IMAGE_MARK}  # of our own vocabularies
FILE, MODEL = "tokenizer.json", "tokenizer.model"
VOCABULARY, MERGES = "vocab.json", "merges.txt"  # of checkpoints without a tokenizer.json, beside added_tokens.json
# InternVL's, as tokenizer_config.json names them, and what they are.
MARKS, IMAGE_TOKENS = ("start_image_token", "end_image_token", "context_image_token"), ("<img>", "</img>", "<IMG_CONTEXT>")


class Tokenizer:
    """Token ids of texts. `pad`, `bos`, `eos` and `image` are the ids of the special tokens, None where there is none; `stops`: all ids that end an
    answer, `eos` first; `around`: the ids that stand before and behind the tokens of an image, where the model has such; `vocabulary`: one more than the largest id; `control`: texts of special tokens, which a data set must not spell out."""

    def __init__(self, backend: tokenizers.Tokenizer, roles: Mapping[str, int | None], stops: Sequence[int] = (), around: Sequence[int] = ()):
        self.pad, self.bos, self.eos, self.image = (roles.get(role) for role in SPECIALS)
        self.stops = tuple(dict.fromkeys(id_ for id_ in (self.eos, *stops) if id_ is not None))
        self.around = tuple(around)
        self.vocabulary = 1 + max(backend.get_vocab(with_added_tokens=True).values())
        self.control = tuple(dict.fromkeys(backend.id_to_token(id_) for id_ in (self.pad, self.bos, self.eos, *self.around) if id_ is not None))
        self._backend = backend
        self._closed = isinstance(backend.model, models.WordLevel)

    def encode(self, text: str) -> list[int]:
        """Ids of exactly this text: nothing is added, special tokens written out in it are recognised."""
        if self._closed:
            self._refuse_unknown(text)
        return self._backend.encode(text, add_special_tokens=False).ids

    def encode_with_offsets(self, text: str) -> list[tuple[int, int, int]]:
        """(id, begin, stop) of each token of `encode`: the characters of the text that it stands for."""
        if self._closed:
            self._refuse_unknown(text)
        encoding = self._backend.encode(text, add_special_tokens=False)
        return [(id_, begin, stop) for id_, (begin, stop) in zip(encoding.ids, encoding.offsets)]

    def encode_raw(self, text: str) -> list[int]:
        """Ids of a raw prompt, with what its family's tokenizer puts around one: CLIP's start and end, Llama's start, nothing for Qwen2."""
        if self._closed:
            self._refuse_unknown(text)
        return self._backend.encode(text).ids

    def decode(self, ids: Sequence[int], special: bool = False) -> str:
        """The text of `ids`, special tokens dropped unless `special`."""
        return self._backend.decode([int(i) for i in ids], skip_special_tokens=not special)

    def text_of(self, id_: int) -> str:
        """The token itself, as the vocabulary spells it."""
        return self._backend.id_to_token(id_)

    def with_tokens(self, texts: Sequence[str]) -> "Tokenizer":
        """This one and, behind its vocabulary, special tokens of these texts, of which `<image>` is the place of an image, or `<IMG_CONTEXT>` with `<img>` and `</img>` around it."""
        backend = tokenizers.Tokenizer.from_str(self._backend.to_str())
        for text in texts:
            if not text or backend.token_to_id(text) is not None:
                raise UserError(f"added_tokens: {text!r} {'is in the vocabulary already' if text else 'is no token'}")
            backend.add_special_tokens([tokenizers.AddedToken(text, special=True, normalized=False)])
        image, around = backend.token_to_id(IMAGE_MARK) if IMAGE_MARK in texts else self.image, self.around
        if set(IMAGE_TOKENS) <= set(texts):
            *around, image = map(backend.token_to_id, IMAGE_TOKENS)
        return Tokenizer(backend, {**{role: getattr(self, role) for role in SPECIALS}, "image": image}, self.stops, around)

    def digest(self) -> str:
        """SHA-256 of everything that decides which ids a text becomes."""
        return hashlib.sha256(json.dumps([self._backend.to_str(), self.ids()], sort_keys=True).encode()).hexdigest()

    def save(self, path: str | os.PathLike) -> None:
        files.write(path, self._backend.to_str(pretty=True))

    def transformers_config(self) -> dict[str, Any]:
        """tokenizer_config.json beside a saved tokenizer.json, for transformers' AutoTokenizer."""
        roles = {f"{role}_token": self.text_of(id_) for role in ("bos", "eos", "pad") if (id_ := getattr(self, role)) is not None}
        # transformers' processor asks for a token of videos, too, whether or not there are any.
        marks = {**dict(zip(MARKS, map(self.text_of, (*self.around, self.image)))), "video_token": "<video>"} if self.around else {}
        return {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **roles, **({"extra_special_tokens": marks} if marks else {})}

    def ids(self) -> dict[str, Any]:
        """What a tokenizer.json does not say, for `load`."""
        return {**{role: getattr(self, role) for role in SPECIALS}, "stops": list(self.stops), **({"around": list(self.around)} if self.around else {})}

    @classmethod
    def load(cls, path: str | os.PathLike, ids: Mapping[str, Any] | None = None) -> "Tokenizer":
        """A tokenizer.json with the special tokens `ids` (see the method of that name); without them, it has those of SPECIALS."""
        backend = _backend(epath.Path(path))
        if ids is not None:
            if unknown := [role for role in SPECIALS if ids.get(role) is not None and backend.id_to_token(ids[role]) is None]:
                raise UserError(f"{path}: has no token {ids[unknown[0]]}, which config.json gives for {unknown[0]}")
            return cls(backend, ids, ids.get("stops", ()), ids.get("around", ()))
        roles = {role: backend.token_to_id(token) for role, token in SPECIALS.items()}
        if missing := [SPECIALS[role] for role, id_ in roles.items() if id_ is None]:
            raise UserError(f"{path}: has no special token {', '.join(missing)}")
        return cls(backend, roles)

    def _refuse_unknown(self, text: str) -> None:
        """A word-level model without <unk> fails on an unknown word, but does not say which."""
        for token in SPECIALS.values():
            text = text.replace(token, " ")
        for word, _ in self._backend.pre_tokenizer.pre_tokenize_str(self._backend.normalizer.normalize_str(text)):
            if self._backend.token_to_id(word) is None:
                raise UserError(f"tokenizer: the word {word!r} of {text.strip()!r} is not in its vocabulary of {self.vocabulary}")


def from_checkpoint(directory: epath.PathLike, config: Mapping[str, Any] | None = None, marks: Sequence[str] = ()) -> Tokenizer:
    """The tokenizer of a published checkpoint's directory. Its roles are named by tokenizer_config.json, else by special_tokens_map.json, else by ids in
    `config` (its config.json); the image token by `config`; further ends of an answer by generation_config.json. marks: the tokens before and behind an image and the one of
    its place, where they are known by their texts and no file names them."""
    directory, config = epath.Path(directory), config or {}
    named = {**(files.read_json(directory / "special_tokens_map.json") or {}), **(files.read_json(directory / "tokenizer_config.json") or {})}
    backend = _published(directory, named, config)
    text = config.get("text_config") or {}
    roles: dict[str, int | None] = {}
    for role in ("pad", "bos", "eos"):
        token = _text(named.get(f"{role}_token"))
        if token is not None:
            roles[role] = backend.token_to_id(token)
            if roles[role] is None:
                raise UserError(f"{directory}: {role}_token {token!r} is not in the vocabulary of {FILE}")
        elif f"{role}_token" not in named:
            ids = _ids(config.get(f"{role}_token_id", text.get(f"{role}_token_id")))
            roles[role] = ids[0] if ids else None
    if lacking := [mark for mark in marks if backend.token_to_id(mark) is None]:
        raise UserError(f"{directory}: {lacking[0]}, which stands {'in the place of' if lacking[0] == marks[-1] else 'beside'} an image, is not in the vocabulary")
    roles["image"] = backend.token_to_id(marks[-1]) if marks else _image(backend, config, directory)
    ends = _ids((files.read_json(directory / "generation_config.json") or {}).get("eos_token_id")) + _ids(config.get("eos_token_id", text.get("eos_token_id")))
    known = backend.get_vocab_size(with_added_tokens=True)
    texts = {**named, **(extra if isinstance(extra := named.get("extra_special_tokens"), Mapping) else {})}
    around = [backend.token_to_id(text) for text in marks[:-1] or map(_text, map(texts.get, MARKS[:2])) if text]
    if None in around:
        raise UserError(f"{directory}: {' or '.join(MARKS[:2])} is not in the vocabulary of {FILE}")
    return Tokenizer(backend, roles, [id_ for id_ in ends if id_ < known], around if len(around) == 2 else ())


def from_gguf(metadata: Mapping[str, Any], where: str) -> Tokenizer:
    """The tokenizer in the metadata of a GGUF file, `where` by name. It has no image token; answers end at `eos`, `eot` and `eom`."""
    backend = gguf_vocabulary.backend(metadata, where)
    ids = {name: gguf_vocabulary.id_of(metadata, f"{name}_token_id", backend.get_vocab_size(), where) for name in ("padding", "bos", "eos", "eot", "eom")}
    return Tokenizer(backend, {**ids, "pad": ids["padding"]}, [id_ for name in ("eot", "eom") if (id_ := ids[name]) is not None])


def _published(directory: epath.Path, named: Mapping[str, Any], config: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """tokenizer.json, or tokenizer.model and the tokens that were added to it."""
    llama = str(named.get("tokenizer_class")).removesuffix("Fast") == "LlamaTokenizer"
    if (directory / FILE).exists():
        backend = _backend(directory / FILE)
        # transformers 5 gives this class its own spaces whatever the file says, except beside an image processor.
        llama = llama and config.get("model_type") != "llava"
    elif (directory / MODEL).exists():
        backend = sentencepiece.backend((directory / MODEL).read_bytes(), str(directory / MODEL))
        _add(backend, {id_: tokenizers.AddedToken(token.content, special=True, normalized=False) for id_, token in _added(directory, named).items()}, directory, MODEL)
        llama = True
    elif (directory / VOCABULARY).exists() and (directory / MERGES).exists():
        backend = _of_vocabulary(directory, named)
        _add(backend, _added(directory, named), directory, VOCABULARY)
    else:
        raise UserError(f"{directory}: holds no tokenizer: neither {FILE}, nor {MODEL}, nor {VOCABULARY} and {MERGES}")
    if llama:
        sentencepiece.llama_spaces(backend, bool(named.get("legacy")))
    if llama and (not (directory / FILE).exists() or {"add_bos_token", "add_eos_token"} & set(named)):
        bos, eos = (_text(named.get(f"{role}_token")) or default for role, default in (("bos", "<s>"), ("eos", "</s>")))
        for token in (bos, eos):
            if backend.token_to_id(token) is None:
                raise UserError(f"{directory}: {token!r} is not in the vocabulary of its tokenizer")
        sentencepiece.surround(backend, bos if named.get("add_bos_token", True) else None, eos if named.get("add_eos_token") else None)
    return backend


def _of_vocabulary(directory: epath.Path, named: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """vocab.json and merges.txt, which do not say how words are split: the tokenizer's class does."""
    kind = str(named.get("tokenizer_class")).removesuffix("Fast")
    if kind != "Qwen2Tokenizer":
        raise UserError(f"{directory}: {VOCABULARY} and {MERGES} are of a {kind} (tokenizer_class), and without a {FILE} vlmjax reads only Qwen2Tokenizer's; transformers writes one: AutoTokenizer.from_pretrained(…).save_pretrained(…)")
    vocabulary = files.read_json(directory / VOCABULARY)
    _check(vocabulary, directory / VOCABULARY)
    try:
        lines = (directory / MERGES).read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{directory / MERGES}: is not UTF-8: {error.reason}") from None
    return byte_level.backend(vocabulary, [line for i, line in enumerate(lines) if line and not (i == 0 and line.startswith("#version"))], "qwen2", f"{directory / MERGES}")


def _check(ids: Any, path: epath.Path) -> None:
    """UserError where it is no object of tokens, each with an id of its own."""
    if not isinstance(ids, dict) or not all(type(id_) is int and id_ >= 0 for id_ in ids.values()):
        raise UserError(f"{path}: is not an object of tokens and their ids")
    if len(set(ids.values())) != len(ids):
        raise UserError(f"{path}: two tokens have one id")


def _added(directory: epath.Path, named: Mapping[str, Any]) -> dict[int, tokenizers.AddedToken]:
    """The tokens behind a vocabulary. tokenizer_config.json says how they are found in a text; of one that only added_tokens.json has, whether it is special decides, as in transformers."""
    special = {_text(token) for name, value in named.items() if name.endswith("_token") or name.endswith("_special_tokens") for token in (value if isinstance(value, list) else [value])
               if isinstance(token, str | Mapping)}
    extra = files.read_json(directory / "added_tokens.json") or {}
    _check(extra, directory / "added_tokens.json")
    added = {id_: tokenizers.AddedToken(token, special=token in special, normalized=token not in special)
             for token, id_ in extra.items()}
    for id_, token in (named.get("added_tokens_decoder") or {}).items():
        if not str(id_).isdecimal() or not isinstance(_text(token), str):
            raise UserError(f"{directory / 'tokenizer_config.json'}: added_tokens_decoder has {id_!r}: {token!r:.80}, not an id and a token")
        how = token if isinstance(token, Mapping) else {}
        flags = {flag: bool(how.get(flag)) for flag in ("lstrip", "rstrip", "single_word", "normalized", "special")}
        added[int(id_)] = tokenizers.AddedToken(_text(token), **flags)
    return added


def _add(backend: tokenizers.Tokenizer, added: Mapping[int, tokenizers.AddedToken], directory: epath.Path, file: str) -> None:
    for id_, token in sorted(added.items()):
        backend.add_tokens([token])
        if backend.token_to_id(token.content) != id_:
            raise UserError(f"{directory}: the added token {token.content!r} should have the id {id_}, and {file} makes it {backend.token_to_id(token.content)}")


def _text(token: Any) -> str | None:
    """A token in a JSON file is a string or a group of which it is the content."""
    return token.get("content") if isinstance(token, Mapping) else token


def _image(backend: tokenizers.Tokenizer, config: Mapping[str, Any], directory: epath.Path) -> int | None:
    """The id that marks an image's place, which the config names; it must be a token."""
    id_ = config.get("image_token_index", config.get("image_token_id"))
    if id_ is not None and backend.id_to_token(id_) is None:
        raise UserError(f"{directory}: config.json has the image token {id_}, which {FILE} lacks; is it the tokenizer of the language model alone?")
    return id_


def _ids(value: Any) -> list[int]:
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]


def _backend(path: epath.Path) -> tokenizers.Tokenizer:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file; a model needs its tokenizer beside it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    try:
        return tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare Exception
        raise UserError(f"{path}: is not a tokenizer.json: {error}") from None


def word_level(texts: Iterable[str]) -> Tokenizer:
    """The vocabulary of `texts`: the specials (ids 0 to 3), then lower-cased words and single punctuation marks in sorted order."""
    normalizer, splitter = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
    words = {word for text in set(texts) for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))}
    vocabulary = {token: i for i, token in enumerate([*SPECIALS.values(), *sorted(words)])}
    backend = tokenizers.Tokenizer(models.WordLevel(vocabulary))
    backend.normalizer, backend.pre_tokenizer = normalizer, splitter
    backend.decoder = decoders.WordPiece(cleanup=True)  # joins words with spaces, and none before . , ? !
    backend.add_special_tokens([tokenizers.AddedToken(token, special=True, normalized=False) for token in SPECIALS.values()])
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", backend.token_to_id("<s>"))])
    return Tokenizer(backend, {role: backend.token_to_id(token) for role, token in SPECIALS.items()})
