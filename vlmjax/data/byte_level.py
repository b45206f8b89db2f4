"""Byte-level BPE (GPT-2's kind): a vocabulary and its merges → a `tokenizers` backend, without its special tokens."""
from collections.abc import Mapping, Sequence

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from vlmjax.errors import UserError

# The published regular expressions of Llama 3 and Qwen2: they differ in how many digits stay together.
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def _split(digits: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(_WORDS % digits), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _gpt2() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False)


# How a text is split into words before merging, by llama.cpp's names (`tokenizer.ggml.pre`).
SPLITS = {
    "gpt-2": _gpt2,
    "llama-bpe": lambda: _split("{1,3}"),
    "qwen2": lambda: _split(""),
    "smollm": lambda: pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _gpt2()]),
}


def backend(vocabulary: Mapping[str, int], merges: Sequence[str], split: str, where: str) -> Tokenizer:
    """merges: two tokens with a space between them each, by rank. split: one of SPLITS. where: what the merges come from, for the error of one that joins nothing."""
    pairs = [tuple(merge.split(" ")) for merge in merges]
    if wrong := next((pair for pair in pairs if len(pair) != 2 or not {*pair, "".join(pair)} <= vocabulary.keys()), None):
        raise UserError(f"{where} holds {' '.join(wrong)[:60]!r}, which does not join two of its tokens to a third; is the file damaged?")
    out = Tokenizer(models.BPE(dict(vocabulary), pairs, ignore_merges=split == "llama-bpe"))
    if split == "qwen2":
        out.normalizer = normalizers.NFC()
    out.pre_tokenizer, out.decoder = SPLITS[split](), decoders.ByteLevel()
    return out
