"""Every command of launch/README.md that starts with launch/tpu.sh or launch/gke.sh runs, in the order in which it stands there."""
import re
import shlex
import shutil

import pytest

from tests.launch.cloud import TOP
from tests.launch.gke import Cluster
from vlmjax import config as configs

README = (TOP / "launch" / "README.md").read_text()


def commands(program):
    blocks = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    return [words[1:] for block in blocks for line in block.splitlines() if (words := shlex.split(line, comments=True)) and words[0] == program]


def test_its_commands_run_in_order(cloud):
    shutil.copy(cloud.repo / "launch" / "slices.example.conf", cloud.repo / "launch" / "slices.conf")
    cloud.gcloud.buckets = {"gs://my-vlms-central2": "US-CENTRAL2"}
    cloud.program('echo "$*"')
    found = commands("launch/tpu.sh")
    assert {words[0] for words in found} == {"up", "run", "watch", "logs", "down"}
    for words in found:
        before = len(cloud.calls())
        cloud.run(*words, *(["--dry-run"] if "--follow" in words else []))
        assert (len(cloud.calls()) == before) == ("--dry-run" in words or "--follow" in words)
    assert not cloud.slices and len(cloud.calls("create")) == 1


def test_its_commands_for_a_cluster_run_in_order(tmp_path):
    cluster = Cluster(tmp_path)
    try:
        shutil.copy(cluster.repo / "launch" / "slices.example.conf", cluster.repo / "launch" / "slices.conf")
        cluster.gcloud.buckets = {"gs://my-vlms-west4": "US-WEST4"}
        cluster.gcloud.coming = [("", "0", ""), ("", "0", ""), ("Completed", "0", "")]
        cluster.program('echo "$*"')
        found = commands("launch/gke.sh")
        assert {words[0] for words in found} == {"up", "run", "watch", "logs", "down"}
        for words in found:
            before = len(cluster.gcloud.calls)
            cluster.run(*words)
            assert (len(cluster.gcloud.calls) == before) == ("--dry-run" in words)
        assert not cluster.gcloud.clusters and len(cluster.made("xpk", "cluster", "create")) == 1
    finally:
        cluster.end()


@pytest.mark.parametrize("script", ["launch/tpu.sh", "launch/gke.sh"])
def test_its_flags_are_those_of_the_script(script):
    help_text = (TOP / script).read_text()
    for words in commands(script):
        for flag in words[:words.index("--") if "--" in words else None]:
            assert not flag.startswith("--") or flag.split("=")[0] in help_text


def test_it_enables_what_its_calls_need():
    enabled = [words[2:] for words in commands("gcloud") if words[:2] == ["services", "enable"]]
    assert enabled == [[f"{service}.googleapis.com" for service in part] for part in (("tpu", "compute", "storage"), ("container", "artifactregistry"))]


def test_the_slices_of_the_readme_are_in_the_example():
    names = {line.split()[0] for line in (TOP / "launch" / "slices.example.conf").read_text().splitlines() if line and not line.startswith("#")}
    assert {words[1] for script in ("launch/tpu.sh", "launch/gke.sh") for words in commands(script)} <= names


def test_the_overrides_of_its_runs_are_keys_of_their_config():
    trained = [words for program in ("launch/tpu.sh", "launch/gke.sh", "launch/local.sh") for words in commands(program) if "train" in words]
    assert len(trained) == 3
    for words in trained:
        (config,) = (word.removeprefix("--config=") for word in words if word.startswith("--config="))
        configs.read(f"{TOP}/{config}", [word for word in words if word.startswith("--config.")])
