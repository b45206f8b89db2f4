"""A stage's checkpoints: what it learns, the state of its data iterator and its references, together, by Orbax."""
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from vlmjax import param_rules
from vlmjax.errors import UserError
from vlmjax.train import state


class Checkpoints:
    """`stages/NAME/STEP/{params,rest,data,about}`. Saving is asynchronous; a step becomes visible only when it is complete.

    params: the trained leaves alone, so that a later stage reads nothing else. rest: optimizer state and counters. data: the
    iterator's state and what was found broken up to it. about: the config's fingerprint and, for what the stage does not train, a
    reference {component: {from, sha256}}.
    """

    def __init__(self, workdir: epath.PathLike, stage: str, keep: int = 2):
        directory = epath.Path(workdir) / "stages" / stage
        self.directory = directory if "://" in str(directory) else directory.absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, enable_async_checkpointing=True)
        self._manager = ocp.CheckpointManager(self.directory, options=options)

    def latest(self) -> int | None:
        return self._manager.latest_step()

    def save(self, step: int, learned: state.Learned, data: dict[str, Any], about: dict[str, Any]) -> None:
        if step == self.latest():
            return
        params, rest = _named(learned)
        items = dict(params=ocp.args.StandardSave(params), rest=ocp.args.StandardSave(rest), data=ocp.args.JsonSave(data), about=ocp.args.JsonSave(about))
        self._manager.save(step, args=ocp.args.Composite(**items))

    def restore(self, abstract: state.Learned) -> tuple[state.Learned, Any, dict[str, Any]]:
        """The newest step, placed as `abstract` says → (learned, data, about)."""
        params, rest = _named(abstract)
        found = self._restore(params=ocp.args.StandardRestore(params), rest=ocp.args.StandardRestore(rest), data=ocp.args.JsonRestore(), about=ocp.args.JsonRestore())
        leaves = {**found["params"], **found["rest"]}
        paths = list(param_rules.flatten(abstract))
        return jax.tree.unflatten(jax.tree.structure(abstract), [leaves[path.replace("/", ".")] for path in paths]), found["data"], found["about"]

    def restore_params(self, abstract: state.Learned) -> dict[str, jax.Array]:
        """{path in memory: leaf} of what the stage trained."""
        found = self._restore(params=ocp.args.StandardRestore(_named(abstract)[0]))["params"]
        return {path: found[("trainable/" + path).replace("/", ".")] for path in param_rules.flatten(abstract.trainable)}

    def _restore(self, **items: Any) -> Any:
        step = self.latest()
        if step is None:
            raise UserError(f"{self.directory}: holds no checkpoint")
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**items))
        except (ValueError, FileNotFoundError, KeyError) as error:
            raise UserError(f"{self.directory}/{step}: cannot be restored: {' '.join(str(error).split())[:300]}") from None

    def close(self) -> None:
        """Waits until all is written."""
        self._manager.wait_until_finished()
        self._manager.close()


def _named(learned: state.Learned) -> tuple[dict[str, Any], dict[str, Any]]:
    """(trained leaves, the rest), each {path with dots: leaf}: no holes, and no classes that a later version may not have."""
    flat = {path.replace("/", "."): leaf for path, leaf in param_rules.flatten(learned).items()}
    return ({p: v for p, v in flat.items() if p.startswith("trainable.")}, {p: v for p, v in flat.items() if not p.startswith("trainable.")})
