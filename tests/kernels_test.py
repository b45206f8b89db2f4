"""Kernels against the plain attention: fresh random inputs, packed rows, float32."""
import dataclasses
import importlib.util
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from vlmjax import kernels, sharding
from vlmjax.errors import UserError
from vlmjax.models import decoder, vit
from vlmjax.models.attention import attend, visible
from vlmjax.plan.hlo import Program
from vlmjax.plan.topologies import find
from vlmjax.train import build, flops


def packed(rng, B, T):
    """Segments of random lengths, 1, 2, …, then padding: i32[B, T]."""
    segments = np.zeros((B, T), np.int32)
    for row in segments:
        cuts = np.sort(rng.choice(np.arange(1, T), 3, replace=False))
        for n, (start, stop) in enumerate(zip([0, *cuts[:-1]], cuts), 1):
            row[start:stop] = n
    return segments


ONE = sharding.make_mesh(sharding.MeshConfig(), jax.devices()[:1])
TINY = decoder.VARIANTS["tiny-64"]


def both(name, T, N, K, H, window, seed):
    """(loss and gradients by the plain attention, by a kernel) of what real tokens read. cuDNN computes in 16 bits: both are given what it can hold."""
    rng = np.random.default_rng(seed)
    B, dtype = 2, jnp.bfloat16 if name == "cudnn" else jnp.float32
    segments = jnp.asarray(packed(rng, B, T))
    q, k, v = (jnp.asarray(rng.normal(size=(B, T, heads, H)), dtype) for heads in (N, K, K))
    weights = jnp.asarray(rng.normal(size=(B, T, N, H)), jnp.float32) * (segments > 0)[:, :, None, None]
    order = jnp.broadcast_to(jnp.arange(T), (B, T))
    mask = visible(segments, order, jnp.zeros_like(segments), segments, order, window=window)
    run = lambda function, rule, x: jax.value_and_grad(lambda *x: jnp.sum(function(*x, rule) * weights), argnums=(0, 1, 2))(*x)
    config = dataclasses.replace(TINY, heads=N, kv_heads=K, window=window)
    kernel = kernels.choose(name, config, dtype, ONE, 1).attend
    return run(attend, mask, [x.astype(jnp.float32) for x in (q, k, v)]), run(kernel, segments if name == "splash" else mask, (q, k, v))


SHAPES = [(256, 2, 2, 64, None), (200, 4, 2, 128, None), (384, 3, 1, 32, None), (384, 3, 1, 32, 384), (200, 4, 2, 64, 2), (300, 2, 2, 32, 37), (640, 2, 1, 32, 200)]


@pytest.mark.parametrize("T, N, K, H, window", SHAPES)
def test_splash_is_the_plain_attention_of_packed_rows(T, N, K, H, window):
    with jax.default_matmul_precision("highest"):
        plain, splash = both("splash", T, N, K, H, window, seed=T)
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(splash), strict=True):
        assert np.linalg.norm(a - b) <= 1e-5 * np.linalg.norm(a)


@pytest.mark.parametrize("T, N, K, H, window", [*SHAPES, (77, 4, 2, 64, 5)])
def test_what_cudnn_is_asked_for_is_the_plain_attention_of_packed_rows(T, N, K, H, window):
    """By the form that JAX gives the same call in XLA; rows of an odd length are padded, as cuDNN's masks have even sides."""
    with jax.default_matmul_precision("highest"):
        (_, plain), (_, cudnn) = both("cudnn", T, N, K, H, window, seed=T)
    for a, b in zip(plain, cudnn, strict=True):
        assert np.linalg.norm(a - b) <= 0.02 * np.linalg.norm(a)


@pytest.mark.parametrize("fsdp, tensor", [(1, 1), (2, 2)])
def test_for_nvidias_gpus_it_is_lowered_to_cudnn_in_both_directions(monkeypatch, fsdp, tensor):
    """No GPU and no cuDNN is needed to lower; rows and heads are split over devices outside its call. Its FLOPs are counted, the logits' a second time backwards."""
    monkeypatch.setattr("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 90800)
    mesh = sharding.make_mesh(sharding.MeshConfig(fsdp=fsdp, tensor=tensor), jax.devices()[: fsdp * tensor])
    B, T, N, K, H = 4, 256, 4, 2, 64
    q, k = (jax.ShapeDtypeStruct((B, T, heads, H), jnp.bfloat16) for heads in (N, K))
    mask = jax.ShapeDtypeStruct((B, T, T), bool)
    loss = lambda q, k, v, mask: jnp.sum(kernels.cudnn()(q, k, v, mask).astype(jnp.float32))
    with build.context(mesh):
        text = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(q, k, k, mask).lower(lowering_platforms=("cuda",)).as_text()
        counted = flops.count(loss, q, k, k, mask), flops.count(jax.grad(loss, argnums=(0, 1, 2)), q, k, k, mask)
    calls = re.findall(r"@(__cudnn\$\w+)\(.*-> \(tensor<(\S+)xbf16>", text)
    own = f"{B // fsdp}x{T}x{N // tensor}x{H}", f"{B // fsdp}x{N // tensor}x{T}x{H}"
    assert [name for name, _ in calls] == ["__cudnn$fmhaScaleBiasSoftmax", "__cudnn$fmhaScaleBiasSoftmaxBackward"] and all(shape in own for _, shape in calls)
    assert counted == (2 * 2 * B * N * T * T * H, (2 + 5) * 2 * B * N * T * T * H)


def choose(name, config=TINY, dtype="float32", mesh=ONE, per_group=1):
    return kernels.choose(name, config, dtype, mesh, per_group)


class Cuda:
    """What a mesh of NVIDIA's GPUs looks like."""

    platform, client = "gpu", types.SimpleNamespace(platform_version="PJRT C API\ncuda 13000")


def mesh_of(device, tensor=1):
    return types.SimpleNamespace(devices=np.array([device]), shape={"tensor": tensor})


def test_the_devices_and_the_rows_decide():
    assert choose("auto") == choose("plain") == (attend, "plain (XLA)")
    assert "interpreted on a cpu" in choose("splash").about and "for tests" in choose("cudnn", dtype="bfloat16").about
    assert "causal within segments, 4096 places back" in choose("splash", decoder.VARIANTS["mistral-7b"]).about
    gpu, rocm = mesh_of(Cuda), mesh_of(types.SimpleNamespace(platform="gpu", client=types.SimpleNamespace(platform_version="rocm 6")))
    assert choose("auto", dtype="bfloat16", mesh=gpu, per_group=4) == (kernels.cudnn(False), "cuDNN, of any mask")
    assert choose("auto", dtype="bfloat16", mesh=rocm) == choose("plain", mesh=gpu) == (attend, "plain (XLA)")
    assert choose("auto", mesh=gpu) == (attend, "plain (XLA), as cuDNN computes in bfloat16, not in float32 (precision.compute)")
    with pytest.raises(UserError, match="per_group=4 lets questions share an image's tokens"):
        choose("splash", per_group=4)
    with pytest.raises(UserError, match="attention: cudnn cannot be: cuDNN computes in bfloat16, not in float32 .precision.compute.; take auto"):
        choose("cudnn")
    with pytest.raises(UserError, match="heads of a multiple of 8 up to 128, not of 20"):
        choose("cudnn", dataclasses.replace(TINY, head_dim=20), "bfloat16")
    with pytest.raises(UserError, match="'spalsh' is not known; did you mean 'splash'"):
        choose("spalsh")
    with pytest.raises(UserError, match="4 heads of 4 keys do not divide over tensor=8"):
        choose("splash", mesh=sharding.make_mesh(sharding.MeshConfig(fsdp=1, tensor=8)))
    with pytest.raises(UserError, match="stages.x.attention: 'splash' is the attention of a language model, and the stage computes none"):
        kernels.give({}, "splash", ONE, 1, "stages.x.attention")


def test_both_attentions_have_the_same_flops_forward():
    """Blocks that the mask skips count, as the plain attention's hidden pairs do: two products of T² · N · H."""
    x, segments = jax.ShapeDtypeStruct((2, 256, 4, 64), jnp.float32), jax.ShapeDtypeStruct((2, 256), jnp.int32)
    count = lambda: flops.count(kernels.splash(interpret=True), x, x, x, segments)
    assert count() == 2 * 2 * 2 * 256 * 256 * 4 * 64
    with build.context(sharding.make_mesh(sharding.MeshConfig(fsdp=2, tensor=4))):  # of all devices, of which each has its rows and heads
        assert count() == 2 * 2 * 2 * 256 * 256 * 4 * 64


def test_blocks_before_the_window_are_not_computed():
    """Of five blocks of 128 keys a block of queries sees two with a window of 129, its own and the one before."""
    x, segments = jax.ShapeDtypeStruct((1, 640, 1, 64), jnp.float32), jax.ShapeDtypeStruct((1, 640), jnp.int32)
    count = lambda window: flops.count(kernels.splash(window, interpret=True), x, x, x, segments)
    assert count(None) == count(640) == count(10000) == 2 * 2 * 640 * 640 * 64 and count(129) == count(None) * 2 // 5


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed: pip install 'vlmjax[tpu]'")
@pytest.mark.parametrize("slice_, tensor, T, window", [("v5e-16", 1, 1024, None), ("v4-8", 2, 768, None), ("v5e-16", 1, 1024, 300)])
def test_it_compiles_for_tpus_and_never_holds_the_logits(slice_, tensor, T, window):
    """Forward and backward, bfloat16, rows and heads split; the plain attention holds more than one set of N · T² logits."""
    mesh = sharding.make_mesh(sharding.MeshConfig(tensor=tensor), find(slice_).devices())
    place = NamedSharding(mesh, PartitionSpec(("replica", "fsdp"), None, "tensor"))
    B, N = sharding.row_shards(mesh), 8
    x = jax.ShapeDtypeStruct((B, T, N, 128), jnp.bfloat16, sharding=place)
    segments = jax.ShapeDtypeStruct((B, T), jnp.int32, sharding=sharding.batch(mesh))
    function = choose("auto", dataclasses.replace(decoder.VARIANTS["vicuna-7b"], window=window), "bfloat16", mesh).attend
    with build.context(mesh), jax.default_matmul_precision("highest"):
        program = jax.jit(jax.grad(lambda q, k, v, s: jnp.sum(function(q, k, v, s).astype(jnp.float32)), argnums=(0, 1, 2))).lower(x, x, x, segments).compile()
    assert program.memory_analysis().temp_size_in_bytes < N // tensor * T * T * 4
    assert not Program(program.as_text()).collectives()


def test_only_a_program_whose_transformers_are_all_wide_is_compiled_with_other_products():
    tower = lambda width: vit.ViT(dataclasses.replace(vit.VARIANTS["tiny-64"], width=width), (4,))
    language = decoder.Decoder(dataclasses.replace(decoder.VARIANTS["tiny-64"], width=512), (4,))
    eigen = dict([kernels.EIGEN])
    assert kernels.compiler_options("cpu", (tower(384), language)) == kernels.compiler_options("cpu", (language, None)) == eigen  # this jaxlib knows it
    assert kernels.compiler_options("cpu", (tower(64), language)) == kernels.compiler_options("cpu", ()) == kernels.compiler_options("gpu", (language,)) == {}
    assert kernels.compiler_options("tpu", (language,)) == dict([kernels.WHOLE_PRODUCTS])  # whatever its compiler knows, it is not here to be asked


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed: pip install 'vlmjax[tpu]'")
def test_on_tpus_a_split_matrix_is_gathered_whole():
    """And not handed around in a ring between the pieces of a product, as the compiler does unasked."""
    mesh = sharding.make_mesh(sharding.MeshConfig(), find("v5e-16").devices())
    x = jax.ShapeDtypeStruct((16, 1024, 1024), jnp.bfloat16, sharding=sharding.batch(mesh))
    w = jax.ShapeDtypeStruct((1024, 4096), jnp.bfloat16, sharding=NamedSharding(mesh, PartitionSpec("fsdp")))
    lowered = jax.jit(lambda x, w: x @ w, out_shardings=sharding.batch(mesh)).lower(x, w)
    kinds = lambda options: set(Program(lowered.compile(options).as_text()).collectives())
    assert kinds(kernels.compiler_options("tpu", ())) == {"all-gather"} and "collective-permute" in kinds({})


def test_an_option_that_another_jaxlib_lacks_is_not_given():
    option, value = kernels.EIGEN
    assert kernels.is_known(option, value) and not kernels.is_known("xla_cpu_no_such_thing", value) and not kernels.is_known(option, "LIBRARY_FUSION_TYPE_OTHER")
