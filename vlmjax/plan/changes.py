"""What to change where a stage does not fit: settings that keep the global batch, each compiled before it is named."""
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn

from vlmjax.errors import UserError
from vlmjax.plan import cost
from vlmjax.plan.topologies import Topology, larger
from vlmjax.sharding import MeshConfig
from vlmjax.train import build


@dataclasses.dataclass(frozen=True)
class Change:
    """flags: as `vlmjax train` takes them."""

    flags: tuple[str, ...]
    config: build.StageConfig
    mesh: MeshConfig
    remat: str | None = None

    def modules(self, available: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
        return {name: part.clone(remat=self.remat) if self.remat and hasattr(part, "remat") else part for name, part in available.items()}


def candidates(name: str, config: build.StageConfig, available: Mapping[str, nn.Module], mesh: MeshConfig) -> Iterator[Change]:
    """From the cheapest: recompute, then smaller micro-batches, then parameters in more parts, then heads and vocabulary split. `mesh` has no −1."""
    remat = "full" if any(getattr(part, "remat", "full") != "full" for part in available.values()) else None
    remat_flag = ("--config.compile.remat=full",) if remat else ()
    if remat:
        yield Change(remat_flag, config, mesh, remat)
    meshes = [(mesh, ())]
    if mesh.replica > 1:
        meshes.append((MeshConfig(1, mesh.fsdp * mesh.replica, mesh.tensor), ("--config.mesh.replica=1", "--config.mesh.fsdp=-1")))
    meshes += [(MeshConfig(mesh.replica, mesh.fsdp // factor, mesh.tensor * factor), (f"--config.mesh.tensor={mesh.tensor * factor}", f"--config.mesh.fsdp={mesh.fsdp // factor}"))
               for factor in (2, 4) if mesh.fsdp % factor == 0]
    for sizes, flags in meshes:
        for times in (1, 2, 4, 8):
            accumulate = config.accumulate * times
            if (times == 1 and not flags) or config.batch % (sizes.replica * sizes.fsdp * accumulate) or times > 1 and config.objective == "contrastive":
                continue
            more = (f"--config.stages.{name}.accumulate={accumulate}",) if times > 1 else ()
            yield Change(remat_flag + flags + more, dataclasses.replace(config, accumulate=accumulate), sizes, remat)


def first_that_fits(name: str, config: build.StageConfig, available: Mapping[str, nn.Module], precision: build.Precision, mesh: MeshConfig, topology: Topology,
                    steps: int, say=print) -> dict[str, Any] | None:
    """→ {"flags": …, "cost": …} of the first change that was compiled and fits."""
    for change in candidates(name, config, available, mesh):
        say(f"{name} on {topology.name}: compiling with {' '.join(change.flags)}")
        try:
            found = cost.stage(name, change.config, change.modules(available), precision, change.mesh, topology, steps)
        except UserError as error:  # heads or other sizes that do not divide over this mesh
            say(f"{name}: {error}")
            continue
        if found["fits"]:
            return {"flags": list(change.flags), "cost": found}
    return None


def smallest_slice(name: str, config: build.StageConfig, available: Mapping[str, nn.Module], precision: build.Precision, mesh: MeshConfig, topology: Topology, steps: int,
                   say=print) -> dict[str, Any] | None:
    """→ {"topology": …, "cost": …} of the smallest slice of the same chips that holds the stage as it is configured. mesh: the config's, with −1."""
    for slice_ in larger(topology):
        try:
            sizes, _ = cost.choose_mesh(mesh, slice_.chips, {name: config})
        except UserError:
            continue
        say(f"{name}: compiling for {slice_.name}")
        found = cost.stage(name, config, available, precision, sizes, slice_, steps)
        if found["fits"]:
            return {"topology": slice_.name, "cost": found}
    return None
