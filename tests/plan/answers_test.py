"""Answering, planned: on virtual devices."""
import importlib.util

import jax
import jax.numpy as jnp
import pytest

from tests.plan.virtual import FOUR
from tests.train import tiny
from vlmjax.errors import UserError
from vlmjax.models import decoder
from vlmjax.plan import answers, table, topologies
from vlmjax.sharding import MeshConfig


def plan(mesh=MeshConfig(), dtype="float32", **asked):
    return answers.plan(answers.Questions(**{"rows": 8, "length": 16, "new": 5} | asked), tiny.modules(), dtype, mesh, FOUR, "--answers")


@pytest.fixture(scope="module")
def planned():
    return plan()


def test_flops_are_those_of_prompts_and_of_one_token_of_each_answer(planned):
    """By hand, for the decoder: its layers read every place of the prompts (an image is among them), but its last one, which lies alone on a CPU, what asks only; the
    head reads what answers."""
    config, rows, length = tiny.decoder.VARIANTS["test"], 8, 16
    assert config.layers == 2
    keys_values, rest = 2 * config.width**2, 2 * config.width**2 + 3 * config.width * config.mlp
    head, slots = config.vocab * config.width, length + 5 - 1
    attention = lambda queries, keys: 4 * queries * keys * config.heads * config.head_dim
    assert planned["token"]["flops"] == rows * (2 * (2 * (keys_values + rest) + head) + 2 * attention(1, slots))
    prompts = rows * (2 * (length * (2 * keys_values + rest) + rest + head) + attention(length, length) + attention(1, length))
    assert plan(images=0)["prefill"]["flops"] == prompts < planned["prefill"]["flops"]


def test_parameters_lie_as_evaluation_lays_them_and_their_gathering_is_counted(planned):
    """On fsdp weights are gathered; where every device holds them, nothing is."""
    whole = plan(MeshConfig(replica=4, fsdp=1))
    assert planned["parameters"] < whole["parameters"] / 3 and planned["mesh"]["fsdp"] == 4
    received = lambda made: sum(kind["bytes"] for kind in made["prefill"]["collectives"].values())
    assert received(planned) > whole["parameters"] / 2 and received(whole) < received(planned) / 20
    assert plan(MeshConfig(replica=4, fsdp=1), "bfloat16")["parameters"] < 0.6 * whole["parameters"]


def test_a_prefill_has_what_the_turns_of_the_loop_leave():
    count = lambda n, size: {"count": n, "bytes": size}
    all_ = answers.Read({"all-gather": count(40, 700), "all-to-all": count(3, 30), "all-reduce": count(1, 8)}, {"all-reduce": count(3, 9)}, 1000, 50)
    turn = answers.Read({"all-gather": count(10, 200), "all-to-all": count(1, 10)}, {}, 300, 15)
    assert all_.without(turn, 3) == ({"all-gather": count(10, 100), "all-reduce": count(1, 8)}, {"all-reduce": count(3, 9)}, 100, 5)


def test_rows_are_padded_to_the_mesh_and_said(planned):
    odd = plan(rows=6)
    assert (odd["rows"], odd["padded"]) == (6, 8) and odd["token"]["flops"] == planned["token"]["flops"]
    assert odd["answers_per_second"] == pytest.approx(planned["answers_per_second"] * 6 / 8, rel=0.05)
    assert "6 rows (padded to 8) of 16 tokens, 1 image and 1 question each, 5 new tokens, float32" in table.answer_lines(odd)[0]


def test_an_answer_takes_its_prefill_and_its_tokens(planned):
    roof = lambda part: planned[part]["roofline"]["step"]
    assert planned["seconds"] == pytest.approx(roof("prefill") + 4 * roof("token"))
    assert planned["answers_per_second"] == pytest.approx(8 / planned["seconds"])
    compute = planned["token"]["flops"] * 6 / (4 * FOUR.chip.peak)  # float32 takes six passes
    assert planned["token"]["roofline"]["compute"] == pytest.approx(compute)
    one = plan(new=1)
    assert "token" not in one and one["seconds"] == one["prefill"]["roofline"]["step"] and not any("each token" in line for line in table.answer_lines(one))


def test_what_finds_no_room_says_what_it_needs(monkeypatch, planned):
    def refuse(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 34.43G of 15.75G hbm.")

    monkeypatch.setattr(jax.stages.Lowered, "compile", refuse)
    made = plan()
    assert not made["fits"] and made["needs"] == int(34.43 * 2**30)
    assert "DOES NOT FIT   needs more than 34.43 GiB, the chip gives 15.75" in table.answer_lines(made)[1]
    rows = table.answers_markdown([{"topology": "v5e-4", "answers": planned}, {"topology": "v5e-4", "answers": made}])
    assert len({line.count("|") for line in rows}) == 1 and "does not fit: > 34.43 / 15.75" in rows[-1]


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed: pip install 'vlmjax[tpu]'")
def test_a_token_reads_parameters_and_cache_once_and_writes_only_its_slots():
    """On a TPU, where layers are one loop. A cache that each token writes anew would be twice its bytes or more."""
    config = decoder.DecoderConfig(vocab=1024, width=512, layers=8, heads=8, kv_heads=8, head_dim=64, mlp=1024)
    made = answers.plan(answers.Questions(rows=32, length=960, new=65, images=0), {"decoder": decoder.Decoder(config, (8,), jnp.bfloat16)}, "bfloat16", MeshConfig(replica=4, fsdp=1), topologies.find("v5e-4"), "--answers")
    cache = 8 * 2 * (960 + 64) * 8 * 64 * 2 * 8  # rows of a chip, keys and values, slots, heads and their size, bytes, layers
    parameters = made["parameters"] - 1024 * 512 * 2  # of the table a token reads a row
    assert 0.95 * (parameters + cache) < made["token"]["traffic"] < parameters + 1.2 * cache
    assert made["token"]["schedule"]["seconds"] > made["token"]["roofline"]["hbm"] / 2 and "compiler" in table.answer_lines(made)[3]


@pytest.mark.parametrize("asked, message", [({"length": 4}, "length 4 has no room for 1 images of 4 tokens and a question"), ({"rows": 0}, "rows is 0"), ({"new": 0}, "new is 0"), ({"images": -1}, "images is -1")])
def test_a_mistake_is_said(asked, message):
    with pytest.raises(UserError, match=f"--answers: {message}"):
        answers.Questions(**{"rows": 8, "length": 16} | asked).check("--answers")
        plan(**asked)
