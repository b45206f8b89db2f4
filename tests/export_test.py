"""What we write is what transformers writes: the golden checkpoints, read and written again."""
import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest

from tests.evaluate import tiny
from vlmjax import bundle, export, pretrained, stacks
from vlmjax.__main__ import main
from vlmjax.commands import common
from vlmjax.data.conversation import RAW
from vlmjax.errors import UserError
from vlmjax.models import lora
from vlmjax.train import build
from vlmjax.weights import store

GOLDEN = pathlib.Path(__file__).parent / "golden"
# Keys that transformers writes and that neither it nor we compute with: what a model starts from, how it trains, who wrote it, a BOS that the tokenizer has not.
UNWRITTEN = {"initializer_factor", "initializer_range", "attention_dropout", "logit_scale_init_value", "transformers_version", "use_cache", "pretraining_tp", "num_channels", "max_window_layers",
             "bos_token_id", "layer_types", "use_sliding_window", "attention_bias", "mlp_bias", "multimodal_projector_bias", "max_position_embeddings", "projection_dim",
             "hidden_dropout_prob", "projection_dropout", "use_mask_token", "use_absolute_position_embeddings", "image_text_hidden_size", "attention_probs_dropout_prob",
             "qformer_config.vocab_size", "qformer_config.pad_token_id"}


@pytest.mark.parametrize("family", ["clip", "llama", "mistral", "qwen2", "llava", "internvl", "blip-2"])
def test_a_checkpoint_survives_reading_and_writing(family, tmp_path, capsys):
    source = GOLDEN / family / "model"
    assert main(["convert", f"--model={source}", f"--to={tmp_path}/out"]) == 0
    assert f"{tmp_path}/out: {family}" in capsys.readouterr().out
    theirs, ours = store.load(source), store.load(tmp_path / "out")
    assert set(theirs) == set(ours) and all(np.array_equal(theirs[name], ours[name]) and theirs[name].dtype == ours[name].dtype for name in theirs)
    assert_holds(json.loads((tmp_path / "out" / "config.json").read_text()), json.loads((source / "config.json").read_text()))
    again = pretrained.load(tmp_path / "out").by_layer()
    first = pretrained.load(source).by_layer()
    assert set(again) == set(first) and all(np.array_equal(again[path], first[path]) for path in first)


def assert_holds(ours, theirs, where=""):
    """Every key of the reference's config, with its value, except those nothing is computed with."""
    for key, value in theirs.items():
        if isinstance(value, dict) and key != "rope_parameters":
            assert_holds(ours[key], value, f"{where}{key}.")
        elif not {key, f"{where}{key}"} & UNWRITTEN and value is not None:
            assert ours.get(key) == value, f"{where}{key}"


def test_a_model_trained_here_becomes_a_llava(tmp_path):
    """Its tower's last norm comes out of the contrast head; the text tower stays behind."""
    model = tiny.model()
    export.write(model, tmp_path)
    loaded = pretrained.load(tmp_path)
    assert set(loaded.parts) == {"encoder", "projector", "decoder"} and len(loaded.carried) == 2
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    np.testing.assert_allclose(loaded.logits("<image>is it red?", [image]), model.logits("<image>is it red?", [image]), rtol=1e-5, atol=1e-6)
    export.write(model, tmp_path / "clip", "clip")
    np.testing.assert_allclose(pretrained.load(tmp_path / "clip").text_features(["red"]), model.text_features(["red"]), rtol=1e-5, atol=1e-6)


def adapted(model):
    """The model with adapters that have learned something, as a run would leave it."""
    config = lora.LoRAConfig(rank=2, alpha=4.0, targets=("attention/.*", "mlp/down"))
    parts = {name: part.clone(config=dataclasses.replace(part.config, lora=config)) if name in ("encoder", "decoder") else part for name, part in model.parts.items()}
    arrays, rng = model.by_layer(), np.random.default_rng(0)
    like = stacks.expand(build.abstract_params(parts))
    arrays |= {path: rng.normal(0, 0.1, leaf.shape).astype(np.float32) for path, leaf in like.items() if lora.is_adapter(path)}
    return bundle.make(parts, arrays, model.tokenizer, model.template, model.layout)


def test_adapters_are_saved_merged_on_export_and_off_without_a_trace(tmp_path):
    plain = tiny.model()
    model = adapted(plain)
    ask = lambda model: model.logits("<image>is it red?", [np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)])
    pretrained.save(model, tmp_path / "run")
    loaded = pretrained.load(tmp_path / "run")
    np.testing.assert_array_equal(ask(loaded), ask(model))
    assert np.abs(ask(loaded) - ask(plain)).max() > 0.01
    np.testing.assert_array_equal(ask(loaded.with_adapters("off")), ask(plain))
    off = loaded.with_adapters("off").by_layer()
    assert set(off) == set(plain.by_layer()) and all(np.array_equal(off[path], leaf) for path, leaf in plain.by_layer().items())
    assert main(["convert", f"--model={tmp_path}/run", f"--to={tmp_path}/out"]) == 0
    assert not any("lora" in name for name in store.load(tmp_path / "out"))
    got, want = ask(pretrained.load(tmp_path / "out")), ask(model)
    assert np.linalg.norm(got - want) <= 1e-5 * np.linalg.norm(want)
    # A run that starts from this one keeps its adapters; other ones beside them are refused.
    component = build.Component(weights="run", lora=lora.LoRAConfig(rank=3, alpha=1.0))
    with pytest.raises(UserError, match="model.decoder.lora: run has other adapters .*merge them first"):
        build.modules(build.ModelConfig(decoder=component), 10, "float32", checkpoints={"decoder": pretrained.find(tmp_path / "run").sizes})


def test_a_chat_template_is_read_kept_and_written(tmp_path):
    source = tmp_path / "chat"
    shutil.copytree(GOLDEN / "llama" / "model", source)
    jinja = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + eos_token }}{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
    (source / "chat_template.jinja").write_text(jinja)
    model = pretrained.load(source)
    assert (model.template.user, model.template.assistant, model.template.end) == (("user: ", "</s>"), ("assistant: ", ""), "</s>")
    pretrained.save(model, tmp_path / "run")
    assert pretrained.load(tmp_path / "run").template == model.template == common.template("checkpoint", str(source))
    export.write(pretrained.load(tmp_path / "run"), tmp_path / "out")
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == jinja
    (source / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    with pytest.warns(UserWarning, match="does not write every turn once.*its prompts are raw"):
        assert pretrained.load(source).template == RAW
    with pytest.raises(UserError, match="does not write every turn once"):
        common.template("checkpoint", str(source))
    with pytest.raises(UserError, match="has no chat template; name one of"):
        common.template("checkpoint", str(GOLDEN / "llama" / "model"))


IMAGE = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)


@pytest.mark.parametrize("depth, resize", [(1, "crop"), (3, "pad")])
def test_a_projector_without_a_class_is_written_in_llavas_own_layout(tmp_path, capsys, depth, resize):
    model, draw = tiny.model(), np.random.default_rng(1)
    parts = {**model.parts, "projector": model.parts["projector"].clone(config=dataclasses.replace(model.parts["projector"].config, depth=depth))}
    arrays = {path: leaf for path, leaf in model.by_layer().items() if not path.startswith("projector/")}
    arrays |= {path: draw.normal(0, 0.3, leaf.shape).astype(np.float32) for path, leaf in build.abstract_params({"projector": parts["projector"]}).items()}
    model = bundle.make(parts, arrays, model.tokenizer, model.template, dataclasses.replace(model.layout, resize=resize))
    pretrained.save(model, tmp_path / "run")
    assert main(["convert", f"--model={tmp_path}/run", f"--to={tmp_path}/out"]) == 0
    said = capsys.readouterr().out
    assert f"no class of transformers has a projector of {depth} linear maps" in said and said.count("\n") == 1
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["mm_projector_type"], config["mm_vision_tower"], config["image_aspect_ratio"]) == ({1: "linear", 3: "mlp3x_gelu"}[depth], "vision_tower", {"crop": "square", "pad": "pad"}[resize])
    names = set(store.load(tmp_path / "out"))
    assert ({"model.mm_projector.weight"} if depth == 1 else {f"model.mm_projector.{k}.weight" for k in (0, 2, 4)}) < names and not any("vision" in name for name in names)
    loaded = pretrained.load(tmp_path / "out")
    mine, again = model.by_layer(), loaded.by_layer()
    assert all(np.array_equal(mine[path], leaf) for path, leaf in again.items()) and set(loaded.parts) == {"encoder", "projector", "decoder"} and loaded.layout == model.layout
    np.testing.assert_array_equal(loaded.logits("<image>is it red?", [IMAGE]), model.logits("<image>is it red?", [IMAGE]))


@pytest.mark.parametrize("family, tied, window", [("qwen2", True, None), ("llama", False, None), ("mistral", False, 5)])
def test_a_tokenizer_without_an_image_token_is_given_one(tmp_path, family, tied, window):
    language = pretrained.load(GOLDEN / family / "model")
    assert language.tokenizer.image is None and language.parts["decoder"].config.tied == tied
    model = tiny.model()
    parts = {"encoder": model.parts["encoder"], "decoder": language.parts["decoder"],
             "projector": model.parts["projector"].clone(out_width=language.parts["decoder"].config.width)}
    arrays = {path: leaf for path, leaf in model.by_layer().items() if path.startswith("encoder/")} | language.by_layer()
    draw = np.random.default_rng(1)
    arrays |= {path: draw.normal(0, 0.3, leaf.shape).astype(np.float32) for path, leaf in build.abstract_params({"projector": parts["projector"]}).items()}
    model = bundle.make(parts, arrays, language.tokenizer, language.template, model.layout)
    assert "<image> was added to its tokenizer as" in export.write(model, tmp_path)
    out = pretrained.load(tmp_path)
    vocabulary = parts["decoder"].config.vocab
    assert out.parts["decoder"].config.window == window
    assert out.tokenizer.image is not None and out.parts["decoder"].config.vocab == max(vocabulary, out.tokenizer.image + 1)
    got, want = out.logits("What?<image>", [IMAGE]), model.logits("What?<image>", [IMAGE])
    np.testing.assert_array_equal(got[:, :vocabulary], want)
    assert out.generate(["What?<image>"], [[IMAGE]], max_new_tokens=8) == model.generate(["What?<image>"], [[IMAGE]], max_new_tokens=8)


def test_what_transformers_cannot_express_is_refused(tmp_path):
    language = tiny.model(without=("encoder", "projector", "text_tower", "contrast_head"))
    with pytest.raises(UserError, match="clip needs encoder, text_tower, contrast_head, and the model has decoder"):
        export.write(language, tmp_path / "a", "clip")
    with pytest.raises(UserError, match="--as: 'bert' is not one of clip"):
        export.write(language, tmp_path / "a", "bert")
    with pytest.raises(UserError, match="convert: as llama: transformers computes it as mistral"):
        export.write(pretrained.load(GOLDEN / "mistral" / "model"), tmp_path / "a", "llama")
    internvl = pretrained.load(GOLDEN / "internvl" / "model")
    internvl.tokenizer.around = ()
    with pytest.raises(UserError, match=r"convert: as internvl: its tokenizer lacks the marks of an image \(<img>, </img>, <IMG_CONTEXT>\), without which it was trained"):
        export.write(internvl, tmp_path / "a")
    with pytest.raises(UserError, match="convert: as internvl: its images are treated by 'crop'"):
        export.write(dataclasses.replace(internvl, layout=dataclasses.replace(internvl.layout, resize="crop", tiles=1)), tmp_path / "a")
    with pytest.raises(UserError, match="convert: as llava: .*neither transformers' LLaVA nor LLaVA's own code joins neighbouring patches"):
        export.write(internvl, tmp_path / "a", "llava")
    queries = pretrained.load(GOLDEN / "blip-2" / "model")
    for family, message in (("llava", "neither transformers' LLaVA nor LLaVA's own code has a qformer as projector"), ("internvl", "the projector is a qformer")):
        with pytest.raises(UserError, match=f"convert: as {family}: {message}"):
            export.write(queries, tmp_path / "a", family)
    encoder = queries.parts["encoder"].clone(config=dataclasses.replace(queries.parts["encoder"].config, feature_layer=-2))
    with pytest.raises(UserError, match="convert: as blip-2: the encoder is not built like BLIP-2's"):
        export.write(dataclasses.replace(queries, parts={**queries.parts, "encoder": encoder}), tmp_path / "a", "blip-2")
    with pytest.raises(UserError, match="convert: as blip-2: the encoder is not built"):
        export.write(tiny.model(), tmp_path / "a", "blip-2")
    with pytest.raises(UserError, match="convert: as llava: its images are cut into up to 4 tiles, and only InternVL's processor does so"):
        export.write(dataclasses.replace(tiny.model(), layout=dataclasses.replace(tiny.LAYOUT, resize="squash", tiles=4)), tmp_path / "a")
    assert not (tmp_path / "a").exists()
    (tmp_path / "mine").write_text("")
    assert main(["convert", f"--model={GOLDEN}/llama/model", f"--to={tmp_path}"]) == 2 and sorted(p.name for p in tmp_path.iterdir()) == ["mine"]
