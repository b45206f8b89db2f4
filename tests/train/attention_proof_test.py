"""A kernel is compared with the plain attention before a stage trusts it."""
import dataclasses
import functools

import pytest

from tests.train import tiny
from vlmjax import kernels, sharding
from vlmjax.models.attention import BySegments
from vlmjax.train import attention_proof, build, proof


def wrong(q, k, v, segments, function):
    """Of a kernel that takes the rows' padding for one more example, and does not see where examples end."""
    return function(q, k, v, segments * 0 + 1)


@pytest.mark.parametrize("mesh", [tiny.one_device(), sharding.make_mesh(sharding.MeshConfig(fsdp=4, tensor=2))])
def test_splash_is_what_it_stands_for_and_the_record_says_so(mesh):
    said = attention_proof.check(tiny.stage(mesh=mesh, attention="splash"))
    assert said["attention"].startswith("splash (Pallas)") and 0 < said["attention_error"] < 1e-5


def test_cudnns_call_is_too_in_bfloat16():
    said = attention_proof.check(tiny.stage(attention="cudnn", precision=build.Precision(compute="bfloat16"), parts=tiny.modules("bfloat16")))
    assert said["attention"].startswith("cuDNN") and 1e-4 < said["attention_error"] < 0.015


def test_a_kernel_that_computes_something_else_ends_the_stage_before_its_first_step(tmp_path):
    stage = tiny.stage(attention="splash")
    other = BySegments(functools.partial(wrong, function=kernels.splash(None, True)))
    stage = dataclasses.replace(stage, model=dataclasses.replace(stage.model, decoder=stage.model.decoder.clone(attend=other)))
    with pytest.raises(proof.ProofError, match="stage align: its attention, splash .* computes something else .* take stages.align.attention='plain'"):
        tiny.run(stage, tmp_path)
    assert not (tmp_path / "metrics").exists()


def test_the_plain_one_needs_no_proof_and_the_record_names_it(tmp_path):
    record = tiny.run(tiny.stage(), tmp_path).record
    assert record["attention"] == "plain (XLA)" and "attention_error" not in record
