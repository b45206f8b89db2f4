"""A stage's checkpoints: what it learns, the state of its data iterator and its references, together, by Orbax."""
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from vlmjax import files, hosts, param_rules
from vlmjax.errors import UserError
from vlmjax.train import proof, state
from vlmjax.train.metrics import say


class Checkpoints:
    """`stages/NAME/STEP/{params,rest,data,about}`. Saving is asynchronous; a step becomes visible only when it is complete.

    params: the trained leaves alone, so that a later stage reads nothing else. rest: optimizer state and counters. data: the
    iterator's state and what was found broken up to it. about: the config's fingerprint, for what the stage does not train a
    reference {component: {from, sha256}}, and of what is saved {params, rest: SHA-256 of its digests}.

    A checkpoint that cannot be read, or that does not hold what was saved, is set aside as `damaged-STEP`, with a word, and the one before is
    taken. keep: how many of the newest stay; keep_every: those of its multiples stay, too.
    """

    def __init__(self, workdir: epath.PathLike, stage: str, keep: int = 2, keep_every: int = 0):
        directory = epath.Path(workdir) / "stages" / stage
        self.directory = directory if files.in_store(directory) else directory.absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, keep_period=keep_every or None, create=True, enable_async_checkpointing=True)
        self._manager = ocp.CheckpointManager(self.directory, options=options)

    def latest(self) -> int | None:
        return self._manager.latest_step()

    def save(self, step: int, learned: state.Learned, data: dict[str, Any], about: dict[str, Any]) -> None:
        if step == self.latest():
            return
        params, rest = _named(learned)
        about = {**about, "saved_sha256": {"params": _sha256(params), "rest": _sha256(rest)}}
        items = dict(params=ocp.args.StandardSave(params), rest=ocp.args.StandardSave(rest), data=ocp.args.JsonSave(data), about=ocp.args.JsonSave(about))
        self._manager.save(step, args=ocp.args.Composite(**items))

    def restore(self, abstract: state.Learned) -> tuple[state.Learned, Any, dict[str, Any]] | None:
        """The newest step that is whole, placed as `abstract` says → (learned, data, about); None where there is none."""
        params, rest = _named(abstract)
        paths = list(param_rules.flatten(abstract))
        while (step := self.latest()) is not None:
            try:
                found = self._restore(step, params=ocp.args.StandardRestore(params), rest=ocp.args.StandardRestore(rest), data=ocp.args.JsonRestore())
            except UserError as error:
                self._set_aside(step, error)
                continue
            leaves = {**found["params"], **found["rest"]}
            return jax.tree.unflatten(jax.tree.structure(abstract), [leaves[path.replace("/", ".")] for path in paths]), found["data"], found["about"]

    def restore_params(self, abstract: state.Learned) -> dict[str, jax.Array]:
        """{path in memory: leaf} of what the stage trained, at its end."""
        step = self.latest()
        if step is None:
            raise UserError(f"{self.directory}: holds no checkpoint")
        found = self._restore(step, params=ocp.args.StandardRestore(_named(abstract)[0]))["params"]
        return {path: found[("trainable/" + path).replace("/", ".")] for path in param_rules.flatten(abstract.trainable)}

    def _restore(self, step: int, **items: Any) -> Any:
        """These items and `about`, compared with what was saved."""
        try:
            found = self._manager.restore(step, args=ocp.args.Composite(**items, about=ocp.args.JsonRestore()))
            wrong = [name for name, sha in found["about"].get("saved_sha256", {}).items() if name in items and _sha256(found[name]) != sha]
        except Exception as error:  # whatever a damaged file makes of the readers of Orbax and TensorStore
            raise UserError(f"{self.directory}/{step}: cannot be restored: {' '.join(str(error).split())[:300]}") from None
        if wrong:
            raise UserError(f"{self.directory}/{step}: {' and '.join(wrong)} are not what was saved")
        return found

    def _set_aside(self, step: int, error: UserError) -> None:
        """One process moves the directory. Where only this one could not read it, the others wait in vain: the job ends and begins again."""
        if jax.process_count() > 1 and "cannot be restored" in str(error):
            raise UserError(f"{error}; remove it, and the same command goes on from the step before")
        if jax.process_index() == 0:
            epath.Path(self.directory / str(step)).rename(self.directory / f"damaged-{step}")
        hosts.job().barrier()  # nobody looks for the newest step before it is away
        self._manager.reload()
        before = self.latest()
        say(f"{error}; set aside as damaged-{step}, {'going on from step ' + str(before) if before is not None else 'the stage begins again'}")

    def close(self) -> None:
        """Waits until all is written."""
        self._manager.wait_until_finished()
        self._manager.close()


def _sha256(leaves: dict[str, Any]) -> str:
    return proof.sha256(proof.digests_of(leaves.items()))


def _named(learned: state.Learned) -> tuple[dict[str, Any], dict[str, Any]]:
    """(trained leaves, the rest), each {path with dots: leaf}: no holes, and no classes that a later version may not have."""
    flat = {path.replace("/", "."): leaf for path, leaf in param_rules.flatten(learned).items()}
    return ({p: v for p, v in flat.items() if p.startswith("trainable.")}, {p: v for p, v in flat.items() if not p.startswith("trainable.")})
