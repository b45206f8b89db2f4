"""launch/gke.sh against stand-ins: what is called, what is refused, and a JobSet that is preempted, fails, or ends."""
import re
import shutil
import subprocess

import pytest

from tests.launch.cloud import Cloud
from tests.launch.gke import Cluster


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    made = Cluster(tmp_path_factory.mktemp("gke"))
    yield made
    made.end()


@pytest.fixture
def cluster(empty, tmp_path):
    shutil.copytree(empty.folder, tmp_path, symlinks=True, dirs_exist_ok=True)
    made = Cluster(tmp_path, like=empty)
    made.program("printf '%s\\n' \"$@\"")
    yield made
    made.end()


def up(cluster, name="pod"):
    return cluster.run("up", name)


TRAIN = ("--", "vlmjax", "train", "--config=a b'c.py", "--workdir={bucket}/runs")


def test_up_makes_a_cluster_and_an_image_of_the_commit_once(cluster):
    commit = cluster.git("rev-parse", "HEAD")
    assert "making a cluster with 1 x v5litepod-16 in us-west4-a (spot)" in up(cluster)
    (create,) = cluster.made("xpk", "cluster", "create")
    assert {"--cluster=pod", "--tpu-type=v5litepod-16", "--num-slices=1", "--zone=us-west4-a", "--project=my-project", "--spot", "--quiet"} <= set(create)
    (build,), (push,) = cluster.made("docker", "build"), cluster.made("docker", "push")
    image = f"gcr.io/my-project/vlmjax:{commit}"
    assert f"--build-arg=CODE={commit}" in build and f"--tag={image}" in build and push[-1] == image
    context = cluster.repo / "runs" / "launch" / "pod"
    assert build[-1] == str(context) and (context / "Dockerfile").exists() and (context / "code.bundle").stat().st_size and not (context / "code.patch").read_text()
    assert "is there" in up(cluster) and len(cluster.made("xpk")) == len(cluster.made("docker", "build")) == 1
    (cluster.repo / "more.txt").write_text("x")
    other = cluster.commit()
    up(cluster)
    assert len(cluster.made("xpk")) == 1 and f"--tag=gcr.io/my-project/vlmjax:{other}" in cluster.made("docker", "build")[1]


def test_the_image_holds_the_commit_and_what_is_not_committed(cluster, tmp_path):
    """The steps of the Dockerfile, run by a shell; pip is the only one that is not there."""
    (cluster.repo / "setup.cfg").write_text("[metadata]\n")
    cluster.run("up", "pod", "--allow-dirty")
    (build,) = cluster.made("docker", "build")
    code = next(word.removeprefix("--build-arg=CODE=") for word in build if word.startswith("--build-arg=CODE="))
    steps = re.search(r"^RUN (.*?[^\\])$", (cluster.repo / "launch" / "Dockerfile").read_text(), re.DOTALL | re.MULTILINE)[1].replace("\\\n", " ").replace("/code/", f"{build[-1]}/")
    image = tmp_path / "image"
    image.mkdir()
    done = subprocess.run(["bash", "-ec", "pip() { echo \"$@\" >pip.log; }; " + steps], cwd=image, env=cluster.env | {"CODE": code}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (image / ".git" / "HEAD").read_text().strip() == code.partition("+")[0] and (image / "setup.cfg").read_text() == "[metadata]\n"
    assert (image / "pip.log").read_text().split()[-2:] == ["--editable", ".[tpu]"]


def test_up_goes_on_where_a_call_failed(cluster):
    cluster.fail("xpk cluster", "[XPK] GKE Cluster Create request returned ERROR 1")
    assert "request returned ERROR 1" in cluster.run("up", "pod", status=1) and not cluster.made("docker")
    cluster.fail("docker push", "denied: Unauthenticated request")
    assert "denied: Unauthenticated" in cluster.run("up", "pod", status=1)
    up(cluster)
    assert len(cluster.made("xpk")) == 2 and len(cluster.made("docker", "push")) == 2
    cluster.fail("container clusters", "PERMISSION_DENIED: not for you")
    assert "not for you" in cluster.run("up", "pod", status=1)


def test_up_refuses_what_is_not_committed(cluster):
    (cluster.repo / "setup.cfg").write_text("[metadata]\n")
    assert "not committed: setup.cfg" in cluster.run("up", "pod", status=2) and not cluster.gcloud.calls
    cluster.run("up", "pod", "--allow-dirty")
    (build,) = cluster.made("docker", "build")
    assert any(word.startswith(f"--build-arg=CODE={cluster.git('rev-parse', 'HEAD')}+") for word in build) and any(word.startswith("--tag=") and "+" not in word for word in build)


def test_several_slices_of_a_reservation(cluster):
    up(cluster, "two")
    cluster.run("run", "two", "--", "vlmjax", "train")
    (create,), (job,) = cluster.made("xpk", "cluster", "create"), cluster.made("xpk", "workload", "create")
    assert {"--num-slices=2", "--tpu-type=v5litepod-16", "--reservation=ours"} <= set(create) and not {"--spot", "--on-demand"} & set(create)
    assert {"--num-slices=2", "--tpu-type=v5litepod-16"} <= set(job)


def test_run_starts_the_very_command_and_keeps_secrets_out_of_it(cluster):
    up(cluster)
    secrets = cluster.folder / "secrets"
    secrets.write_text("HF_TOKEN=hf_abc\n")
    secrets.chmod(0o644)
    assert "chmod 600" in cluster.run("run", "pod", f"--env-file={secrets}", *TRAIN, status=2)
    secrets.chmod(0o600)
    assert "watch pod" in cluster.run("run", "pod", f"--env-file={secrets}", "--attempts=7", *TRAIN)
    job = cluster.gcloud.jobsets["pod"]
    assert job["printed"].splitlines() == ["train", "--config=a b'c.py", "--workdir=gs://here/runs"]
    commit = cluster.git("rev-parse", "HEAD")
    expected = {"max-restarts": "7", "restart-on-exit-codes": "1", "termination-grace-period-seconds": "3", "docker-image": f"gcr.io/my-project/vlmjax:{commit}", "env-file": str(secrets)}
    assert {key: job["flags"][key] for key in expected} == expected
    assert not any("hf_abc" in word for argv in cluster.gcloud.calls for word in argv)
    cluster.run("stop", "pod")
    assert "put it into a file" in cluster.run("run", "pod", "--", "env", "HF_TOKEN=x", "vlmjax", status=2) and not cluster.gcloud.jobsets


def test_run_again_finds_what_runs_and_replaces_what_ended(cluster):
    up(cluster)
    cluster.run("run", "pod", *TRAIN)
    assert "runs already" in cluster.run("run", "pod", *TRAIN)
    assert "a command runs: vlmjax train" in cluster.run("run", "pod", "--", "vlmjax", "evaluate", status=2)
    cluster.gcloud.jobsets["pod"]["coming"] = [("Completed", "0", "")]
    cluster.run("run", "pod", "--", "vlmjax", "evaluate")
    assert cluster.gcloud.jobsets["pod"]["printed"] == "evaluate\n" and len(cluster.made("kubectl", "delete", "jobset", "pod")) == 1


def test_watch_sees_preemptions_through_to_the_end(cluster):
    up(cluster)
    cluster.gcloud.coming = [("", "0", ""), ("", "1", "restarting jobset"), ("", "1", ""), ("Completed", "1", "jobset completed successfully")]
    cluster.run("run", "pod", *TRAIN)
    cluster.fail("kubectl get", None, "Unable to connect to the server: net/http: TLS handshake timeout")
    printed = cluster.run("watch", "pod")
    assert "the cluster does not answer: ERROR: (gcloud.stand-in) Unable to connect to the server" in printed and "running, 1 restarts (restarting jobset)" in printed
    assert "ended with exit status 0, after 1 restarts" in printed


@pytest.mark.parametrize("codes, status", [(["127", "127"], 2), (["1", "2"], 1), (["139", ""], 1)])
def test_watch_ends_with_what_the_command_ended_with(cluster, codes, status):
    up(cluster)
    cluster.gcloud.coming, cluster.gcloud.codes = [("Failed", "0", "jobset failed due to one or more job failures")], codes
    cluster.run("run", "pod", *TRAIN)
    printed = cluster.run("watch", "pod", status=status)
    assert "failed after 0 restarts, exit status " + " ".join(sorted(set(filter(None, codes)))) in printed and "one or more job failures" in printed
    assert "--workdir=gs://here/runs" in printed  # the last lines of the log


def test_watch_gives_up_on_a_cluster_that_never_answers_and_deletes_nothing(cluster):
    up(cluster)
    cluster.run("run", "pod", *TRAIN)
    cluster.env["VLMJAX_POLL"] = "0"
    cluster.fail("kubectl get", *["no route to host"] * 30)
    assert "did not answer 30 times; nothing is deleted" in cluster.run("watch", "pod", status=1) and "pod" in cluster.gcloud.jobsets


def test_logs_of_one_host_or_all(cluster):
    up(cluster)
    cluster.run("run", "pod", *TRAIN)
    assert "--workdir=gs://here/runs" in cluster.run("logs", "pod", "--lines=5")
    cluster.run("logs", "pod", "--worker=all", "--follow")
    one, every = cluster.made("kubectl", "logs")
    assert "--selector=jobset.sigs.k8s.io/jobset-name=pod,batch.kubernetes.io/job-completion-index=0" in one and "--tail=5" in one and "--follow" not in one
    assert "--selector=jobset.sigs.k8s.io/jobset-name=pod" in every and "--follow" in every


def test_stop_and_down(cluster):
    up(cluster)
    cluster.run("run", "pod", *TRAIN)
    cluster.run("stop", "pod")
    assert not cluster.gcloud.jobsets and cluster.gcloud.clusters
    assert "nothing runs" in cluster.run("watch", "pod", status=2)
    cluster.run("down", "pod")
    assert not cluster.gcloud.clusters and "nothing to delete" in cluster.run("down", "pod")
    assert "no such cluster" in cluster.run("run", "pod", *TRAIN, status=2)
    up(cluster)
    assert cluster.gcloud.clusters and len(cluster.made("xpk", "cluster", "create")) == 2


@pytest.mark.parametrize("labels", [{"vlmjax": "pod", "vlmjax_owner": "someone"}, {}])
def test_what_others_made_is_left_alone(cluster, labels):
    cluster.gcloud.clusters["pod"] = dict(status="RUNNING", location="us-west4", labels=labels)
    for action in ("up", "run", "watch", "stop", "down", "logs"):
        assert "was not made by" in cluster.run(action, "pod", *(["--", "true"] if action == "run" else []), status=2)
    assert not [argv for argv in cluster.gcloud.calls if argv[0] in ("xpk", "kubectl", "docker")] and cluster.gcloud.clusters


def test_another_checkout_takes_a_cluster_over_only_by_its_id(cluster):
    """Whatever the user is called: several may be root."""
    up(cluster)
    labels, own, other = cluster.gcloud.clusters["pod"]["labels"], cluster.repo, cluster.clone()
    made, calls = labels["vlmjax_id"], len(cluster.gcloud.calls)
    cluster.repo = other
    for action in ("up", "run", "watch", "stop", "logs", "down"):
        printed = cluster.run(action, "pod", *(["--", "true"] if action == "run" else []), status=2)
        assert f"id {made}" in printed and f"launch/gke.sh {action} pod --owned={made}" in printed and printed.count("\n") == 1
    assert cluster.gcloud.clusters and not [argv for argv in cluster.gcloud.calls[calls:] if argv[0] in ("xpk", "kubectl", "docker")]
    cluster.repo = own
    cluster.run("stop", "pod")
    cluster.repo = other
    assert "pod: deleted" in cluster.run("down", "pod", f"--owned={made}") and not cluster.gcloud.clusters
    cluster.repo = own
    up(cluster)
    assert "--owned=" not in cluster.run("down", "pod") and not cluster.gcloud.clusters


def test_a_dry_run_prints_every_call_and_makes_none(cluster):
    for action, words in (("up", ("xpk cluster create", "docker build", "docker push")), ("run", ("xpk workload create", "--command=exec vlmjax train")), ("watch", ("kubectl get jobset",)), ("logs", ("kubectl logs",)),
                          ("stop", ("kubectl delete jobset pod",)), ("down", ("xpk cluster delete",))):
        printed = cluster.run(action, "pod", "--dry-run", *(TRAIN if action == "run" else []))
        assert all(word in printed.replace("'", "") for word in words), printed
    assert not cluster.gcloud.calls and not (cluster.repo / "runs").exists()


def test_each_script_refuses_the_others_slices(cluster, tmp_path):
    assert "launch/tpu.sh up vm" in cluster.run("up", "vm", status=2)
    cluster.script = Cloud.script
    assert "launch/gke.sh up pod" in cluster.run("up", "pod", status=2)
    (cluster.repo / "launch" / "slices.conf").write_text("vm 2xv5e-8 us-west4-a vm spot my-project -\n")
    assert "no accelerator 2xv5e-8" in cluster.run("up", "vm", status=2)
