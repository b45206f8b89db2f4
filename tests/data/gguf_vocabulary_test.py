"""Vocabularies in the metadata of GGUF files: how words are split, roles, and what cannot be read."""
import json
import pathlib

import numpy as np
import pytest

from vlmjax.data import gguf_vocabulary, sentencepiece
from vlmjax.data import tokenizer as tokenizers
from vlmjax.errors import UserError

GOLDEN = pathlib.Path(__file__).parent.parent / "golden"
BYTES = ["<|end|>", "<|user|>", "<think>", *"abc0123Ġ.'s", "ab", "12", "Ġa", "Ġab", "Ġ1", "ĠĠ", "'s", "Ċ", "abc"]


def vocabulary(pre, **more):
    """Merges, best first: ab, 12, Ġa, Ġ1, 's, ĠĠ; `abc` is made by none."""
    return {f"tokenizer.ggml.{key}": value for key, value in dict(
        model="gpt2", pre=pre, tokens=BYTES + ["[PAD0]", "[PAD1]"], token_type=[3, 3, 4] + [1] * (len(BYTES) - 3) + [5, 5], eos_token_id=0,
        merges=["a b", "1 2", "Ġ ab", "Ġ a", "Ġ 1", "' s", "Ġ Ġ"], **more).items()}  # fmt: skip


@pytest.mark.parametrize("pre, text, want", [
    ("smollm", "ab 12", ["ab", "Ġ", "1", "2"]),  # digits one by one, and no space with them
    ("gpt-2", "ab 12", ["ab", "Ġ", "12"]),  # digits as their merges have them
    ("qwen2", "ab 12", ["ab", "Ġ", "1", "2"]),
    ("llama-bpe", "1212 12", ["12", "1", "2", "Ġ", "12"]),  # digits by threes
    ("smollm", "a  ab's", ["a", "Ġ", "Ġab", "'s"]),
    ("qwen2", "a\n\nab", ["a", "Ċ", "Ċ", "ab"]),
    ("smollm", "abc", ["ab", "c"]),
    ("llama-bpe", "abc", ["abc"]),  # whole words before merges
    ("smollm", "<|user|>ab<think>12<|end|>", ["<|user|>", "ab", "<think>", "1", "2", "<|end|>"]),
])
def test_words_are_split_as_the_name_says(pre, text, want):
    tokenizer = tokenizers.from_gguf(vocabulary(pre), "file")
    assert [tokenizer.text_of(id_) for id_ in tokenizer.encode(text)] == want
    assert tokenizer.encode(text) == [BYTES.index(token) for token in want]
    assert tokenizer.decode(tokenizer.encode(text)) == text.replace("<|user|>", "").replace("<|end|>", "")  # <think> is no control token


def test_roles_ends_and_what_surrounds_a_raw_prompt():
    tokenizer = tokenizers.from_gguf(vocabulary("smollm", bos_token_id=1, padding_token_id=0, eot_token_id=1), "file")
    assert (tokenizer.bos, tokenizer.eos, tokenizer.pad, tokenizer.image, tokenizer.stops, tokenizer.vocabulary) == (1, 0, 0, None, (0, 1), len(BYTES))
    a = BYTES.index("a")
    assert tokenizer.encode_raw("a") == [a]
    for pre, more, want in (("smollm", {"add_bos_token": True}, [1, a]), ("smollm", {"add_bos_token": True, "add_eos_token": True}, [1, a, 0]), ("llama-bpe", {}, [1, a]),
                            ("llama-bpe", {"add_bos_token": False}, [a])):
        assert tokenizers.from_gguf(vocabulary(pre, bos_token_id=1, **more), "file").encode_raw("a") == want


def test_sentencepiece_ids_are_the_references():
    pieces = [dict(sentencepiece._fields(value)) for field, value in sentencepiece._fields((GOLDEN / "sentencepiece" / "tokenizer.model").read_bytes()) if field == 1]
    metadata = {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": [piece[1].decode() for piece in pieces], "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2,
                "tokenizer.ggml.scores": np.array([np.frombuffer(piece.get(2, bytes(4)), "<f4")[0] for piece in pieces]).tolist(),
                "tokenizer.ggml.token_type": [piece.get(3, 1) for piece in pieces]}
    want = json.loads((GOLDEN / "sentencepiece" / "ids.json").read_text())
    assert [tokenizers.from_gguf(metadata, "file").encode_raw(text) for text in want["texts"]] == want["ids"]["false"]


@pytest.mark.parametrize("key, value, message", [
    ("model", "t5", "model is 't5', and vlmjax reads gpt2 and llama"),
    ("pre", "smolm", "pre is 'smolm', .* known: gpt-2, llama-bpe, qwen2, smollm; did you mean 'smollm'"),
    ("pre", None, "pre is 'nothing'"),
    ("tokens", [], "tokens is empty"),
    ("tokens", [*BYTES[:-1], "a"], "spells two tokens alike"),
    ("token_type", [1, 1], r"token_type is not one number for each of \d+ tokens"),
    ("merges", None, "has no tokenizer.ggml.merges"),
    ("merges", ["a b", "a 1"], "merges holds 'a 1', which does not join two of its tokens to a third"),
    ("merges", ["ab"], "merges holds 'ab'"),
    ("eos_token_id", 400, r"eos_token_id is 400, and the vocabulary has \d+ tokens"),
])
def test_a_vocabulary_that_cannot_be_read_is_named(key, value, message):
    metadata = vocabulary("smollm") | {f"tokenizer.ggml.{key}": value}
    if key == "tokens":
        metadata["tokenizer.ggml.token_type"] = [1] * len(value)
    with pytest.raises(UserError, match=f"^file: .*{message}"):
        tokenizers.from_gguf({key: value for key, value in metadata.items() if value is not None}, "file")


def test_another_sentencepiece_is_refused():
    metadata = {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": ["a"], "tokenizer.ggml.scores": [0.0], "tokenizer.ggml.add_space_prefix": False}
    with pytest.raises(UserError, match="add_space_prefix"):
        gguf_vocabulary.backend(metadata, "file")
