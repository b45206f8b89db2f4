import json
import pathlib
import shutil

import pytest

from tests.data.tiny import TOKENIZER
from vlmjax.data.tokenizer import Tokenizer, from_checkpoint, word_level
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


@pytest.fixture
def slow(tmp_path):
    """A checkpoint with vocab.json, merges.txt and added_tokens.json in place of a tokenizer.json; its ids: tests/parity/golden_test.py."""
    for file in (pathlib.Path(__file__).parent.parent / "golden" / "internvl_chat" / "model").glob("*.[jt][sx]*"):
        shutil.copy(file, tmp_path)
    return tmp_path


def edit(file, change):
    node = json.loads(file.read_text())
    change(node)
    file.write_text(json.dumps(node))


@pytest.mark.parametrize("named", [True, False])
def test_tokens_behind_a_vocabulary_are_special_where_the_files_say_so(slow, named):
    """As transformers has them, whether tokenizer_config.json lists them all or only added_tokens.json does."""
    if not named:
        edit(slow / "tokenizer_config.json", lambda node: node.pop("added_tokens_decoder"))
    tokenizer = from_checkpoint(slow, {}, ("<img>", "</img>", "<IMG_CONTEXT>"))
    ids = tokenizer.encode("<tool_call>a<box><|im_end|>")
    assert ids[0] == 333 and ids[-2:] == [337, 332] and len(ids) == 4
    assert tokenizer.decode(ids) == "<tool_call>a" and tokenizer.decode(ids, special=True) == "<tool_call>a<box><|im_end|>"
    assert (tokenizer.around, tokenizer.image, tokenizer.bos, tokenizer.stops) == ((334, 335), 336, None, (332, 330))


@pytest.mark.parametrize("file, change, message", [
    ("tokenizer_config.json", lambda node: node.update(tokenizer_class="GPT2Tokenizer"), "vocab.json and merges.txt are of a GPT2Tokenizer"),
    ("added_tokens.json", lambda node: node.update({"<more>": 400}), "the added token '<more>' should have the id 400, and vocab.json makes it 339"),
    ("added_tokens.json", lambda node: node.update({"<more>": "a"}), "added_tokens.json: is not an object of tokens and their ids"),
    ("vocab.json", lambda node: node.update({"in": node["at"]}), "vocab.json: two tokens have one id"),
    ("tokenizer_config.json", lambda node: node["added_tokens_decoder"].update({"x": {"content": "<x>"}}), "added_tokens_decoder has 'x'"),
    ("vocab.json", lambda node: node.update({"in": node.pop("in"), "x!": node.pop("at")}), "merges.txt holds 'a t', which does not join two of its tokens"),
])
def test_files_of_a_vocabulary_that_do_not_fit_are_named(slow, file, change, message):
    edit(slow / file, change)
    with pytest.raises(UserError, match=message):
        from_checkpoint(slow, {})


def test_a_vocabulary_without_the_marks_of_an_image_is_refused(slow):
    with pytest.raises(UserError, match="<IMAGE>, which stands in the place of an image, is not in the vocabulary"):
        from_checkpoint(slow, {}, ("<img>", "</img>", "<IMAGE>"))
