"""MiniGPT-4's published parts, joined: what its authors' code computes of them, vlmjax computes. The pickles need torch (extra [torch]), which the tests do not install: then these are skipped."""
import dataclasses
import importlib.util
import json
import shutil

import numpy as np
import pytest

from tests.golden import minigpt4 as golden
from vlmjax import pretrained
from vlmjax.__main__ import main
from vlmjax.data.conversation import TEMPLATES
from vlmjax.errors import UserError
from vlmjax.models import projector, qformer, vit
from vlmjax.weights import blip2, minigpt4, store, table

LANGUAGE, BLIP2 = "tests/golden/llama/model", "tests/golden/blip-2/model"
needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed (extra [torch])")
BUILDS = {"vicuna": ("eva", "blip2", "linear"), "llama2": ("eva", "joining")}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """{name: a directory of safetensors, as `convert` makes of one pickle}."""
    root = tmp_path_factory.mktemp("parts")
    for name, tensors in (("eva", golden.eva()), ("blip2", golden.blip2()), ("linear", golden.linear()), ("joining", golden.linear(qformer=False))):
        store.save(root / name, tensors)
    return {path.name: str(path) for path in root.iterdir()}


def join(target, *models):
    return main(["convert", f"--model={','.join(models)}", f"--to={target}"])


@pytest.fixture(scope="module")
def whole(parts, tmp_path_factory):
    root = tmp_path_factory.mktemp("whole")
    for build, names in BUILDS.items():
        assert join(root / build, *(parts[name] for name in names), LANGUAGE) == 0
    return root


def image_tokens(model):
    pixels = np.stack([model.pixels(image) for image in golden.images()])
    return model.run("image_tokens", lambda params, batch: model.vlm.image_tokens(params, batch["pixels"][:, None]), {"pixels": pixels})


@pytest.mark.parametrize("build", BUILDS)
def test_image_tokens_are_those_of_the_authors_code(whole, build):
    """Also the norm behind the encoder, whose epsilon is ten times the others', shows: with theirs the error is above 1e-3."""
    model = pretrained.load(whole / build)
    assert model.template == TEMPLATES["minigpt4" if build == "vicuna" else "minigpt4_llama_2"] and model.layout.resize == "squash"
    with np.load(golden.REFERENCE) as reference:
        want = reference[build]
    found = np.asarray(image_tokens(model)).reshape(want.shape)
    assert np.abs(found - want).max() <= 1e-5 * np.abs(want).max()
    image = golden.images()[0]
    plain = pretrained.load(LANGUAGE)
    np.testing.assert_allclose(model.logits("A photo"), plain.logits("A photo"), rtol=1e-5, atol=1e-5)
    assert len(model.logits("A <image> photo", [image])) > want.shape[1]


def test_it_is_written_for_transformers_and_read_back(whole, tmp_path, capsys):
    assert main(["convert", f"--model={whole / 'vicuna'}", f"--to={tmp_path}/out"]) == 0
    assert "transformers computes the norm behind the encoder with 1e-06 in place of 1e-05" in capsys.readouterr().out
    first, again = pretrained.load(whole / "vicuna"), pretrained.load(tmp_path / "out")
    assert first.parts["encoder"].config == again.parts["encoder"].config and again.parts["encoder"].config.final_eps == 1e-5
    np.testing.assert_array_equal(image_tokens(first), image_tokens(again))
    assert main(["convert", f"--model={whole / 'llama2'}", f"--to={tmp_path}/no"]) == 2  # transformers has no class
    assert main(["convert", "--model=a,b", f"--to={tmp_path}/no", "--as=blip-2"]) == 2 and "under their own names" in capsys.readouterr().err
    assert main(["parity", f"--model={whole / 'vicuna'}"]) == 2 and "is a minigpt4 in its authors' own layout" in capsys.readouterr().err


def test_a_template_that_is_not_one_of_ours_is_named(whole, tmp_path):
    shutil.copytree(whole / "vicuna", tmp_path / "other")
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    (tmp_path / "other" / "config.json").write_text(json.dumps(config | {pretrained.TEMPLATE: "minigpt5"}))
    with pytest.raises(UserError, match="config.json: vlmjax_template 'minigpt5' is not one of "):
        pretrained.find(tmp_path / "other").chat_template()


def test_without_a_language_model_it_is_one_to_start_from(parts, tmp_path, capsys):
    assert join(tmp_path / "out", parts["blip2"], parts["eva"]) == 0
    said = capsys.readouterr().out
    assert "encoder and Q-Former, for a run to start from" in said and "3 tensors (Qformer.bert.embeddings.position_ids, t5_proj.bias, t5_proj.weight)" in said and "4 tensors (visual_encoder.head.bias" in said
    found = pretrained.find(tmp_path / "out")
    assert set(found.sizes) == {"encoder", "projector"} and {path.split("/")[0] for path in found.arrays()} == {"encoder", "projector"}


def test_encoder_and_qformer_may_be_a_blip2_of_transformers(tmp_path, capsys):
    """Its own linear map and language model are left, and said to be; of what it does not say nothing is taken from shapes."""
    file = {"llama_proj.weight": np.ones((32, 24), np.float32), "llama_proj.bias": np.zeros(32, np.float32)}
    store.save(tmp_path / "file", file)
    tensors = {name: np.array(tensor) for name, tensor in store.load(BLIP2).items()}
    for name, tensor in tensors.items():
        if name.endswith("qkv.bias"):
            tensor[len(tensor) // 3 : 2 * len(tensor) // 3] = 0  # a published one has no bias of k
    store.save(tmp_path / "blip2", tensors)
    (tmp_path / "blip2" / "config.json").write_text((pretrained.epath.Path(BLIP2) / "config.json").read_text())
    assert join(tmp_path / "out", f"{tmp_path}/blip2", f"{tmp_path}/file", LANGUAGE) == 0
    assert "tensors (decoder/embed" in capsys.readouterr().out
    before, after = pretrained.find(tmp_path / "blip2"), pretrained.find(tmp_path / "out")
    assert after.sizes["encoder"].heads == 4 and after.sizes["projector"] == before.sizes["projector"]
    first, second = before.arrays(), after.arrays()
    for path, leaf in second.items():
        if path.startswith("encoder/") or path.startswith("projector/") and "linear_0" not in path:
            np.testing.assert_array_equal(first[path], leaf)
    np.testing.assert_array_equal(second["projector/linear_0/kernel"], np.ones((24, 32)))
    assert join(tmp_path / "no", BLIP2, f"{tmp_path}/file", LANGUAGE) == 2
    assert "attention/k/bias is not zero, and the layout to write has no tensor for it" in capsys.readouterr().err


def renamed(name):
    """The published mapping, LAVIS's names → transformers' (transformers/models/blip_2/convert_blip_2_original_to_pytorch.py), as it is described there."""
    for old, new in (("visual_encoder.cls_token", "vision_model.embeddings.class_embedding"), ("visual_encoder.pos_embed", "vision_model.embeddings.position_embedding"),
                     ("visual_encoder.patch_embed.proj", "vision_model.embeddings.patch_embedding"), ("ln_vision", "vision_model.post_layernorm"), ("visual_encoder.blocks", "vision_model.encoder.layers"),
                     (".attn.qkv", ".self_attn.qkv"), (".attn.proj", ".self_attn.projection"), (".norm1", ".layer_norm1"), (".norm2", ".layer_norm2"),
                     ("Qformer.bert.embeddings.LayerNorm", "qformer.layernorm"), ("Qformer.bert", "qformer"), ("attention.self", "attention.attention"), ("llama_proj", "language_projection"),
                     ("llama_model", "language_model")):
        name = name.replace(old, new)
    return name


def test_names_are_those_of_the_published_conversion(whole):
    arrays = pretrained.find(whole / "vicuna").arrays()
    theirs, lavis = blip2.FAMILY.write(arrays), table.write(arrays, blip2.LAVIS)
    bias = lambda layer: [lavis[f"visual_encoder.blocks.{layer}.attn.{n}_bias"] for n in "qv"]
    mapped = {renamed(name): tensor for name, tensor in lavis.items() if not name.endswith(("q_bias", "v_bias"))}
    mapped |= {f"vision_model.encoder.layers.{i}.self_attn.qkv.bias": np.concatenate([bias(i)[0], np.zeros_like(bias(i)[0]), bias(i)[1]]) for i in range(golden.LAYERS)}
    assert set(mapped) == set(theirs)
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(mapped[name], tensor, name)


def test_what_the_authors_leave_is_left_and_named():
    """The 40th block, EVA's norm and head, words, text layers; a tensor that no one knows stays, and is refused when the parts are read."""
    names = ["visual_encoder.blocks.39.norm1.weight", "visual_encoder.fc_norm.weight", "Qformer.bert.encoder.layer.0.output.dense.weight", "Qformer.cls.predictions.bias", "temp", "t5_proj.weight",
             "llama_model.model.layers.0.self_attn.rotary_emb.inv_freq"]
    kept = ["visual_encoder.blocks.38.norm1.weight", "visual_encoder.pos_embed", "Qformer.bert.encoder.layer.0.attention.output.dense.weight", "Qformer.bert.encoder.layer.0.output_query.dense.weight",
            "llama_model.base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight"]
    part = minigpt4.of_file({name: np.ones(2) for name in names + kept}, "file")
    assert part.left == tuple(sorted(names)) and set(part.tensors) == set(kept)
    again = minigpt4.of_file({"query_tokens": np.ones((1, 2, 64))}, "again")
    with pytest.raises(UserError, match="file \\+ again: have no encoder"):
        minigpt4.join([part, again])


@pytest.mark.parametrize("path", ["decoder/layers/0/attention/k_lora/a", "decoder/added_embed"])
def test_adapters_and_added_tokens_are_to_be_written_whole_first(path):
    with pytest.raises(UserError, match=f"^run: has adapters or added tokens beside its matrices \\({path}\\); write it whole first"):
        minigpt4.of_checkpoint({path: np.ones(2)}, {"decoder": None}, "run")


def test_sizes_of_the_published_files():
    """39 of EVA's 40 blocks; what no shape says is as the authors' code builds it, so that the variants are these."""
    empty = lambda *shape: np.broadcast_to(np.float16(0), shape)
    eva = {"cls_token": empty(1, 1, 1408), "pos_embed": empty(1, 257, 1408), "patch_embed.proj.weight": empty(1408, 3, 14, 14), **{f"blocks.{i}.mlp.fc1.weight": empty(6144, 1408) for i in range(40)}}
    bert = {"query_tokens": empty(1, 32, 768), **{f"Qformer.bert.encoder.layer.{i}.intermediate_query.dense.weight": empty(3072, 768) for i in range(12)}}
    tensors, sizes, _ = minigpt4.join([minigpt4.of_file(eva, "eva"), minigpt4.of_file(bert, "blip2")])
    assert sizes == {"encoder": dataclasses.replace(vit.VARIANTS["eva-g14-hf"], final_eps=1e-5), "projector": qformer.VARIANTS["qformer"]}
    assert sum(".mlp.fc1.weight" in name for name in tensors) == 39
    linear = {"llama_proj.weight": empty(4096, 5632), "llama_proj.bias": empty(4096)}
    tensors, sizes, _ = minigpt4.join([minigpt4.of_file(eva, "eva"), minigpt4.of_file(linear, "linear"), minigpt4.Part("llama2", {}, {"decoder": None})])
    assert sizes["projector"] == projector.VARIANTS["linear-join4"] and tensors["ln_vision.weight"].min() == 1 and not tensors["ln_vision.bias"].any()


def test_the_last_of_several_counts(parts):
    tensors = golden.linear()
    other = {name: tensor + 1 for name, tensor in tensors.items()}
    read = lambda *found: minigpt4.join([minigpt4.of_file(x, f"part {i}") for i, x in enumerate((golden.eva(), golden.blip2(), *found))] + [minigpt4.Part("language", {}, {"decoder": None})])
    found, _, remarks = read(tensors, other)
    assert np.array_equal(found["llama_proj.weight"], other["llama_proj.weight"]) and any("2 tensors (llama_proj.bias, llama_proj.weight) from part 3 in place of an earlier file's" in x for x in remarks)


@pytest.mark.parametrize("names, message", [
    (("blip2", "linear", LANGUAGE), "have no encoder (visual_encoder.cls_token): add eva_vit_g.pth"),
    (("eva", "linear", LANGUAGE), "have no Q-Former (query_tokens): add blip2_pretrained_flant5xxl.pth"),
    (("eva", "blip2", "joining", LANGUAGE), "llama_proj.weight reads 704 numbers, 4 patches, as MiniGPT-4 with Llama 2 does, which has no Q-Former: leave out the part with query_tokens"),
    (("eva", "blip2", LANGUAGE), "have nothing that leads to the language model (llama_proj.weight): add MiniGPT-4's own .pth file"),
    (("eva", "blip2", "linear"), "have llama_proj.weight and no language model that it leads to: add its directory"),
    (("eva", "blip2", "linear", "tests/golden/clip/model"), "is neither a language model nor a BLIP-2"),
    (("eva", "blip2", "wide", LANGUAGE), "llama_proj.weight has the shape [48, 128], its config asks for [32, 128]"),
    (("finer", "blip2", "linear", LANGUAGE), "visual_encoder.pos_embed has the shape [1, 30, 176], its config asks for [1, 26, 176]"),
    (("eva", "", LANGUAGE), "names an empty part"),
    (("eva", "blip2", "flat", LANGUAGE), "llama_proj.weight is of shape (48,), not of 2 dimensions"),
    (("eva", "blip2", "nan", LANGUAGE), "llama_proj.bias holds numbers that are not finite"),
    (("eva", "adapted", "linear", LANGUAGE), "holds, beyond it, 1 tensor (llama_model.lora_A)"),
])
def test_parts_that_do_not_fit_are_refused(parts, tmp_path, capsys, names, message):
    """Positions of another image size are not stretched."""
    made = {"wide": {"llama_proj.weight": np.ones((48, 128)), "llama_proj.bias": np.ones(48)}, "finer": golden.eva() | {"pos_embed": np.ones((1, 30, golden.WIDTH))},
            "flat": {"llama_proj.weight": np.ones(48), "llama_proj.bias": np.ones(48)}, "nan": golden.linear() | {"llama_proj.bias": np.full(32, np.nan, np.float32)},
            "adapted": golden.blip2() | {"llama_model.lora_A": np.ones(3)}}
    for name, tensors in made.items():
        if name in names:
            store.save(tmp_path / name, tensors)
    assert join(tmp_path / "out", *(parts.get(name, name if name not in made else f"{tmp_path}/{name}") for name in names)) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


@needs_torch
def test_from_the_pickles_themselves(tmp_path, whole, capsys):
    """As they are published: EVA's in half precision and bare; a training checkpoint with its optimizer, scaler and config."""
    import torch

    torch_of = lambda arrays: {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    eva = {name: tensor.half() if tensor.ndim > 1 else tensor for name, tensor in torch_of(golden.eva()).items()}
    torch.save(eva, tmp_path / "eva_vit_g.pth")
    torch.save({"model": torch_of(golden.blip2())}, tmp_path / "blip2_pretrained_flant5xxl.pth")
    learned = [torch.nn.Parameter(tensor) for tensor in torch_of(golden.linear()).values()]
    optimizer = torch.optim.AdamW(learned, lr=1e-4)
    sum(p.sum() for p in learned).backward()
    optimizer.step()
    config = {"model": {"arch": "minigpt4", "freeze_vit": True}, "run": {"init_lr": 1e-4, "betas": [0.9, 0.999]}, "datasets": None}
    torch.save({"model": torch_of(golden.linear()), "optimizer": optimizer.state_dict(), "config": config, "scaler": torch.amp.GradScaler("cpu").state_dict(), "epoch": 3}, tmp_path / "checkpoint_3.pth")
    assert main(["convert", f"--model={tmp_path}/checkpoint_3.pth", f"--to={tmp_path}/one"]) == 0
    assert "2 tensors as safetensors" in (said := capsys.readouterr().out) and "left out, as no tensors of the model: optimizer, config, scaler, epoch" in said
    assert join(tmp_path / "out", *(f"{tmp_path}/{name}.pth" for name in ("eva_vit_g", "blip2_pretrained_flant5xxl", "checkpoint_3")), LANGUAGE) == 0
    assert store.load(tmp_path / "out")["visual_encoder.blocks.0.attn.qkv.weight"].dtype == np.float16
    half, full = pretrained.find(tmp_path / "out").arrays(), pretrained.find(whole / "vicuna").arrays()
    assert set(half) == set(full)
    for path, leaf in full.items():
        exact = not path.startswith("encoder/") or leaf.ndim == 1 or path.endswith(("bias", "final_norm/scale"))
        (np.testing.assert_array_equal if exact and "position" not in path and "class_token" not in path else lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5))(half[path], leaf)
    assert np.isfinite(image_tokens(pretrained.load(tmp_path / "out"))).all()
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "minigpt4"
