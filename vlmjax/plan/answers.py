"""Compiles what answers questions for the chips of a slice, and reads what it needs: a prefill of whole rows, then one token of all answers at a time.

Both are of the program that `vlmjax evaluate` runs (decode.py), at every question's full number of tokens. Nothing is allocated.
"""
import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlmjax import decode, inference, kernels, param_rules, sharding
from vlmjax.data import batch as batches
from vlmjax.errors import UserError
from vlmjax.plan import cost, hlo
from vlmjax.plan.topologies import Topology
from vlmjax.train import build, flops

STOPS = (0,)  # an end token; which one changes nothing


@dataclasses.dataclass(frozen=True)
class Questions:
    """What is answered at once, on all devices: rows of `length` tokens, each with so many images (tiles and thumbnails, where images are cut) and questions; new: tokens of an answer at most."""

    rows: int
    length: int
    new: int = 64
    images: int = 1
    questions: int = 1

    def check(self, where: str) -> None:
        for name, value in vars(self).items():
            if value < (name != "images"):
                raise UserError(f"{where}: {name} is {value}")


def plan(asked: Questions, available: Mapping[str, nn.Module], dtype: str, mesh: sharding.MeshConfig, topology: Topology, where: str) -> dict[str, Any]:
    """What answering costs on a slice. Bytes are of one device, FLOPs of all of them, times in seconds.

    `prefill`: encoder, prompts and first tokens; `token`: each further one of all answers; both with `flops`, `collectives`, `schedule` and a `roofline` (see cost.py). fits: whether
    the compiler found room for all of it; `peak`, or else `needs`. rows: of the batch, padded to divide over the mesh.
    """
    if "decoder" not in available:
        raise UserError(f"{where}: the config has no model.decoder, so nothing answers")
    made = sharding.make_mesh(mesh, topology.devices())
    rows = -(-asked.rows // sharding.row_shards(made)) * sharding.row_shards(made)
    parts = build.needed(dict(cost.without_remat(available)), "next_token", asked.images, where)
    room = asked.images * image_tokens(parts)
    if room >= asked.length:
        raise UserError(f"{where}: length {asked.length} has no room for {asked.images} images of {image_tokens(parts)} tokens and a question")
    whole = {name: inference.cut(module.clone(segments=(module.config.layers,)) if hasattr(module, "segments") else module, made.devices.flat[0].platform) for name, module in parts.items()}
    vlm, params = inference.vlm_of(whole), inference.typed(whole, jnp.dtype(dtype))
    places = sharding.parameters(params, made)
    params = {path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=places[path]) for path, leaf in params.items()}
    shape = batches.BatchShape(rows, asked.length, asked.images, asked.questions, parts["encoder"].config.size if asked.images else 0)
    batch = {key: jax.ShapeDtypeStruct(dims, kind, sharding=sharding.batch(made)) for key, (dims, kind) in batches.spec("next_token", shape).items() if key != "targets"}
    out = {**vars(asked), "padded": rows, "dtype": dtype, "mesh": dict(made.shape), "usable": topology.chip.usable, "parameters": sum(map(sharding.held, params.values()))}

    def traced(new: int) -> jax.stages.Traced:
        with build.context(made), jax.default_matmul_precision("highest"):
            generate = jax.jit(decode.make_generate(vlm, new, STOPS), out_shardings=sharding.replicated(made))
            return generate.trace(param_rules.unflatten(params), batch)

    began, programs = time.monotonic(), [traced(new) for new in ((1, asked.new) if asked.new > 1 else (1,))]
    work, passes = ([flops.of_jaxpr(program.jaxpr.jaxpr, each) for program in programs] for each in (False, True))  # a loop of unknown length counts once: one token
    try:
        with build.context(made), jax.default_matmul_precision("highest"), _names_in_key():
            compiled = programs[-1].lower().compile(kernels.compiler_options(made.devices.flat[0].platform, whole.values()))
    except jax.errors.JaxRuntimeError as error:
        if not cost.is_refusal(error):
            raise
        return {**out, "fits": False, **cost.refusal(str(error)), "compile_seconds": round(time.monotonic() - began, 1)}
    out |= {"fits": True, "peak": compiled.memory_analysis().peak_memory_in_bytes, "compile_seconds": round(time.monotonic() - began, 1)}
    whole_program = hlo.Program(compiled.as_text())
    prefill, token = Read.of(whole_program, topology), None
    if asked.new > 1:
        turn, turns = whole_program.loop(decode.TOKENS)
        token = Read.of(turn, topology)
        prefill = prefill.without(token, turns)
    out["prefill"] = part(work[0], passes[0], prefill, topology)
    if token:
        out["token"] = part(work[1] - work[0], passes[1] - passes[0], token, topology)
    seconds = out["prefill"]["roofline"]["step"] + (asked.new - 1) * out.get("token", out["prefill"])["roofline"]["step"]
    return {**out, "seconds": seconds, "answers_per_second": asked.rows * asked.questions / seconds}


@contextlib.contextmanager
def _names_in_key() -> Iterator[None]:
    """JAX's cache of compiled programs gives a program back whatever its scopes were named when it was compiled; here the loop over tokens is found by its scope."""
    name = "jax_compilation_cache_include_metadata_in_key"
    before = getattr(jax.config, name)
    jax.config.update(name, True)
    try:
        yield
    finally:
        jax.config.update(name, before)


def image_tokens(parts: Mapping[str, nn.Module]) -> int:
    """Of one image, as the language model reads it; 0 for a model that sees nothing."""
    return parts["projector"].config.tokens(parts["projector"].config.reads(parts["encoder"].config)) if "projector" in parts else 0


class Read(NamedTuple):
    """What a program says of itself (plan/hlo.py); collectives by kind, within a slice and, `dcn`, between slices."""

    collectives: dict[str, dict[str, int]]
    dcn: dict[str, dict[str, int]]
    traffic: int
    cycles: int  # none is left out: splash takes no cache

    @classmethod
    def of(cls, program: hlo.Program, topology: Topology) -> "Read":
        return cls(program.collectives(), program.between_slices(topology.slices), program.traffic(), program.cycles()[0])

    def without(self, turn: "Read", turns: int) -> "Read":
        """What is left when so many turns of a loop in it are taken away."""
        def rest(all_, one):
            left = {kind: {what: max(0, size - turns * (one[kind][what] if kind in one else 0)) for what, size in entry.items()} for kind, entry in all_.items()}
            return {kind: entry for kind, entry in left.items() if entry["count"]}

        return Read(rest(self.collectives, turn.collectives), rest(self.dcn, turn.dcn), self.traffic - turns * turn.traffic, self.cycles - turns * turn.cycles)


def part(work: int, passes: int, read: Read, topology: Topology) -> dict[str, Any]:
    return {"flops": work, "collectives": read.collectives, "dcn": read.dcn, "traffic": read.traffic, "schedule": cost.schedule(read.cycles, 0, topology), "roofline": cost.bounds(passes, read.traffic, read.collectives, read.dcn, topology)}
