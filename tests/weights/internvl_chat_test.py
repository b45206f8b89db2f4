"""OpenGVLab's own checkpoints: what their config.json and code say in place of files, read and written (the numbers: tests/parity/golden_test.py)."""
import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest

from vlmjax import export, pretrained
from vlmjax.__main__ import main
from vlmjax.data.conversation import spans
from vlmjax.data.example import Turn
from vlmjax.errors import UserError
from vlmjax.weights import store

GOLDEN = pathlib.Path(__file__).parent.parent / "golden"
SOURCE = GOLDEN / "internvl_chat" / "model"
CONVERSATIONS = json.loads((GOLDEN / "internvl_chat" / "conversations.json").read_text())


def changed(directory, **keys):
    """The golden checkpoint with other keys in its config.json, None: without them."""
    shutil.copytree(SOURCE, directory)
    node = json.loads((SOURCE / "config.json").read_text()) | keys
    (directory / "config.json").write_text(json.dumps({key: value for key, value in node.items() if value is not None}))
    return directory


def written(template, turns):
    turns = tuple(Turn(("user", "assistant")[i % 2], text) for i, text in enumerate(turns))
    return "".join(span.text for span in spans(template, "<|im_end|>", turns, prompt=True))


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_conversation_is_what_its_code_makes_of_it(name, tmp_path):
    """And not what the template in tokenizer_config.json would."""
    template = pretrained.find(changed(tmp_path / "model", template=name)).chat_template()
    assert not template.bos
    for turns, text in CONVERSATIONS[name]:
        assert written(template, turns) == text


def test_one_without_a_template_that_is_known_says_so(tmp_path):
    with pytest.raises(UserError, match="config.json: template is 'phi3-chat', not one of Hermes-2, internlm2-chat, internvl2_5"):
        pretrained.find(changed(tmp_path / "model", template="phi3-chat")).chat_template()


@pytest.mark.parametrize("keys, tiles", [
    ({}, 4), (dict(max_dynamic_patch=12), 12), (dict(max_dynamic_patch=None), 6), (dict(max_dynamic_patch=1, use_thumbnail=False), 1), (dict(dynamic_image_size=False), 1),
    (dict(use_thumbnail=False), "use_thumbnail is False, and vlmjax shows the whole image behind its tiles"), (dict(min_dynamic_patch=2), "min_dynamic_patch is 2, and vlmjax computes only 1"),
])
def test_tiles_are_those_of_config_json(keys, tiles, tmp_path):
    directory = changed(tmp_path / "model", **keys)
    if isinstance(tiles, str):
        with pytest.raises(UserError, match=tiles):
            pretrained.find(directory)
    else:
        assert pretrained.find(directory).layout.tiles == tiles


def test_transformers_layout_and_back(tmp_path, capsys):
    assert main(["convert", f"--model={SOURCE}", f"--to={tmp_path}/hf"]) == 0 and "hf: internvl, float32; transformers reads it" in capsys.readouterr().out
    assert main(["convert", f"--model={tmp_path}/hf", f"--to={tmp_path}/own", "--as=internvl_chat"]) == 0 and "InternVLChatModel" in capsys.readouterr().out
    theirs, ours = store.load(SOURCE), store.load(tmp_path / "own")
    assert set(theirs) == set(ours) and all(np.array_equal(theirs[name], ours[name]) for name in theirs)
    first, again = pretrained.load(SOURCE), pretrained.load(tmp_path / "own")
    assert dataclasses.asdict(again.template) == dataclasses.asdict(first.template)
    assert (again.layout, again.tokenizer.around, again.tokenizer.stops[0]) == (first.layout, first.tokenizer.around, first.tokenizer.stops[0])
    assert again.parts["decoder"].config == first.parts["decoder"].config
    keys = json.loads((tmp_path / "own" / "config.json").read_text())
    assert {key: keys.get(key) for key in ("template", "system_message", "max_dynamic_patch")} == {"template": "internvl2_5", "system_message": None, "max_dynamic_patch": 4}
    image = np.random.default_rng(0).integers(0, 256, (60, 31, 3), np.uint8)
    np.testing.assert_array_equal(again.logits("<image>\nHow many?", [image]), first.logits("<image>\nHow many?", [image]))


def test_a_system_message_of_its_own_is_kept(tmp_path):
    model = pretrained.load(changed(tmp_path / "model", template="Hermes-2", system_message='Say "yes".'))
    assert model.template.first == '<|im_start|>system\nSay "yes".<|im_end|><|im_start|>user\n'
    export.write(model, tmp_path / "out", "internvl_chat")
    keys = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (keys["template"], keys["system_message"]) == ("Hermes-2", 'Say "yes".') and pretrained.find(tmp_path / "out").chat_template() == model.template


def test_an_empty_system_message_is_one(tmp_path):
    assert pretrained.find(changed(tmp_path / "model", system_message="")).chat_template().first == "<|im_start|>system\n<|im_end|>\n<|im_start|>user\n"


@pytest.mark.parametrize("keys, message", [
    (dict(system_message=5), "system_message is 5, not a text"), (dict(template=["internvl2_5"]), "a value of another kind than its key has"), (dict(max_dynamic_patch="4"), "a value of another kind than its key has"),
    (dict(downsample_ratio=0), "a value of another kind|downsample_ratio"), (dict(vlmjax_template=["a"]), "vlmjax_template .* is not one of")])
def test_values_of_another_kind_are_one_line(tmp_path, keys, message):
    with pytest.raises(UserError, match=message):
        pretrained.find(changed(tmp_path / "model", **keys)).chat_template()


def test_a_head_is_its_own_whatever_the_config_says(tmp_path):
    """As configuration_internvl_chat.py has it, which never ties."""
    llm = json.loads((SOURCE / "config.json").read_text())["llm_config"] | {"tie_word_embeddings": True}
    tied = pretrained.load(changed(tmp_path / "model", llm_config=llm, tie_word_embeddings=True))
    np.testing.assert_array_equal(tied.logits("a"), pretrained.load(SOURCE).logits("a"))


def test_what_its_code_does_not_do_is_not_written(tmp_path):
    model = pretrained.load(SOURCE)
    spelled = model.tokenizer.with_tokens(["<start>"])
    spelled.around = (spelled.vocabulary - 1, spelled.around[1])
    for change, message in (
        (dict(template=dataclasses.replace(model.template, user=("<|im_start|>user\n", "\n"))), "its conversations, by the template 'checkpoint', are none that its code writes"),
        (dict(tokenizer=spelled), "the marks of an image are <start>, </img>, <IMG_CONTEXT> in its tokenizer"),
        (dict(parts={**model.parts, "decoder": model.parts["decoder"].clone(config=dataclasses.replace(model.parts["decoder"].config, tied=True))}), "never ties the head"),
        (dict(layout=dataclasses.replace(model.layout, mean=(0.5,) * 3)), "normalised by a mean of .* and OpenGVLab's code by ImageNet's"),
    ):
        with pytest.raises(UserError, match=f"convert: as internvl_chat: .*{message}"):
            export.write(dataclasses.replace(model, **change), tmp_path / "out", "internvl_chat")
    with pytest.raises(UserError, match="its conversations, by the template 'checkpoint', are none that its code writes"):  # transformers' checkpoints have no system message
        export.write(pretrained.load(GOLDEN / "internvl" / "model"), tmp_path / "out", "internvl_chat")
    assert not (tmp_path / "out").exists()


def test_parity_says_what_can_be_compared(capsys):
    assert main(["parity", f"--model={SOURCE}"]) == 2
    assert f"transformers has no class for internvl_chat; write it as internvl, `vlmjax convert --model={SOURCE} --as=internvl --to=DIR`" in capsys.readouterr().err
