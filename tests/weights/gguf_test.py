"""GGUF files: llama.cpp's own writer writes what tests/golden holds, and the same model comes back."""
import functools
import json
import pathlib
import random
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
from etils import epath
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType, GGUFWriter
from gguf.gguf_writer import GGUFValue

from vlmjax import pretrained, sharding
from vlmjax.__main__ import main
from vlmjax.commands import common
from vlmjax.data import tokenizer as tokenizers
from vlmjax.errors import UserError
from vlmjax.parity import cases
from vlmjax.weights import gguf, store
from vlmjax.weights.table import Deferred

GOLDEN = pathlib.Path(__file__).parent.parent / "golden"
PROMPT = cases.PROMPTS[0]
# transformers' names → llama.cpp's (its convert_hf_to_gguf.py)
NAMES = (("model.embed_tokens.", "token_embd."), ("model.norm.", "output_norm."), ("lm_head.", "output."), ("model.layers.", "blk."), ("self_attn.o_proj.", "attn_output."),
         ("input_layernorm.", "attn_norm."), ("post_attention_layernorm.", "ffn_norm."), *((f"self_attn.{n}_proj.", f"attn_{n}.") for n in "qkv"),
         *((f"mlp.{n}_proj.", f"ffn_{n}.") for n in ("gate", "up", "down")))  # fmt: skip


def golden(name):
    """→ (config.json, tokenizer.json, {llama.cpp's name: f32 as its converter leaves it}) of a golden model."""
    directory = GOLDEN / name / "model"
    config, tokenizer = (json.loads((directory / file).read_text()) for file in ("config.json", "tokenizer.json"))
    tensors = {}
    for theirs, x in store.load(directory).items():
        for old, new in NAMES:
            theirs = theirs.replace(old, new)
        if name == "llama" and theirs.endswith(("attn_q.weight", "attn_k.weight")):  # its `permute`
            heads = config["num_attention_heads" if "attn_q" in theirs else "num_key_value_heads"]
            x = x.reshape(heads, 2, -1, x.shape[1]).swapaxes(1, 2).reshape(x.shape)
        tensors[theirs] = np.array(x)
    return config, tokenizer, tensors


def write(path, name="llama", change=None, quantise=lambda tensor, x: None):
    """A golden model as a GGUF file. change: done to the writer before it writes. quantise: (name, f32) → (bytes u8, type) or None for f32."""
    config, tokenizer, tensors = golden(name)
    w = GGUFWriter(path, name)
    w.add_block_count(config["num_hidden_layers"])
    w.add_context_length(256)
    w.add_embedding_length(config["hidden_size"])
    w.add_feed_forward_length(config["intermediate_size"])
    w.add_head_count(config["num_attention_heads"])
    w.add_head_count_kv(config["num_key_value_heads"])
    w.add_layer_norm_rms_eps(config["rms_norm_eps"])
    w.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    vocabulary = tokenizer["model"]["vocab"] | {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    special = {token["content"] for token in tokenizer["added_tokens"]}
    tokens = sorted(vocabulary, key=vocabulary.get)
    padding = config["vocab_size"] - len(tokens)
    w.add_token_list(tokens + [f"[PAD{i}]" for i in range(padding)])
    w.add_token_types([2 if token == "<unk>" else 3 if token in special else 1 for token in tokens] + [5] * padding)
    if name == "llama":
        rank = {left + right: i for i, (left, right) in enumerate(tokenizer["model"]["merges"])}
        w.add_tokenizer_model("llama")
        w.add_token_scores([-float(rank.get(token, 1e4)) for token in tokens] + [-1e4] * padding)
    else:
        w.add_tokenizer_model("gpt2")
        w.add_tokenizer_pre("qwen2")
        w.add_token_merges([" ".join(merge) for merge in tokenizer["model"]["merges"]])
    for role in ("bos", "eos", "pad"):
        if (id_ := config.get(f"{role}_token_id")) is not None:
            getattr(w, f"add_{role}_token_id")(id_)
    if change:
        change(w)
    for tensor, x in tensors.items():
        data, kind = quantise(tensor, x) or (x, None)
        w.add_tensor(tensor, data, raw_dtype=kind)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return path


@functools.cache
def reference(name):
    return pretrained.load(GOLDEN / name / "model")


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return write(tmp_path_factory.mktemp("gguf") / "llama.gguf")


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_the_model_is_the_one_that_was_written(tmp_path, name):
    file = write(tmp_path / "m.gguf", name)
    assert pretrained.find(file).sizes == pretrained.find(GOLDEN / name / "model").sizes
    model, want = pretrained.load(file), reference(name)
    a, b = model.by_layer(), want.by_layer()
    assert set(a) == set(b) and all(np.array_equal(a[path], b[path]) for path in b)
    np.testing.assert_array_equal(model.logits(PROMPT), want.logits(PROMPT))
    assert [model.tokenizer.encode_raw(text) for text in cases.TEXTS + cases.PROMPTS] == [want.tokenizer.encode_raw(text) for text in cases.TEXTS + cases.PROMPTS]


def q8_0(x):
    """→ (bytes, their values) of blocks of 32: a scale in f16, 32 x i8."""
    blocks = x.reshape(-1, 32)
    scale = np.maximum(np.abs(blocks).max(1, keepdims=True) / 127, 1e-3).astype("<f2")
    whole = np.rint(blocks / scale.astype(np.float32)).clip(-127, 127).astype(np.int8)
    return np.hstack([scale.view(np.uint8), whole.view(np.uint8)]).reshape(*x.shape[:-1], -1), (scale.astype(np.float32) * whole).reshape(x.shape)


def q4_1(x):
    """Scale and least value in f16, 16 bytes: element i below element i + 16."""
    blocks = x.reshape(-1, 32)
    least = blocks.min(1, keepdims=True).astype("<f2")
    scale = np.maximum((blocks.max(1, keepdims=True) - least) / 15, 1e-3).astype("<f2")
    q = np.rint((blocks - least.astype(np.float32)) / scale.astype(np.float32)).clip(0, 15).astype(np.uint8)
    data = np.hstack([scale.view(np.uint8), least.view(np.uint8), q[:, :16] | q[:, 16:] << 4])
    return data.reshape(*x.shape[:-1], -1), (scale.astype(np.float32) * q + least.astype(np.float32)).reshape(x.shape)


def f16(x):
    return x.astype(np.float16), x.astype(np.float16).astype(np.float32)


def bf16(x):
    return x.astype(ml_dtypes.bfloat16).view(np.uint8), x.astype(ml_dtypes.bfloat16).astype(np.float32)


@pytest.mark.parametrize("form", [q8_0, q4_1, f16, bf16], ids=lambda form: form.__name__.upper())
def test_values_are_those_of_the_file(tmp_path, form):
    kind = GGMLQuantizationType[form.__name__.upper()]
    kept = {}

    def quantise(name, x):
        if x.ndim == 1 or x.shape[-1] % 32:  # llama.cpp, too, keeps vectors in f32
            return None
        data, kept[name] = form(x)
        return data, kind

    file = write(tmp_path / "m.gguf", quantise=quantise)
    assert len(kept) >= 18
    held = gguf.read(epath.Path(file)).tensors
    assert all(np.array_equal(np.asarray(held[name], np.float32), kept[name]) for name in kept)
    x = kept["blk.1.attn_k.weight"]  # [K·H, D], rows of a head in pairs → [D, K, H], a head in halves
    k = pretrained.load(file).by_layer()["decoder/layers/1/attention/k/kernel"]
    want = np.stack([np.concatenate([head[0::2], head[1::2]]) for head in x.reshape(2, 8, 32)])
    np.testing.assert_array_equal(k, want.transpose(2, 0, 1))


@pytest.fixture(scope="module")
def quantised(tmp_path_factory):
    """What can be in blocks of 32 is Q8_0."""
    return write(tmp_path_factory.mktemp("gguf") / "q.gguf", quantise=lambda name, x: (q8_0(x)[0], GGMLQuantizationType.Q8_0) if x.ndim > 1 and x.shape[-1] == 32 else None)


@pytest.mark.parametrize("kind", [*gguf._PLAIN, *gguf._QUANTISED])
def test_every_kind_that_is_listed_can_be_read(kind):
    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    data = np.random.default_rng(0).integers(0, 60, (3, 2 * size), dtype=np.uint8)  # small bytes: no scale is infinite
    tensor = gguf._tensor(data.reshape(-1), 0, "x", (3, 2 * block), GGMLQuantizationType[kind].value, 0, "file")
    assert tensor.shape == np.asarray(tensor).shape == (3, 2 * block) and len(np.unique(np.asarray(tensor, np.float32))) > 2
    with pytest.raises(UserError, match="^file: x ends at byte"):
        gguf._tensor(data.reshape(-1)[:-1], 0, "x", (3, 2 * block), GGMLQuantizationType[kind].value, 0, "file")


def test_quantised_tensors_are_computed_one_by_one_and_only_when_asked(quantised, monkeypatch):
    made = []
    monkeypatch.setattr(gguf, "dequantize", lambda rows, kind, whole=gguf.dequantize: made.append(rows.shape) or whole(rows, kind))
    arrays = pretrained.find(quantised).arrays()
    late = {path for path, array in arrays.items() if isinstance(array, Deferred)}
    assert len(late) == 3 * 6 + 2 and not made  # q, k, v, o, gate, up; embedding and head
    assert np.asarray(arrays["decoder/embed"]).shape == arrays["decoder/embed"].shape and made == [(379, 34)]


def test_over_a_mesh_and_in_bfloat16(quantised):
    model = pretrained.load(quantised, "bfloat16", sharding.make_mesh(common.parse_mesh("fsdp:8")))
    assert any(len(leaf.sharding.device_set) == 8 and leaf.dtype == "bfloat16" and not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(model.params))
    want = pretrained.find(quantised).arrays()
    assert all(np.array_equal(leaf, np.asarray(want[path]).astype(leaf.dtype)) for path, leaf in model.by_layer().items())


def test_convert_writes_a_directory_of_it(llama, tmp_path, capsys):
    assert main(["convert", f"--model={llama}", f"--to={tmp_path}/out"]) == 0
    a, b = pretrained.load(tmp_path / "out"), reference("llama")
    assert pretrained.find(tmp_path / "out").sizes == pretrained.find(GOLDEN / "llama" / "model").sizes
    np.testing.assert_array_equal(a.logits(PROMPT), b.logits(PROMPT))
    assert (a.tokenizer.bos, a.tokenizer.eos, a.tokenizer.stops) == (1, 2, (2,))


def test_a_config_may_start_from_it(llama):
    assert common.tokenizer(str(llama), None).encode_raw(PROMPT) == reference("llama").tokenizer.encode_raw(PROMPT)
    arrays = common.parameter_sources({"decoder": pretrained.find(llama)})["decoder"]()
    want = reference("llama").by_layer()
    assert set(arrays) == set(want) and all(np.array_equal(arrays[path], want[path]) for path in want)


def test_a_file_is_known_by_its_first_bytes_and_a_directory_names_its_files(llama, tmp_path):
    shutil.copy(llama, tmp_path / "blob")
    assert pretrained.find(tmp_path / "blob").family.name == "llama"
    shutil.copy(llama, tmp_path / "m.gguf")
    with pytest.raises(UserError, match="holds no model: .*; it holds m.gguf: give that file$"):
        pretrained.find(tmp_path)


# --- files that are not what they should be ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("change, message", [
    (lambda w: w.kv_data[0].update({"general.architecture": GGUFValue("mamba", GGUFValueType.STRING)}), "architecture 'mamba' is not known; known: llama, qwen2"),
    (lambda w: w.add_type("adapter"), "general.type is 'adapter', and vlmjax computes only 'model'"),
    (lambda w: w.add_uint16("split.count", 3), "is one of 3 parts of a model; join them"),
    (lambda w: w.add_string("llama.rope.scaling.type", "linear"), "llama.rope.scaling.type is 'linear', and vlmjax computes only 'none'"),
    (lambda w: w.add_float32("llama.rope.scaling.factor", 2.0), "rope.scaling.factor is 2.0"),
    (lambda w: w.add_uint32("llama.expert_count", 8), "expert_count is 8"),
    (lambda w: w.add_float32("llama.logit_scale", 0.5), "llama.logit_scale is 0.5, which vlmjax does not know"),
    (lambda w: w.add_uint32("llama.rope.dimension_count", 4), "rope.dimension_count is 4, and vlmjax computes only 8"),
    (lambda w: w.add_uint32("llama.vocab_size", 400), "vocab_size is 400, and vlmjax computes only 379"),
    (lambda w: w.add_tensor("rope_freqs.weight", np.ones(4, np.float32)), "rope_freqs.weight scales the rotary angles"),
    (lambda w: w.add_tensor("blk.0.attn_q.bias", np.ones(32, np.float32)), r"holds, beyond it, 1 tensor \(blk.0.attn_q.bias\)"),
    (lambda w: w.add_tensor("blk.7.extra", np.ones(4, np.float32)), "block_count is 3, and the file holds 4 blocks"),
    (lambda w: w.add_tensor("other", np.zeros(34, np.uint8), raw_dtype=GGMLQuantizationType.IQ1_S, raw_shape=(50,)), "other is quantised as IQ1_S, and vlmjax reads F32, "),
], ids=lambda value: value.split()[0] if isinstance(value, str) else "")  # fmt: skip
def test_what_vlmjax_does_not_compute_is_refused(tmp_path, change, message):
    file = write(tmp_path / "m.gguf", change=change)
    with pytest.raises(UserError, match=f"m.gguf: .*{message}"):
        pretrained.find(file).arrays()


@pytest.mark.parametrize("damage, message", [
    (lambda data: b"", "is not a GGUF file"),
    (lambda data: b"<html></html>", "is not a GGUF file"),
    (lambda data: data[:500], "ends inside its header .* was it copied completely"),
    (lambda data: data[:-40], "ends at byte .* was it copied completely"),
    (lambda data: data[:4] + b"\1" + data[5:], "is GGUF of version 1, and vlmjax reads 2 and 3"),
    (lambda data: data[:4] + b"\0\0\0\3" + data[8:], "it is big-endian"),
    (lambda data: data[:8] + b"\xff" * 8 + data[16:], "is GGUF|ends inside its header|damaged"),
])
def test_a_damaged_file_is_named(llama, tmp_path, capsys, damage, message):
    (tmp_path / "m.gguf").write_bytes(damage(llama.read_bytes()))
    with pytest.raises(UserError, match=f"m.gguf: .*({message})"):
        pretrained.find(tmp_path / "m.gguf")
    assert main(["convert", f"--model={tmp_path}/m.gguf", f"--to={tmp_path}/out"]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="m.gguf: there is no such file"):
        pretrained.find(tmp_path / "m.gguf")


def attempt(file, read):
    """Nothing but a UserError of one line may come of a bad file. → was it read?"""
    try:
        read()
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000 + len(str(file))
        return False
    return True


def test_no_byte_of_a_header_is_trusted(llama, tmp_path):
    whole, file = llama.read_bytes(), epath.Path(tmp_path / "m.gguf")
    header = whole.rindex(b"blk.") + 60
    draw = random.Random(0)
    read = 0
    for _ in range(200):
        data, at = bytearray(whole), draw.randrange(header)
        value = draw.choice([bytes([draw.randrange(256)]), b"\xff" * 8, b"\xff" * 7 + b"\x7f", bytes(8), b"\0\0\0\0\1\0\0\0"])
        data[at : at + len(value)] = value
        file.write_bytes(data)
        read += attempt(file, lambda: pretrained.find(file).tokenizer())
    assert 0 < read < 200


def test_no_value_in_the_metadata_is_trusted(llama):
    whole = gguf.read(epath.Path(llama))
    for key in whole.metadata:
        for value in (-1, 0, 2**63, "x", "", True, float("nan"), [], [1, 2], ["a"], [float("inf")] * 379, [0] * 379):
            file = gguf.File(whole.path, {**whole.metadata, key: value}, whole.tensors)
            attempt(file.path, lambda: gguf.config(file))
            attempt(file.path, lambda: tokenizers.from_gguf(file.metadata, "file"))


def test_commands_that_need_a_directory_say_so(llama, capsys):
    assert main(["parity", f"--model={llama}"]) == 2 and "write it with `vlmjax convert`" in capsys.readouterr().err
    assert main(["evaluate", f"--model={llama}", "--tasks=easy_vqa"]) == 2 and "--output: say where results go" in capsys.readouterr().err
