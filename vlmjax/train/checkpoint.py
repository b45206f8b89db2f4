"""A stage's checkpoints: what it learns, the state of its data iterator and its references, together, by Orbax."""
import contextlib
import itertools
import re
from collections.abc import Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from vlmjax import files, hosts, param_rules
from vlmjax.errors import Stopped, UserError
from vlmjax.train import proof, state
from vlmjax.train.metrics import say


class Checkpoints:
    """`stages/NAME/STEP/{params,rest,data,about}`. Saving is asynchronous; a step becomes visible only when it is complete.

    params: the trained leaves alone, so that a later stage reads nothing else. rest: optimizer state and counters. data: the
    iterator's state and what was found broken up to it. about: the config's fingerprint, a checksum of the data's lengths, for what the
    stage does not train a reference {component: {from, sha256}}, and of what is saved {params, rest: SHA-256 of its digests}.

    A checkpoint that does not hold what was saved, or that cannot be read where an earlier one can, is set aside as `damaged-STEP`, with a word, and the one before is
    taken. Where none can be read, nothing moves: a store that does not answer reads like a damaged file. keep: how many of the newest stay; keep_every: those of its
    multiples stay, too.
    """

    def __init__(self, workdir: epath.PathLike, stage: str, keep: int = 2, keep_every: int = 0):
        directory = epath.Path(workdir) / "stages" / stage
        self.directory = directory if files.in_store(directory) else directory.absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, keep_period=keep_every or None, create=True, enable_async_checkpointing=True)
        self._manager = ocp.CheckpointManager(self.directory, options=options)

    def latest(self) -> int | None:
        return self._manager.latest_step()

    def save(self, step: int, learned: state.Learned, data: dict[str, Any], about: dict[str, Any]) -> None:
        """Stopped where the one before could not be written to its end."""
        if step == self.latest():
            return
        params, rest = _named(learned)
        about = {**about, "saved_sha256": {"params": _sha256(params), "rest": _sha256(rest)}}
        items = dict(params=ocp.args.StandardSave(params), rest=ocp.args.StandardSave(rest), data=ocp.args.JsonSave(data), about=ocp.args.JsonSave(about))
        with self._writing():
            self._manager.save(step, args=ocp.args.Composite(**items))

    def restore(self, abstract: state.Learned) -> tuple[state.Learned, Any, dict[str, Any]] | None:
        """The newest step that is whole, placed as `abstract` says → (learned, data, about); None where there is none. Stopped where there are some and none can be read,
        and where one process of several could not read one: the others wait in vain, so the job ends, and when it begins again that step's turn comes last."""
        params, rest = _named(abstract)
        paths, failed, found = list(param_rules.flatten(abstract)), {}, None
        steps = sorted(self._manager.all_steps(), reverse=True)
        passed = {step for step in steps if self._unread(step).exists()}
        for step in steps:
            if step in passed:
                failed[step] = _Unreadable(f"{self.directory}/{step}: a process could not restore it")
                continue
            try:
                found = self._restore(step, params=ocp.args.StandardRestore(params), rest=ocp.args.StandardRestore(rest), data=ocp.args.JsonRestore())
                break
            except _Unreadable as error:
                if hosts.job().count > 1:
                    files.write(self._unread(step), str(error) + "\n")
                    raise Stopped(f"{error}; the same command goes on from the step before", 1) from None
                failed[step] = error
            except UserError as error:
                failed[step] = error
        unread = [error for error in failed.values() if isinstance(error, _Unreadable)]
        if found is None and unread:
            hosts.job().barrier()  # all have seen which steps were passed over
            if jax.process_index() == 0:
                for step in passed:
                    self._unread(step).unlink(missing_ok=True)
            raise Stopped(f"{unread[0]}; of the {len(failed)} checkpoints there none is left to go on from. Nothing was moved: the same command tries again, and where they are damaged begins the stage again once you "
                          f"have removed {self.directory}", 1)
        self._set_aside(failed)
        if found is None:
            return None
        leaves = {**found["params"], **found["rest"]}
        return jax.tree.unflatten(jax.tree.structure(abstract), [leaves[path.replace("/", ".")] for path in paths]), found["data"], found["about"]

    def restore_params(self, abstract: state.Learned) -> dict[str, jax.Array]:
        """{path in memory: leaf} of what the stage trained, at its end."""
        step = self.latest()
        if step is None:
            raise UserError(f"{self.directory}: holds no checkpoint")
        try:
            found = self._restore(step, params=ocp.args.StandardRestore(_named(abstract)[0]))["params"]
        except UserError as error:
            raise UserError(f"{error}; it is what the finished stage trained, so the stage has to be trained again: give another --workdir") from None
        return {path: found[("trainable/" + path).replace("/", ".")] for path in param_rules.flatten(abstract.trainable)}

    def _restore(self, step: int, **items: Any) -> Any:
        """These items and `about`, compared with what was saved."""
        try:
            found = self._manager.restore(step, args=ocp.args.Composite(**items, about=ocp.args.JsonRestore()))
            wrong = [name for name, sha in found["about"].get("saved_sha256", {}).items() if name in items and _sha256(found[name]) != sha]
        except Exception as error:  # whatever a damaged file makes of the readers of Orbax and TensorStore
            raise _Unreadable(f"{self.directory}/{step}: cannot be restored: {_short(error)}") from None
        if wrong:
            raise UserError(f"{self.directory}/{step}: {' and '.join(wrong)} are not what was saved")
        return found

    def _unread(self, step: int) -> epath.Path:
        """The mark of a step that one process of several could not read."""
        return epath.Path(self.directory) / f"unread-{step}"

    def _set_aside(self, failed: dict[int, UserError]) -> None:
        """One process moves the directories."""
        for step, error in failed.items():
            name = next(name for n in itertools.count(1) if not (self.directory / (name := f"damaged-{step}" + f"-{n}" * (n > 1))).exists())
            hosts.job().barrier()  # all have chosen the same name before it is taken
            if jax.process_index() == 0:
                epath.Path(self.directory / str(step)).rename(self.directory / name)
                self._unread(step).unlink(missing_ok=True)
            hosts.job().barrier()  # nobody looks for the newest step before it is away
            self._manager.reload()
            before = self.latest()
            say(f"{error}; set aside as {name}, {'going on from step ' + str(before) if before is not None else 'the stage begins again'}")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of a save that began before, too: it is written while steps are computed
            whole = epath.Path(self.directory)
            steps = [int(path.name) for path in whole.iterdir() if path.name.isdigit()] if whole.exists() else []
            raise Stopped(f"{self.directory}: a checkpoint cannot be written: {_short(error)}; {f'step {max(steps)} is the last one that is whole' if steps else 'none is whole'}, "
                          "and the same command goes on from there", 1) from None

    def close(self) -> None:
        """Waits until all is written."""
        with self._writing():
            self._manager.wait_until_finished()
            self._manager.close()


class _Unreadable(UserError):
    """A checkpoint that could not be read: damaged, or a store that does not answer."""


def _short(error: Exception) -> str:
    """What Orbax and TensorStore say, without where in their own code they say it: how it begins, and how it ends, where the cause stands."""
    text = re.split(r"See full TensorStore details|\[source locations|<bound method", " ".join(str(error).split()))[0].strip(" ;.:")
    return text if len(text) <= 300 else f"{text[:120]} … {text[-180:]}"


def _sha256(leaves: dict[str, Any]) -> str:
    return proof.sha256(proof.digests_of(leaves.items()))


def _named(learned: state.Learned) -> tuple[dict[str, Any], dict[str, Any]]:
    """(trained leaves, the rest), each {path with dots: leaf}: no holes, and no classes that a later version may not have."""
    flat = {path.replace("/", "."): leaf for path, leaf in param_rules.flatten(learned).items()}
    return ({p: v for p, v in flat.items() if p.startswith("trainable.")}, {p: v for p, v in flat.items() if not p.startswith("trainable.")})
