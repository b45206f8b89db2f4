"""FLOPs of a traced program: matrix products and convolutions, scans included.

XLA's own cost analysis counts the body of a scan once, so it cannot tell a frozen component from a trained one.
"""
import math
from typing import Any

import jax
from jax.extend import core


def count(function, *args: Any) -> int:
    """Multiply-adds times two of `function(*args)`; arguments may be abstract. A `while` of unknown length counts once."""
    return of_jaxpr(jax.make_jaxpr(function)(*args).jaxpr)


# Of a TPU, whose products are of bfloat16, for one whose sides are both float32 and for one that has one: so many as the compiler of libtpu 0.0.42.1 counts cycles for.
PASSES = {jax.lax.Precision.HIGHEST: (6, 3), jax.lax.Precision.HIGH: (3, 2)}


# cuDNN's attention, which has no program inside: its products of queries, keys and a head's width; backwards the logits are made again.
ATTENTION = {"dot_product_attention_fwd_wrapper": 2, "dot_product_attention_bwd_wrapper": 5}


def of_jaxpr(jaxpr: core.Jaxpr, passes: bool = False) -> int:
    """passes: those that a TPU makes: a product that reads float32 counts as often as its precision takes passes in bfloat16."""
    total = 0
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        if name == "dot_general":
            (contract, _), _ = eqn.params["dimension_numbers"]
            lhs = eqn.invars[0].aval.shape
            total += 2 * math.prod(eqn.outvars[0].aval.shape) * math.prod(lhs[d] for d in contract) * (_passes(eqn) if passes else 1)
        elif name == "conv_general_dilated":
            out, kernel = eqn.outvars[0].aval.shape, eqn.invars[1].aval.shape
            features = kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
            total += 2 * math.prod(out) * math.prod(kernel) // features * (_passes(eqn) if passes else 1)
        elif name in ATTENTION:
            q, k = (eqn.invars[i].aval.shape for i in range(2))  # [B, T, N, H], [B, S, K, H]
            total += ATTENTION[name] * 2 * math.prod(q) * k[1]
        elif name == "cond":
            total += max(of_jaxpr(branch.jaxpr, passes) for branch in eqn.params["branches"])
        else:
            times = _times(name, eqn.params)
            total += times * sum(of_jaxpr(inner, passes) for inner in _inner(eqn.params))
    return total


def _passes(eqn: core.JaxprEqn) -> int:
    wide, precision = sum(var.aval.dtype.itemsize >= 4 for var in eqn.invars), eqn.params["precision"]
    if not wide:
        return 1
    return max(PASSES.get(side, (1, 1))[wide == 1] for side in (precision if isinstance(precision, tuple) else (precision,)))


def _times(name: str, params: dict[str, Any]) -> int:
    """How often the programs inside an equation run."""
    if name == "scan":
        return params["length"]
    if name == "shard_map":  # its program is of one device
        return math.prod(params["mesh"].shape[axis] for axis in params["newly_manual_axes"])
    if name == "pallas_call":  # a kernel runs for each point of its grid; blocks that it skips because of a mask count
        return math.prod(params["grid_mapping"].grid)
    return 1


def _inner(params: dict[str, Any]):
    for value in params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            item = getattr(item, "jaxpr", item)
            if hasattr(item, "eqns"):
                yield item
