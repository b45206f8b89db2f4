"""Language models of the Llama family: RMSNorm, rotary positions, grouped heads, gated MLP; with a window, Mistral's."""
import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlmjax.errors import UserError
from vlmjax.models.attention import Asked, Attend, Attention, attend, rotations, take
from vlmjax.models.lora import ATTENTION, LoRAConfig, adapt
from vlmjax.models.parts import fan_in, look_up, name_axes, products, wide
from vlmjax.models.stack import Stack
from vlmjax.stacks import segment_bounds, segment_name


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """theta: base of the rotary angles. qkv_bias: Qwen2 has them. window: of the mask of every layer (`attention.visible`): a token sees itself and the window - 1
    tokens before it; None: all before it. tied: logits are read with the embedding table. lora: adapters
    of its projections. added: (first id, how many) of the tokens whose rows lie in leaves of their own, so that they learn beside a frozen table: behind the
    table, or in place of rows of it that no token had. dynamic: (factor, S) of rotary angles that are those of theta in rows of at most S tokens, and in longer ones depend on their
    length (transformers' rope scaling `dynamic`, in InternVL3): longer rows are refused."""

    projections: ClassVar = (*ATTENTION, "mlp/gate", "mlp/up", "mlp/down")

    vocab: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    eps: float = 1e-5
    theta: float = 1e4
    qkv_bias: bool = False
    window: int | None = None
    tied: bool = False
    lora: LoRAConfig | None = None
    added: tuple[int, int] | None = None
    dynamic: tuple[float, int] | None = None

    @property
    def vocabulary(self) -> int:
        """V': ids that can be read and written."""
        return max(self.vocab, sum(self.added)) if self.added else self.vocab


class MLP(nn.Module):
    """f[B, T, D] → down(silu(gate(x)) · up(x)). Parameters: gate, up [D, F], down [F, D], each {kernel}."""

    mlp: int
    out_scale: float = 1.0
    dtype: Any = jnp.float32
    lora: LoRAConfig | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        D = x.shape[-1]
        dense = functools.partial(nn.Dense, use_bias=False, dtype=self.dtype, dot_general_cls=products)
        gate, up = (adapt(self.lora, f"mlp/{name}", x, dense(self.mlp, kernel_init=fan_in(D), name=name)(x)) for name in ("gate", "up"))
        hidden = name_axes(nn.silu(gate) * up, "batch", "length", "mlp")
        y = dense(D, kernel_init=fan_in(self.mlp, self.out_scale), name="down")(hidden)
        return adapt(self.lora, "mlp/down", hidden, y)


class Block(nn.Module):
    """One pre-norm layer, f[B, T, D] → f[B, A, D], the asked tokens (attention.take), None: all. Parameters: norm1/scale, attention, norm2/scale, mlp."""

    config: DecoderConfig
    dtype: Any = jnp.float32
    attend: Attend = attend

    @nn.compact
    def __call__(self, x, turns, mask, cache=None, place=None, asked=None):
        c = self.config
        out_scale = (2 * c.layers) ** -0.5
        attention = Attention(
            width=c.width,
            heads=c.heads,
            kv_heads=c.kv_heads,
            head_dim=c.head_dim,
            biases=("q", "k", "v") if c.qkv_bias else (),
            out_scale=out_scale,
            dtype=self.dtype,
            attend=self.attend,
            lora=c.lora,
            name="attention",
        )
        y, cache = attention(nn.RMSNorm(c.eps, self.dtype, name="norm1")(x), turns, mask, cache, place, asked)
        x = name_axes(take(x, asked) + y, "batch", "length", "embed")
        y = MLP(c.mlp, out_scale, self.dtype, c.lora, name="mlp")(nn.RMSNorm(c.eps, self.dtype, name="norm2")(x))
        return name_axes(x + y, "batch", "length", "embed"), cache


class Decoder(nn.Module):
    """tokens → `embed` → (image tokens are merged in, see vlm.py) → `__call__` → (places are picked) → `logits`.

    Methods are reached by `decoder.apply({"params": params}, …, method="embed")`. asked_only: its last layer, in a segment of its own, is computed for the places
    alone that are picked (`VLM.logits`).
    Parameters: embed [V, D], layers/START-STOP/…, norm/scale, head [D, V] unless tied; with added tokens added_embed [K, D] and added_head [D, K].
    """

    config: DecoderConfig
    segments: tuple[int, ...]
    dtype: Any = jnp.float32
    unroll: int | bool = 1
    remat: str = "none"
    attend: Attend = attend
    asked_only: bool = False

    def setup(self):
        c = self.config
        self.table = self.param("embed", fan_in(c.width), (c.vocab, c.width), jnp.float32)
        if not c.tied:
            self.head_kernel = self.param("head", fan_in(c.width), (c.width, c.vocab), jnp.float32)
        if c.added:
            self.added_table = self.param("added_embed", fan_in(c.width), (c.added[1], c.width), jnp.float32)
            if not c.tied:
                self.added_head = self.param("added_head", fan_in(c.width), (c.width, c.added[1]), jnp.float32)
        self.layers = Stack(functools.partial(Block, c, self.dtype, self.attend), self.segments, self.unroll, self.remat)
        self.norm = nn.RMSNorm(c.eps, self.dtype)

    def embed(self, tokens: jax.Array) -> jax.Array:
        """i32[B, T] → f[B, T, D]. An id outside the table becomes NaN instead of some other token's vector."""
        if self.config.added is None:
            return name_axes(look_up(self.table, tokens).astype(self.dtype), "batch", "length", "embed")
        first, count = self.config.added
        new = (tokens >= first) & (tokens < first + count)
        x = jnp.where(new[..., None], look_up(self.added_table, jnp.where(new, tokens - first, 0)), look_up(self.table, jnp.where(new, 0, tokens)))
        return name_axes(x.astype(self.dtype), "batch", "length", "embed")

    def __call__(
        self,
        x: jax.Array,
        positions: jax.Array,
        mask: jax.Array,
        cache: dict[str, Any] | None = None,
        start: jax.Array | int | None = None,
        asked: Asked | None = None,
    ) -> tuple[jax.Array, dict[str, Any] | None]:
        """x: f[B, T, D]. positions: i32[B, T], below S. mask: bool[B, T, S], of `attention.visible` with the config's window; S = T without a cache.

        cache: of `init_cache`; this call fills its slots start … start+T-1 (start: i32 scalar) and attends over all S slots
        under `mask`. asked: the tokens that come out, of a stack whose last layer has a segment of its own (stack.Stack). Returns (f[B, T or A, D] after the
        final norm, the new cache or None). UserError where S is more than the config's rotary angles hold for.
        """
        c = self.config
        if c.dynamic and mask.shape[-1] > c.dynamic[1]:
            raise UserError(f"decoder: rows of {mask.shape[-1]} tokens (length), and beyond {c.dynamic[1]} its rotary angles depend on the length (rope scaling 'dynamic'), which vlmjax does not compute")
        x, cache = self.layers(x, rotations(positions, c.theta, c.head_dim, mask.shape[-1]), mask, cache, start, asked)
        return name_axes(self.norm(x), "batch", "length", "embed"), cache

    def head(self) -> dict[str, jax.Array]:
        """What logits are read with (`read`), in the activations' dtype: {"table": f[V, D]} where it is tied, else {"head": f[D, V]}; with added tokens also {"added_…"}."""
        tied = self.config.tied
        kernels = {"table": self.table} if tied else {"head": self.head_kernel}
        if self.config.added:
            kernels |= {"added_table": self.added_table} if tied else {"added_head": self.added_head}
        named = lambda name, kernel: name_axes(kernel, *(("vocab", "embed") if tied else ("embed", "vocab"))) if "added" not in name else kernel
        return {name: named(name, kernel.astype(self.dtype)) for name, kernel in kernels.items()}

    def logits(self, hidden: jax.Array) -> jax.Array:
        """f[B, S, D] after the final norm → f32[B, S, V'], V' = config.vocabulary."""
        return name_axes(read(self.config, self.head(), hidden), "batch", "length", "vocab")

    def everything(self) -> jax.Array:
        tokens = jnp.zeros((1, 1), jnp.int32)
        return self.logits(self(self.embed(tokens), tokens, jnp.ones((1, 1, 1), bool))[0])


def read(config: DecoderConfig, kernels: Mapping[str, jax.Array], hidden: jax.Array) -> jax.Array:
    """Logits, f32[B, S, V'], of f[B, S, D] after the final norm; kernels: of `Decoder.head`."""
    def times(name: str) -> jax.Array:
        kernel, inside = kernels[name], 1 if name.endswith("table") else 0
        return wide(functools.partial(products(), dimension_numbers=(((2,), (inside,)), ((), ()))), hidden.astype(kernel.dtype), kernel)

    own = "table" if config.tied else "head"
    logits = times(own)
    if config.added:
        first, count = config.added
        logits = jnp.concatenate([logits[..., :first], times(f"added_{own}"), logits[..., first + count :]], axis=-1)
    return logits


def init_cache(
    config: DecoderConfig, segments: tuple[int, ...], batch: int, length: int, dtype: Any = jnp.float32
) -> dict[str, Any]:
    """An empty cache of S = `length` slots: {segment: {"k": f[l, B, K, H, S], "v": f[l, B, K, S, H]}}."""
    B, S, K, H = batch, length, config.kv_heads, config.head_dim
    return {segment_name(a, b): {"k": jnp.zeros((b - a, B, K, H, S), dtype), "v": jnp.zeros((b - a, B, K, S, H), dtype)} for a, b in segment_bounds(segments)}


def grow_cache(cache: dict[str, Any], slots: int) -> dict[str, Any]:
    """The same cache with as many more, empty, at its end."""
    end = {"k": 4, "v": 3}  # the axis of the slots
    return {segment: {key: jnp.pad(leaf, [(0, slots * (axis == end[key])) for axis in range(5)]) for key, leaf in own.items()} for segment, own in cache.items()}


# Llama 2: arXiv:2307.09288. Vicuna v1.5: Llama 2 fine-tuned, arXiv:2306.05685. Qwen2.5: arXiv:2412.15115.
# Mistral 7B v0.1: arXiv:2310.06825. SmolLM2: arXiv:2502.02737.
_LLAMA2_7B = DecoderConfig(vocab=32000, width=4096, layers=32, heads=32, kv_heads=32, head_dim=128, mlp=11008)
_LLAMA2_13B = DecoderConfig(vocab=32000, width=5120, layers=40, heads=40, kv_heads=40, head_dim=128, mlp=13824)
VARIANTS = {
    # LLaMA, arXiv:2302.13971, of which Vicuna up to v1.3 is made: the sizes of Llama 2 and another epsilon.
    "llama-7b": dataclasses.replace(_LLAMA2_7B, eps=1e-6),
    "llama-13b": dataclasses.replace(_LLAMA2_13B, eps=1e-6),
    "llama2-7b": _LLAMA2_7B,
    "llama2-13b": _LLAMA2_13B,
    "vicuna-7b": _LLAMA2_7B,
    "qwen2.5-0.5b": DecoderConfig(
        vocab=151936, width=896, layers=24, heads=14, kv_heads=2, head_dim=64, mlp=4864,
        eps=1e-6, theta=1e6, qkv_bias=True, tied=True,
    ),
    "qwen2.5-7b": DecoderConfig(
        vocab=152064, width=3584, layers=28, heads=28, kv_heads=4, head_dim=128, mlp=18944,
        eps=1e-6, theta=1e6, qkv_bias=True,
    ),
    "mistral-7b": DecoderConfig(vocab=32000, width=4096, layers=32, heads=32, kv_heads=8, head_dim=128, mlp=14336, window=4096),
    "smollm2-135m": DecoderConfig(
        vocab=49152, width=576, layers=30, heads=9, kv_heads=3, head_dim=64, mlp=1536, theta=1e5, tied=True,
    ),
    "tiny-64": DecoderConfig(vocab=64, width=64, layers=4, heads=4, kv_heads=4, head_dim=16, mlp=192, tied=True),
}  # fmt: skip
