"""Writes scan_v5e-4.txt, which hlo_test.py reads: a loop over four layers on four chips, compiled with libtpu; tables of files and cost notes taken out.

    python -m tests.plan.make_hlo
"""
from vlmjax.plan import environment

environment.prepare()

import pathlib
import re

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from vlmjax.plan import topologies
from vlmjax.sharding import MeshConfig, make_mesh

LAYERS, ROWS, WIDTH = 4, 512, 1024
FILE = pathlib.Path(__file__).parent / "scan_v5e-4.txt"


def compiled() -> str:
    mesh = make_mesh(MeshConfig(), topologies.find("v5e-4").devices())
    rows, split, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("fsdp",), (None, "fsdp"), ()))

    def program(x, weights):
        def layer(x, w):
            return jax.lax.with_sharding_constraint(jnp.tanh(x @ jax.lax.with_sharding_constraint(w, whole)), rows), None

        out, _ = jax.lax.scan(layer, x, weights)
        return out, jnp.sum(out.astype(jnp.float32))

    x = jax.ShapeDtypeStruct((ROWS, WIDTH), jnp.bfloat16, sharding=rows)
    weights = jax.ShapeDtypeStruct((LAYERS, WIDTH, WIDTH), jnp.bfloat16, sharding=split)
    return jax.jit(program, out_shardings=(rows, whole)).lower(x, weights).compile().as_text()


def short(text: str) -> str:
    kept = [line for line in text.splitlines() if re.match(r"(HloModule|ENTRY|%|\s+(ROOT )?%|\})", line)]
    return "\n".join(re.sub(r", (metadata|backend_config|frontend_attributes)=\{.*", "", line) for line in kept) + "\n"


if __name__ == "__main__":
    FILE.write_text(short(compiled()))
