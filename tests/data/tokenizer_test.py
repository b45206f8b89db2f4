import pytest

from tests.data.tiny import TOKENIZER
from vlmjax.data.tokenizer import Tokenizer, word_level
from vlmjax.errors import UserError


def test_words_and_punctuation_in_a_fixed_order():
    tokenizer = word_level(["Is it red?", "it is blue"])
    assert (tokenizer.pad, tokenizer.bos, tokenizer.eos, tokenizer.image) == (0, 1, 2, 3)
    assert tokenizer.vocabulary == 9
    assert tokenizer.encode("is IT red?") == [6, 7, 8, 4]
    assert tokenizer.decode([1, 6, 7, 8, 4, 2, 0]) == "is it red?"
    assert word_level(["it is blue", "Is it red?"]).encode("blue is it?") == tokenizer.encode("blue is it?")


def test_special_tokens_in_a_text_are_recognised():
    assert TOKENIZER.encode("<s><image> yes</s>") == [1, 3, *TOKENIZER.encode("yes"), 2]


def test_an_unknown_word_is_named():
    with pytest.raises(UserError, match="'purple'"):
        TOKENIZER.encode("is it purple?")


def test_a_saved_tokenizer_is_the_same(tmp_path):
    TOKENIZER.save(tmp_path / "tokenizer.json")
    again = Tokenizer.load(tmp_path / "tokenizer.json")
    assert again.encode("what color is it?") == TOKENIZER.encode("what color is it?")
    assert (again.vocabulary, again.eos) == (TOKENIZER.vocabulary, TOKENIZER.eos)
    with pytest.raises(UserError, match="'purple'"):
        again.encode("purple")


def test_bad_files_are_named(tmp_path):
    path = tmp_path / "tokenizer.json"
    with pytest.raises(UserError, match="tokenizer.json: there is no such file"):
        Tokenizer.load(path)
    path.write_text("{}")
    with pytest.raises(UserError, match="is not a tokenizer.json"):
        Tokenizer.load(path)
    TOKENIZER.save(path)
    path.write_text(path.read_text().replace("</s>", "<end>"))
    with pytest.raises(UserError, match="has no special token </s>"):
        Tokenizer.load(path)


def test_tokens_with_the_names_of_internvls_marks_are_marks(tmp_path):
    """And stay so through the files of a run."""
    plain = TOKENIZER.with_tokens(["<img>", "</img>"])
    assert plain.around == () and plain.image == TOKENIZER.image
    marked = TOKENIZER.with_tokens(["<img>", "</img>", "<IMG_CONTEXT>"])
    n = TOKENIZER.vocabulary
    assert (marked.around, marked.image) == ((n, n + 1), n + 2) and {"<img>", "</img>"} <= set(marked.control)
    marked.save(tmp_path / "tokenizer.json")
    again = Tokenizer.load(tmp_path / "tokenizer.json", marked.ids())
    assert (again.around, again.image, again.digest()) == (marked.around, marked.image, marked.digest())
    assert marked.transformers_config()["extra_special_tokens"]["start_image_token"] == "<img>" and "around" not in TOKENIZER.ids()
