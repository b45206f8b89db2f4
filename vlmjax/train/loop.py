"""Runs one stage: proofs before, steps, proofs after. Stops, and says why, when the stage is not what its config says."""
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from vlmjax import optim, param_rules, sharding, stacks
from vlmjax.data import batch as batches
from vlmjax.data.pipeline import Fault
from vlmjax.errors import Stopped, UserError, at_least
from vlmjax.hosts import TERMINATED
from vlmjax.train import attention_proof, build, metrics, once, proof, speed, state, step
from vlmjax.train.checkpoint import Checkpoints
from vlmjax.train.quarantine import Quarantine
from vlmjax.train.trace import Trace

REACH_STEPS = 50  # by then every trainable leaf must have had a gradient


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """every: steps between checkpoints (the last step is always saved). keep: how many of the newest stay. keep_every: those of multiples of so many
    steps stay, too (0: none). grace: seconds that a run asked to stop (SIGTERM) may take to its next step; then it ends with what has been saved."""

    every: int = 100
    keep: int = 2
    keep_every: int = 0
    grace: float = 20.0

    def __post_init__(self):
        at_least("checkpoint", self, every=1, keep=1, keep_every=0)
        if not 0 < self.grace < math.inf:
            raise UserError(f"checkpoint.grace: {self.grace} is not a number of seconds above 0")


class Data(Protocol):
    """What a stage reads: batches by step, and what is in them. total: examples in its sources. faults: of the rows this process has made for
    a step."""

    total: int

    def iterator(self, start: int, stop: int, prefetch: int, rows: slice | None) -> Iterator[dict[str, np.ndarray]]: ...
    def ids(self, step: int) -> list[list[str]]: ...
    def digest(self, step: int) -> int: ...
    def examples(self, step: int) -> int: ...
    def supervised(self, step: int) -> int: ...
    def faults(self, step: int) -> list[Fault]: ...


@dataclasses.dataclass
class Outcome:
    """What record.json says of a stage, and the state it ended with."""

    record: dict[str, Any]
    state: state.TrainState


def start_state(stage: build.Stage, by_layer: dict[str, Any]) -> state.TrainState:
    """The state before the first step, from the truth {path by layer: leaf}, cast and cut as the stage stores it."""
    abstract = stage.abstract.learned
    like = param_rules.flatten(optim.merge(abstract.trainable, stage.abstract.frozen))
    params = stacks.place(by_layer, like, {path: leaf.sharding for path, leaf in like.items()})
    trainable, frozen = optim.split(param_rules.unflatten(params), stage.labels)

    def begin(trainable):
        return jnp.int32(0), stage.optimizer.init(trainable), {p: jnp.zeros(leaf.shape, bool) for p, leaf in abstract.reached.items()}, jnp.int32(0)

    places = jax.tree.map(lambda leaf: leaf.sharding, (abstract.step, abstract.opt_state, abstract.reached, abstract.skipped))
    number, opt_state, reached, skipped = once.run(begin, trainable, out_shardings=places)
    return state.TrainState(state.Learned(number, trainable, opt_state, reached, skipped), frozen)


def source_digests(stage: build.Stage, by_layer: dict[str, Any]) -> dict[str, str]:
    """Digests of the truth of what this stage freezes, after the same cast but before it is stacked. One leaf after the other: a
    second copy of the model is never held."""
    types = {p: leaf.dtype for path, leaf in param_rules.flatten(stage.abstract.frozen).items() for p in stacks.layer_paths(path)}

    def leaves():
        for path, dtype in types.items():
            like = {path: jax.ShapeDtypeStruct(by_layer[path].shape, dtype)}
            yield path, by_layer[path].astype(dtype) if isinstance(by_layer[path], jax.Array) else stacks.place(by_layer, like, sharding.parameters(like, stage.mesh))[path]

    return proof.digests_of(leaves())


def prove_before(stage: build.Stage) -> dict[str, Any]:
    """The proofs that need only the program. → flops_per_step and optimizer_bytes for the record."""
    learned, frozen, batch = stage.abstract.learned, stage.abstract.frozen, stage.abstract_batch()
    micro = {k: jax.ShapeDtypeStruct((v.shape[0] // stage.config.accumulate, *v.shape[1:]), v.dtype) for k, v in batch.items()}
    accumulate = stage.config.accumulate
    with build.context(stage.mesh):
        sizes = proof.check_optimizer(stage.name, learned.opt_state, frozen, stage.components)
        one, (_, grads) = jax.make_jaxpr(step.gradients(stage.loss, 1), return_shape=True)(learned.trainable, frozen, micro)
        proof.check_reachable(stage.name, one, grads)
        whole = one if accumulate == 1 else jax.make_jaxpr(step.gradients(stage.loss, accumulate))(learned.trainable, frozen, batch)
        flops = proof.check_flops(stage.name, stage.traced.jaxpr, whole)
    return {"flops_per_step": flops, "optimizer_bytes": sizes}


def run(stage: build.Stage, truth: dict[str, Any], data: Data, checkpoints: Checkpoints, writer: metrics.Writer, quarantine: Quarantine,
        about: dict[str, Any], logging: metrics.LoggingConfig, cadence: CheckpointConfig, prefetch: int, compiled: Callable | None = None,
        stops: Callable[[], str] = lambda: "") -> Outcome:
    """Trains to `stage.steps`, from the newest checkpoint that is whole. `compiled`: a step already compiled (tests pass wrong ones). stops: asked after
    every step for a reason to stop there; the step is then saved, and Stopped raised."""
    began = time.monotonic()
    program = prove_before(stage) | attention_proof.check(stage)
    train = start_state(stage, truth)
    before = proof.digests(train.frozen)
    proof.check_unchanged(stage.name, source_digests(stage, truth), before, "between their source and the first step")
    del truth
    about = {**about, "frozen_sha256": proof.sha256(before)}
    iterator = data.iterator(0, stage.steps, prefetch, sharding.own_rows(stage.mesh, stage.shape.rows)[0])
    if (found := checkpoints.restore(stage.abstract.learned)) is not None:
        learned, position, saved = found
        if any(saved.get(key) != about.get(key) for key in ("frozen_sha256", "encoder_sha256")):
            raise proof.ProofError(f"stage {stage.name}: the frozen parameters are not those its checkpoint in {checkpoints.directory} was trained with")
        if saved.get("lengths") not in (None, about.get("lengths")):
            raise UserError(f"stage {stage.name}: its data has other lengths than when {checkpoints.directory} was saved, as when a file changed or, where images are cut into tiles, cannot be read any "
                            "more, so its rows would be others; put the files back, or start in another --workdir")
        train = state.TrainState(learned, train.frozen)
        iterator.set_state(position["iterator"])
        quarantine.set_state(position["quarantined"])
    with speed.Meter(stage) as meter, Trace(writer.workdir / "trace" / stage.name, logging, int(train.learned.step), stage.steps) as trace:
        train = _steps(stage, train, iterator, data, compiled, checkpoints, writer, quarantine, about, logging, cadence, meter, trace, stops)
    proof.check_reached(stage.name, train.learned.reached, stage.steps)
    after = proof.digests(train.frozen)
    proof.check_unchanged(stage.name, before, after, "during training")
    writer.close()  # before the checkpoint after which no step is repeated
    checkpoints.save(stage.steps, train.learned, _position(iterator.get_state(), quarantine), about)
    checkpoints.close()
    quarantine.write()
    return Outcome({**_totals(stage, data, quarantine), **program, **_sizes(train),
                    "frozen_sha256": {"before": proof.sha256(before), "after": proof.sha256(after)} if before else None,
                    "skipped_nonfinite": int(train.learned.skipped), "recompiles": meter.recompiles, "seconds": round(time.monotonic() - began, 1)}, train)


def _steps(stage, train, iterator, data, compiled, checkpoints, writer, quarantine, about, logging, cadence, meter, trace, stops) -> state.TrainState:
    place, (own, first_to_feed) = sharding.batch(stage.mesh), sharding.own_rows(stage.mesh, stage.shape.rows)
    local = dataclasses.replace(stage.shape, rows=own.stop - own.start)
    pending: list[tuple[int, dict[str, jax.Array]]] = []  # metrics of steps, still on the devices

    def draw(number: int) -> dict[str, jax.Array]:
        """The batch of a step on the devices. One that the step was not compiled for saves the state before it."""
        before, rows = iterator.get_state(), meter.draw(iterator)
        try:
            batches.check(rows, stage.config.objective, local, _vocabulary(stage), stage.by_segments)
        except UserError:
            if jax.process_count() > 1:  # the others may be in the step: nothing here waits for them, and what was saved last stays
                raise
            quarantine.settle()
            if pending:
                _drain(stage, pending, data, train, writer, progress, number, meter)
            writer.close()
            checkpoints.save(number, train.learned, _position(before, quarantine), about)
            checkpoints.close()
            raise
        quarantine.add(number, data.faults(number) if first_to_feed else [])
        return {key: jax.make_array_from_process_local_data(place, value, (stage.shape.rows, *value.shape[1:])) for key, value in rows.items()}

    def tolerable() -> None:
        quarantine.settle()
        quarantine.check(stage.config.max_broken, data.total)

    first = int(train.learned.step)
    ready = draw(first) if first < stage.steps else None  # what is wrong with the first batch is said before minutes of compiling
    tolerable()
    compiled = compiled or stage.compile()
    metrics.say(f"{stage.name}: {meter.about}" + (f"; attention: {stage.attention}" if stage.attention else ""))
    progress = metrics.Progress(stage.name, first, stage.steps, logging)
    meter.start()
    for number in range(first, stage.steps):
        trace.before(number, train.learned.step)
        batch, ready = draw(number) if ready is None else ready, None
        train, values = meter.step(advance, compiled, train, batch)
        pending.append((number, values))
        done, reason = number + 1, stops()
        save = bool(reason) or done % cadence.every == 0 or done == stage.steps
        if save or done % logging.every == 0 or done == REACH_STEPS:
            _drain(stage, pending, data, train, writer, progress, done, meter)
            pending = []
            try:
                tolerable()
            except UserError:
                writer.close()
                checkpoints.save(done, train.learned, _position(iterator.get_state(), quarantine), about)
                checkpoints.close()
                raise
        if done == REACH_STEPS:
            proof.check_reached(stage.name, train.learned.reached, done)
        if save and (reason or done < stage.steps):
            writer.flush()
            checkpoints.save(done, train.learned, _position(iterator.get_state(), quarantine), about)
            meter.start()
        if reason:
            writer.close()
            checkpoints.close()
            raise Stopped(f"{stage.name}: {reason}; step {done} of {stage.steps} is saved, and the same command goes on from there", TERMINATED)
    progress.close()
    return train


def advance(compiled: Callable, train: state.TrainState, batch: dict[str, jax.Array]) -> tuple[state.TrainState, dict[str, jax.Array]]:
    """One step. A step returns (learned, metrics); one that also returns frozen parameters is believed, and found out by the hash."""
    learned, values, *frozen = compiled(train.learned, train.frozen, batch)
    return state.TrainState(learned, frozen[0] if frozen else train.frozen), values


def _drain(stage, pending, data, train, writer, progress, done, meter) -> None:
    """Reads the metrics of the last steps from the devices; stops the stage at a loss or gradient that is not finite."""
    values = jax.device_get([v for _, v in pending])
    fast = meter.read(len(pending), sum(data.examples(number) for number, _ in pending))
    progress.update(done, float(values[-1]["loss"]), fast)
    for (number, _), row in zip(pending, values):
        writer.add(number, {k: float(v) for k, v in row.items() if k != "finite"} | {"batch": data.digest(number), **fast})
    bad = [number for (number, _), row in zip(pending, values) if not row["finite"]]
    if bad and int(train.learned.skipped) > stage.config.skip_nonfinite:
        writer.close()
        ids = [i for row in data.ids(bad[0]) for i in row]
        raise UserError(f"stage {stage.name}: loss or gradient is not finite at step {bad[0]}; its examples are {', '.join(ids[:8])}"
                        f"{f' and {len(ids) - 8} more' if len(ids) > 8 else ''} (skip_nonfinite={stage.config.skip_nonfinite} are tolerated)")


def _vocabulary(stage: build.Stage) -> int:
    return stage.model.text_tower.config.vocab if stage.config.objective == "contrastive" else stage.model.decoder.config.vocabulary


def _position(iterator: Any, quarantine: Quarantine) -> dict[str, Any]:
    """Where a stage is in its data, and what it has found broken up to there."""
    return {"iterator": iterator, "quarantined": quarantine.get_state()}


def _totals(stage: build.Stage, data: Data, quarantine: Quarantine) -> dict[str, Any]:
    examples = sum(data.examples(s) for s in range(stage.steps))
    return {"name": stage.name, "objective": stage.config.objective, "steps": stage.steps, "examples": examples, "examples_per_step": round(examples / stage.steps, 2),
            "supervised_tokens": sum(data.supervised(s) for s in range(stage.steps)) - quarantine.supervised, **quarantine.record()}


def _sizes(train: state.TrainState) -> dict[str, dict[str, int]]:
    count = lambda tree: {name: n for name, part in tree.items() if (n := sum(leaf.size for leaf in jax.tree.leaves(part)))}
    return {"trainable": count(train.learned.trainable), "frozen": count(train.frozen)}
