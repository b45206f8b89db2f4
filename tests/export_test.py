"""What we write is what transformers writes: the golden checkpoints, read and written again."""
import json
import pathlib

import numpy as np
import pytest

from tests.evaluate import tiny
from vlmjax import bundle, export, pretrained
from vlmjax.__main__ import main
from vlmjax.data.conversation import TEMPLATES
from vlmjax.errors import UserError
from vlmjax.weights import store

GOLDEN = pathlib.Path(__file__).parent / "golden"
# Keys that transformers writes and that neither it nor we compute with: what a model starts from, how it trains, who wrote it, a BOS that the tokenizer has not.
UNWRITTEN = {"initializer_factor", "initializer_range", "attention_dropout", "logit_scale_init_value", "transformers_version", "use_cache", "pretraining_tp", "num_channels", "max_window_layers",
             "bos_token_id", "layer_types", "sliding_window", "use_sliding_window", "attention_bias", "mlp_bias", "multimodal_projector_bias", "max_position_embeddings", "projection_dim"}


@pytest.mark.parametrize("family", ["clip", "llama", "qwen2", "llava"])
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
        elif key not in UNWRITTEN and value is not None:
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


def test_what_transformers_cannot_express_is_refused(tmp_path):
    language = tiny.model(without=("encoder", "projector", "text_tower", "contrast_head"))
    with pytest.raises(UserError, match="clip needs encoder, text_tower, contrast_head, and the model has decoder"):
        export.write(language, tmp_path / "a", "clip")
    with pytest.raises(UserError, match="--as: 'bert' is not one of clip"):
        export.write(language, tmp_path / "a", "bert")
    assert not (tmp_path / "a").exists()
    (tmp_path / "mine").write_text("")
    assert main(["convert", f"--model={GOLDEN}/llama/model", f"--to={tmp_path}"]) == 2 and sorted(p.name for p in tmp_path.iterdir()) == ["mine"]
