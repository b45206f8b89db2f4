"""record.json: what a run was, and what each of its stages did."""
import importlib.metadata
import subprocess
from typing import Any

import jax
from etils import epath

import vlmjax
from vlmjax import files

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "grain", "ml_collections", "chex", "numpy")


def start(fingerprint: str, mesh: jax.sharding.Mesh) -> dict[str, Any]:
    """The part of the record that is known before the first step."""
    versions = {"vlmjax": vlmjax.__version__, **{name: importlib.metadata.version(name) for name in PACKAGES}}
    devices = {"kind": jax.devices()[0].device_kind, "count": jax.device_count(), "processes": jax.process_count()}
    return {"versions": versions, "devices": devices, "mesh": dict(mesh.shape), "fingerprint": fingerprint, "git_commit": git_commit(), "stages": []}


def git_commit() -> str | None:
    """The commit of the code that runs, with `+` when files differ from it; None outside a checkout."""
    def git(*args):
        return subprocess.run(["git", *args], cwd=epath.Path(__file__).parent, capture_output=True, text=True, timeout=10)

    try:
        head = git("rev-parse", "HEAD")
        return head.stdout.strip() + ("+" if git("status", "--porcelain").stdout.strip() else "") if head.returncode == 0 else None
    except (OSError, subprocess.TimeoutExpired):
        return None


def read(workdir: epath.PathLike) -> dict[str, Any] | None:
    return files.read_json(epath.Path(workdir) / "record.json")


def write(workdir: epath.PathLike, record: dict[str, Any]) -> None:
    """Replaces the record whole; the first process of a pod writes."""
    if jax.process_index() == 0:
        files.write_json(epath.Path(workdir) / "record.json", record)


def finished(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """{name: stage} of the stages that ended with their proof."""
    return {stage["name"]: stage for stage in record["stages"]}
