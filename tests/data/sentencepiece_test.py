"""tokenizer.model as transformers' LlamaTokenizer reads it (tests/golden/sentencepiece, made by make.py there)."""
import json
import pathlib
import shutil

import pytest

from vlmjax.data.tokenizer import from_checkpoint
from vlmjax.errors import UserError

GOLDEN = pathlib.Path(__file__).parent.parent / "golden" / "sentencepiece"
SETTINGS = {"tokenizer_class": "LlamaTokenizer", "bos_token": {"content": "<s>", "lstrip": False}, "eos_token": "</s>", "unk_token": "<unk>"}


def checkpoint(directory, **settings):
    shutil.copy(GOLDEN / "tokenizer.model", directory)
    (directory / "tokenizer_config.json").write_text(json.dumps(SETTINGS | settings))
    return directory


@pytest.mark.parametrize("legacy", ["null", "true", "false"])
def test_ids_are_the_references(tmp_path, legacy):
    golden = json.loads((GOLDEN / "ids.json").read_text())
    tokenizer = from_checkpoint(checkpoint(tmp_path, **({} if legacy == "null" else {"legacy": json.loads(legacy)})), {"model_type": "llama"})
    assert [tokenizer.encode_raw(text) for text in golden["texts"]] == golden["ids"][legacy]
    assert (tokenizer.bos, tokenizer.eos, tokenizer.stops, tokenizer.image) == (1, 2, (2,), None)
    for text in ("The cat's on the mat.", "Café für 12 señoras", "一只猫 🙂", "two  spaces"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_end_is_added_where_the_config_says_so(tmp_path):
    tokenizer = from_checkpoint(checkpoint(tmp_path, add_bos_token=False, add_eos_token=True))
    assert tokenizer.encode_raw("a cat") == [*tokenizer.encode("a cat"), tokenizer.eos]


def test_added_tokens_come_after_the_pieces(tmp_path):
    size = from_checkpoint(checkpoint(tmp_path)).vocabulary
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<image>": size, "<pad>": size + 1}))
    tokenizer = from_checkpoint(tmp_path, {"image_token_index": size, "pad_token_id": size + 1})
    assert (tokenizer.image, tokenizer.pad, tokenizer.vocabulary) == (size, size + 1, size + 2)
    assert tokenizer.encode_raw("<image>a")[:2] == [1, size]
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<image>": size + 7}))
    with pytest.raises(UserError, match=rf"'<image>' should have the id {size + 7}, and tokenizer.model makes it {size}"):
        from_checkpoint(tmp_path)


@pytest.mark.parametrize("damage, message", [
    (lambda data: data[:-20], "is not a SentencePiece model .* was it copied completely"),
    (lambda data: b"<html></html>", "is not a SentencePiece model"),
    (lambda data: b"", "is not a SentencePiece model: it holds no pieces"),
])
def test_a_damaged_model_is_named(tmp_path, damage, message):
    file = checkpoint(tmp_path) / "tokenizer.model"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UserError, match=f"tokenizer.model: {message}"):
        from_checkpoint(tmp_path)


def test_an_image_token_that_the_vocabulary_lacks(tmp_path):
    with pytest.raises(UserError, match="config.json has the image token 32000, which .* lacks"):
        from_checkpoint(checkpoint(tmp_path), {"image_token_index": 32000})


def test_a_directory_without_a_tokenizer(tmp_path):
    with pytest.raises(UserError, match="holds no tokenizer: neither tokenizer.json, nor tokenizer.model, nor vocab.json and merges.txt"):
        from_checkpoint(tmp_path)
