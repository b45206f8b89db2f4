"""What a step is computed with on the kind of device that a stage's mesh has: its attention, a kernel where there is one, else the plain one of
models/attention.py; on CPUs the library of its products."""
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention
from jax.sharding import Mesh, PartitionSpec

from vlmjax.errors import UserError, did_you_mean
from vlmjax.models.attention import Attend, BySegments, attend
from vlmjax.models.clip import TextTower
from vlmjax.models.decoder import Decoder, DecoderConfig
from vlmjax.models.vit import ViT

# The width from which Eigen's products are faster on a CPU than those of YNNPACK, XLA's default. With an encoder 384 and a language model 512 wide a step takes
# 0.86 (only the projector learns) and 0.94 of the time (the language model, too); at 64 it takes 1.3 to 1.7 times as long. Measured with all of YNNPACK off, and
# at no width in between.
EIGEN_FROM = 384
# Reductions stay with YNNPACK: XLA's own take ten times as long.
EIGEN = ("xla_cpu_experimental_ynn_fusion_type", "LIBRARY_FUSION_TYPE_REDUCE")
# No product in pieces between which a ring of chips hands the parts of a matrix around. What fsdp splits is the width that is summed over: each piece then reads and writes all that
# a product makes. Of LLaVA-1.5-7B's steps on v4-64 the compiler expects 1.16 and 1.01 s without rings and 2.26 and 1.90 with them (experiments/README.md); never timed on a TPU.
WHOLE_PRODUCTS = ("xla_jf_spmd_threshold_for_windowed_einsum_mib", "1000000")
NAMES = ("auto", "plain", "splash", "cudnn")
LANES = 128
# Tokens of a block of queries or keys, the largest that divides a row.
BLOCKS = (512, 384, 256, LANES)
# What cuDNN computes: widths of a head are multiples of 8 up to this, on every generation from Ampere on, and numbers have 16 bits.
CUDNN_HEAD = 128


class Choice(NamedTuple):
    """about: which attention, and why, in words."""

    attend: Attend
    about: str


def choose(name: str, config: DecoderConfig, dtype: jnp.dtype, mesh: Mesh, per_group: int, where: str = "attention") -> Choice:
    """The attention of a language model that computes in dtype on the devices of a mesh. `auto`: splash on TPUs and cuDNN on NVIDIA's GPUs, for what they can take. UserError where the one
    that is named cannot; where: the key that names it."""
    if name not in NAMES:
        raise UserError(f"{where}: {name!r} is not known{did_you_mean(name, NAMES)}")
    kind, dtype = _kind(mesh.devices.flat[0]), jnp.dtype(dtype)
    best = {"tpu": "splash", "cuda": "cudnn"}.get(kind, "plain") if name == "auto" else name
    obstacle = _obstacle(best, config, dtype, mesh.shape["tensor"], per_group)
    if obstacle and name == best:
        raise UserError(f"{where}: {name} cannot be: {obstacle}; take auto")
    if best == "plain" or obstacle:
        return Choice(attend, f"plain (XLA){f', as {obstacle}' if obstacle else ''}")
    if best == "cudnn":
        elsewhere = kind != "cuda"
        return Choice(cudnn(elsewhere), "cuDNN, of any mask" + (f", on a {kind} JAX's own form of it: for tests" if elsewhere else ""))
    interpreted = kind != "tpu"
    seen = f", {config.window} places back" if config.window else ""
    return Choice(splash(config.window, interpreted), f"splash (Pallas), causal within segments{seen}" + (f", interpreted on a {kind}: for tests, slow" if interpreted else ""))


def _kind(device: jax.Device) -> str:
    """cpu, tpu, cuda, or what else JAX calls its platform."""
    return "cuda" if device.platform == "gpu" and "cuda" in device.client.platform_version else device.platform


def _obstacle(name: str, config: DecoderConfig, dtype: jnp.dtype, tensor: int, per_group: int) -> str:
    """Why this kernel cannot be the attention; empty where it can."""
    if name == "plain":
        return ""
    if config.heads % tensor or config.kv_heads % tensor:
        return f"{config.heads} heads of {config.kv_heads} keys do not divide over tensor={tensor}"
    if name == "splash":
        return f"per_group={per_group} lets questions share an image's tokens, which splash does not see" if per_group > 1 else ""
    if dtype.itemsize != 2:
        return f"cuDNN computes in bfloat16, not in {dtype} (precision.compute)"
    return f"cuDNN takes heads of a multiple of 8 up to {CUDNN_HEAD}, not of {config.head_dim}" if config.head_dim % 8 or config.head_dim > CUDNN_HEAD else ""


def give(parts: Mapping[str, nn.Module], name: str, mesh: Mesh, per_group: int, where: str) -> tuple[dict[str, nn.Module], str]:
    """{component: module} of a stage with the attention of its language model, and what that is in words; without one they stay as they are, and none can be named."""
    if "decoder" not in parts:
        if name != "auto":
            raise UserError(f"{where}: {name!r} is the attention of a language model, and the stage computes none; take auto")
        return dict(parts), ""
    chosen, about = choose(name, parts["decoder"].config, parts["decoder"].dtype, mesh, per_group, where)
    return {**parts, "decoder": parts["decoder"].clone(attend=chosen)}, about


def compiler_options(platform: str, parts: Iterable[nn.Module]) -> dict[str, str]:
    """Of a program of these modules on such a device: on CPUs the library that suits the widths of its transformers, on TPUs whole products. It hangs on these alone, so that a run that
    is resumed computes the same bits."""
    if platform == "tpu":
        return dict([WHOLE_PRODUCTS]) if is_known(*WHOLE_PRODUCTS, platform) else {}
    widths = [part.config.width for part in parts if isinstance(part, (ViT, TextTower, Decoder))]
    return dict([EIGEN]) if platform == "cpu" and widths and min(widths) >= EIGEN_FROM and is_known(*EIGEN) else {}


@functools.cache
def is_known(option: str, value: str | int | bool, platform: str = "cpu") -> bool:
    """Whether the compiler for such devices has an option and a value of it; those of experiments come and go. Of devices that are not here it is taken for granted."""
    try:
        device = jax.local_devices(backend=platform)[0]
    except RuntimeError:
        return True
    with jax.default_device(device):
        try:
            jax.jit(lambda: 0).lower().compile({option: value})
        except jax.errors.JaxRuntimeError as error:
            if platform == "cpu" and "No such compile option" not in str(error) and "is not a valid enum value" not in str(error):
                raise
            return False
    return True


@functools.cache
def splash(window: int | None = None, interpret: bool = False) -> BySegments:
    """JAX's splash attention, which never writes a row's T² logits to memory (after FlashAttention, arXiv:2205.14135). window: of `attention.visible`; blocks of
    keys that lie before it for all of a block's queries are not computed. interpret: on any device, slowly."""
    return BySegments(functools.partial(_splash, window=window, interpret=interpret))


def _splash(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array, *, window: int | None, interpret: bool) -> jax.Array:
    """q: f[B, T, N, H]. k, v: f[B, T, K, H], K divides N. segments: i32[B, T]. Rows lie whole on a device, heads are split over `tensor`. Returns f[B, T, N, H]."""
    T, H = q.shape[1], q.shape[3]
    pad = -T % LANES  # padding is a segment of its own, 0
    q, k, v = (jnp.pad(jnp.einsum("BTNH->BNTH", x), ((0, 0), (0, 0), (0, pad), (0, 0))) for x in (q * jnp.asarray(H**-0.5, q.dtype), k, v))
    segments = jnp.pad(segments, ((0, 0), (0, pad)))

    own = _on_each_device(functools.partial(_own, window, interpret), heads=1)
    return jnp.einsum("BNTH->BTNH", own(q, k, v, segments)[:, :, :T])


def _on_each_device(function: Callable, heads: int) -> Callable:
    """function(q, k, v, seen) of the rows and heads that each device of the mesh has; heads: the axis of q, k and v that counts them."""
    if jax.sharding.get_abstract_mesh().empty:
        return function
    rows = PartitionSpec(("replica", "fsdp"))
    places = PartitionSpec(*rows, *(None,) * (heads - 1), "tensor")
    return jax.shard_map(function, in_specs=(places, places, places, rows), out_specs=places, check_vma=False)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _own(window: int | None, interpret: bool, q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array) -> jax.Array:
    """The rows and heads of one device: f[B, N, T, H], with f[B, K, T, H] and i32[B, T]."""
    return _forward(window, interpret, q, k, v, segments)[0]


def _forward(window, interpret, q, k, v, segments):
    heads, length = q.shape[1:3]
    block = next(size for size in BLOCKS if length % size == 0)
    places = (length, length)  # a segment lies in one piece: what is so many places back in the row is so many positions back
    mask = splash_attention.CausalMask(places) if window is None or window >= length else splash_attention.LocalMask(places, (window - 1, 0), 0)
    kernel = splash_attention.make_splash_mha(
        splash_attention.MultiHeadMask([mask] * heads), head_shards=1, q_seq_shards=1, interpret=interpret,
        block_sizes=splash_attention.BlockSizes(block_q=block, block_kv=block, block_q_dkv=block, block_kv_dkv=block, block_q_dq=block, block_kv_dq=block))
    with _precision(q):
        return jax.vjp(lambda *x: jax.vmap(kernel)(*x, splash_attention.SegmentIds(segments, segments)), q, k, v)


def _backward(window, interpret, backward, g):
    with _precision(g):
        return *backward(g), None


_own.defvjp(_forward, _backward)


def _precision(x: jax.Array):
    """Products of float32 are exact, as everywhere (commands/common.py); the kernel's compiler knows no exact product of bfloat16, whose products are exact anyway. Forward
    and backward passes are traced at different times, hence their own rule of differentiation."""
    return jax.default_matmul_precision("highest" if x.dtype == jnp.float32 else "default")


@functools.cache
def cudnn(elsewhere: bool = False) -> Attend:
    """cuDNN's fused attention, which never writes a row's logits of each head to memory, as JAX calls it. elsewhere: on any device, by the form that JAX's documentation gives it in XLA."""
    return functools.partial(_cudnn, implementation="xla" if elsewhere else "cudnn")


def _cudnn(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None, *, implementation: str) -> jax.Array:
    """As `attention.attend`; a mask is added to the logits, T·S numbers of a row for all heads."""
    T, S = q.shape[1], k.shape[1]
    if mask is None:
        mask = jnp.ones((q.shape[0], T, S), bool)
    # An added mask has even sides there. A query more sees nothing, a key more is seen by nobody.
    q, k, v = (jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, 0), (0, 0))) for x in (q, k, v))
    mask = jnp.pad(mask, ((0, 0), (0, T % 2), (0, S % 2)))
    own = lambda q, k, v, mask: jax.nn.dot_product_attention(q, k, v, mask=mask[:, None], implementation=implementation)
    return _on_each_device(own, heads=2)(q, k, v, mask)[:, :T]
