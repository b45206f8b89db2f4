"""Examples with an image that cannot be read: counted over all processes, listed in the run's directory, a reason to stop when they are too many."""
import collections
from collections.abc import Sequence
from typing import Any

import jax
from etils import epath

from vlmjax import files, hosts
from vlmjax.data.pipeline import Fault
from vlmjax.errors import UserError
from vlmjax.train.metrics import say

SHOWN = 5  # so many are told one by one


class Quarantine:
    """Of one stage; the list is `quarantine/STAGE.json`, {example: reason}.

    A process knows what is broken in its own rows. `settle` brings the processes together, at the same step on each, so what follows from it
    (the list, the record, a checkpoint's part of it, whether to stop) is the same everywhere and does not depend on when it was called.
    """

    def __init__(self, workdir: epath.PathLike, stage: str):
        self.path = epath.Path(workdir) / "quarantine" / f"{stage}.json"
        self._stage = stage
        self._new: list[tuple[int, str, str, int]] = []  # (step, *Fault) of this process since `settle`
        self._reasons: dict[str, str] = {}  # by first appearance
        self._appearances = self._supervised = self._told = 0

    def add(self, step: int, faults: Sequence[Fault]) -> None:
        """What is broken in the rows that this process feeds to a step."""
        self._new += [(step, *fault) for fault in faults]

    def settle(self) -> None:
        """Counts what any process added; says and lists what is new."""
        found, self._new = sorted((fault for own in hosts.job().gather(self._new) for fault in own), key=lambda fault: fault[0]), []
        known = len(self._reasons)
        for _, example, reason, supervised in found:
            self._reasons.setdefault(example, reason)
            self._appearances += 1
            self._supervised += supervised
        if len(self._reasons) == known:
            return
        self.write()
        for example, reason in list(self._reasons.items())[known:SHOWN]:
            say(f"{self._stage}: broken: example {example}: {reason}; it keeps its place with weight 0")
        if len(self._reasons) > max(SHOWN, 2 * self._told):
            self._told = len(self._reasons)
            say(f"{self._stage}: {self._told} broken examples by step {found[-1][0] + 1}, listed in {self.path}")

    def check(self, tolerated: float, total: int) -> None:
        """Stops when more than the share `tolerated` of `total` examples was found broken."""
        if len(self._reasons) > tolerated * total:
            shown = "; ".join(f"example {example}: {reason}" for example, reason in list(self._reasons.items())[:3])
            raise UserError(f"stage {self._stage}: {len(self._reasons)} of {total} examples are broken, max_broken is {tolerated:g}: {shown}"
                            f"{f'; and {len(self._reasons) - 3} more' if len(self._reasons) > 3 else ''} (all in {self.path}); mend the files and "
                            f"start in another --workdir, or raise stages.{self._stage}.max_broken and run again to go on")

    def write(self) -> None:
        """The list; none where nothing is broken."""
        if jax.process_index() == 0 and (self._reasons or self.path.exists()):
            files.write_json(self.path, self._reasons)

    @property
    def supervised(self) -> int:
        """Supervised tokens that lost their weight."""
        return self._supervised

    def record(self) -> dict[str, Any]:
        """quarantined: examples, however often they came; quarantined_appearances: their places in rows, which `examples` counts too."""
        reasons = collections.Counter(self._reasons.values())
        return {"quarantined": len(self._reasons), "quarantined_reasons": dict(sorted(reasons.items())), "quarantined_appearances": self._appearances}

    def get_state(self) -> dict[str, Any]:
        """What a checkpoint holds of it, as JSON; everything is settled."""
        return {"reasons": dict(self._reasons), "appearances": self._appearances, "supervised": self._supervised}

    def set_state(self, state: dict[str, Any]) -> None:
        self._reasons = dict(state["reasons"])
        self._appearances, self._supervised = state["appearances"], state["supervised"]
        self._told = len(self._reasons)
