"""launch/tpu.sh up, run, logs, stop and down against stand-ins: what is called, what workers hold, what is refused."""
import copy
import re
import shutil
import subprocess

import pytest


def up(cloud, *args):
    return cloud.run("up", "one", *args)


def test_up_asks_waits_and_installs_once(cloud):
    cloud.gcloud.coming = ["WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]
    printed = up(cloud)
    (create,) = cloud.calls("create")
    assert create[:5] == ["compute", "tpus", "queued-resources", "create", "one"]
    commit = cloud.git("rev-parse", "HEAD")
    assert {"--node-id=one", "--zone=us-central2-b", "--project=my-project", "--accelerator-type=v4-16", "--runtime-version=tpu-ubuntu2204-base", "--spot"} <= set(create)
    assert re.search(rf"--labels=vlmjax=one,vlmjax_owner=\w+,vlmjax_id=[0-9a-f]{{12}},vlmjax_commit={commit[:12]} ", " ".join(create))
    assert all(word in printed for word in ("asking for v4-16", "WAITING_FOR_RESOURCES", "PROVISIONING", "READY in us-central2-b, 2 workers"))
    for worker in (0, 1):
        assert cloud.job(worker, "installed") == commit
        assert cloud.job(worker, "code/.git/HEAD") == commit
        asked = (cloud.home(worker) / "uv.log").read_text()
        assert "venv --quiet --clear --python 3.12 venv" in asked and "--editable ./code[tpu]" in asked
    before = len(cloud.calls("scp"))
    assert "all workers have" in up(cloud)
    assert len(cloud.calls("create")) == 1 and len(cloud.calls("scp")) == before
    assert (cloud.home(0) / "uv.log").read_text() == asked


def test_up_installs_a_new_commit_without_touching_the_packages(there):
    cloud = there
    (cloud.repo / "more.txt").write_text("x")
    commit = cloud.commit()
    up(cloud)
    assert cloud.job(1, "installed") == commit and (cloud.home(1) / "vlmjax" / "code" / "more.txt").exists()
    assert (cloud.home(1) / "uv.log").read_text().count("pip install") == 1


def test_up_refuses_changes_that_are_not_committed_and_names_them(cloud):
    (cloud.repo / "setup.cfg").write_text("[metadata]\n")
    (cloud.repo / "new.py").write_text("")
    printed = cloud.run("up", "one", status=2)
    assert "setup.cfg" in printed and "new.py" in printed and "--allow-dirty" in printed
    assert not cloud.calls("create")
    assert "not sent, since git does not know it: new.py" in up(cloud, "--allow-dirty")
    assert (cloud.home(0) / "vlmjax" / "code" / "setup.cfg").read_text() == "[metadata]\n"
    assert cloud.job(0, "installed").startswith(cloud.git("rev-parse", "HEAD") + "+")


def test_up_refuses_a_shallow_clone_before_it_costs_anything(cloud):
    cloud.commit()
    whole, cloud.repo = cloud.repo, cloud.folder / "shallow"
    subprocess.run(["git", "clone", "--quiet", "--depth=1", f"file://{whole}", cloud.repo], env=cloud.env, check=True)
    shutil.copy(whole / "launch" / "slices.conf", cloud.repo / "launch")
    printed = cloud.run("up", "one", status=2)
    assert "is a shallow clone" in printed and "fetch --unshallow" in printed and printed.count("\n") == 1 and not cloud.calls()
    cloud.git("fetch", "--quiet", "--unshallow")
    up(cloud)


def test_up_goes_on_where_a_request_waits(cloud):
    cloud.gcloud.coming = ["WAITING_FOR_RESOURCES"] * 1000
    printed = cloud.run("up", "one", "--timeout=1", status=1)
    assert "still WAITING_FOR_RESOURCES after 1 s" in printed and "down one" in printed
    own, cloud.repo = cloud.repo, cloud.clone()
    assert "--owned=" in cloud.run("up", "one", status=2)  # at once, not when it is there
    cloud.repo = own
    cloud.slices["one"].update(coming=["ACTIVE"])
    up(cloud)
    assert len(cloud.calls("create")) == 1 and not cloud.calls("delete")


def test_up_says_what_cloud_says(cloud):
    cloud.fail("create", "RESOURCE_EXHAUSTED: Quota limit TPUV4 has been exceeded")
    assert "Quota limit" in cloud.run("up", "one", status=1)
    cloud.fail("ssh", None, "##### Command execution on worker 1 failed with exit status 1. Continuing.\nworker.sh on host: no room\nRetrying: SSH command error")
    assert "worker.sh on host: no room\n" in cloud.run("up", "one", status=1)
    cloud.run("down", "one")
    cloud.fail("describe", None, "PERMISSION_DENIED: not for you")
    assert "not for you" in cloud.run("up", "one", status=1)
    cloud.gcloud.fail, cloud.gcloud.coming = {}, ["FAILED"]
    assert "ended as FAILED" in cloud.run("up", "one", status=1)
    assert "one" in cloud.slices


@pytest.mark.parametrize("forgets_labels", [False, True])
def test_up_replaces_its_own_lost_slice(there, forgets_labels):
    cloud = there
    cloud.gcloud.forgets_labels = forgets_labels
    cloud.preempt()
    assert "SUSPENDED; deleting" in up(cloud)
    assert len(cloud.calls("delete")) == len(cloud.calls("create")) == 1 and cloud.job(0, "installed")


@pytest.mark.parametrize("location, expected", [("US", "is in US"), (None, "gcloud storage buckets create gs://here --project=my-project --location=us-central2")])
def test_the_bucket_is_in_the_region(cloud, location, expected):
    cloud.gcloud.buckets = {"gs://here": location} if location else {}
    assert expected in cloud.run("up", "one", status=0 if location else 2)


def test_a_tpu_vm_without_a_queue(cloud):
    cloud.run("up", "plain")
    (create,) = cloud.calls("create")
    assert create[:5] == ["compute", "tpus", "tpu-vm", "create", "plain"]
    assert {"--accelerator-type=v5litepod-8", "--version=v2-alpha-tpuv5-lite", "--network=mine"} <= set(create) and "--spot" not in create
    cloud.run("down", "plain")
    assert not cloud.slices and not any("queued-resources" in argv for argv in cloud.calls())


@pytest.mark.parametrize("request_state", ["ACTIVE", "SUSPENDED"])
@pytest.mark.parametrize("labels", [{"vlmjax": "one", "vlmjax_owner": "someone"}, {}])
def test_what_others_made_is_left_alone(cloud, request_state, labels):
    foreign = dict(request=request_state, coming=[], node="READY" if request_state == "ACTIVE" else None, born="x", labels=labels, ips=["10.0.0.1"])
    cloud.slices.update(one=foreign)
    before = dict(foreign)
    for action in ("up", "run", "watch", "stop", "down", "logs"):
        assert "was not made by" in cloud.run(action, "one", *(["--", "true"] if action in ("run", "watch") else []), status=2)
    assert cloud.slices == {"one": before}
    assert not [argv for argv in cloud.calls() if argv[3] in ("delete", "create", "ssh", "scp")]


@pytest.mark.parametrize("name, owner", [("one", None), ("plain", "someone")])
def test_another_checkout_takes_a_slice_over_only_by_its_id(cloud, name, owner):
    cloud.run("up", name)
    labels, own, other = cloud.slices[name]["labels"], cloud.repo, cloud.clone()
    labels["vlmjax_owner"] = owner or labels["vlmjax_owner"]  # an id says more than a name
    made, before, calls = labels["vlmjax_id"], copy.deepcopy(cloud.slices), len(cloud.calls())
    cloud.repo = other
    for action in ("up", "run", "watch", "stop", "logs", "down"):
        for flag in ([], ["--owned=0123456789ab"]):
            printed = cloud.run(action, name, *flag, *(["--", "true"] if action in ("run", "watch") else []), status=2)
            assert f"{name}, by {labels['vlmjax_owner']}, id {made}" in printed and f"launch/tpu.sh {action} {name} --owned={made}" in printed and printed.count("\n") == 1
    assert cloud.slices == before and not [argv for argv in cloud.calls()[calls:] if argv[3] in ("delete", "create", "ssh", "scp")]
    cloud.repo = own
    cloud.run("stop", name)
    cloud.repo = other
    cloud.run("stop", name, f"--owned={made}")
    assert f"{name}: deleted" in cloud.run("down", name)  # it has taken it over for good
    cloud.run("up", name)  # another slice, with an id of its own
    cloud.repo = own
    assert f"--owned={cloud.slices[name]['labels']['vlmjax_id']}" in cloud.run("down", name, status=2) and name in cloud.slices
    cloud.repo = other
    assert f"{name}: deleted" in cloud.run("down", name)


def test_another_checkout_does_not_know_a_request_that_forgot_its_labels(there):
    cloud = there
    cloud.gcloud.forgets_labels = True
    own, cloud.repo = cloud.repo, cloud.clone()
    cloud.run("watch", "one", "--", "true", status=2)  # which keeps something of its own, and looks
    cloud.preempt()
    assert "was not made by" in cloud.run("down", "one", status=2) and "one" in cloud.slices
    cloud.repo = own
    assert "one: deleted" in cloud.run("down", "one")


def test_a_slice_of_before_there_were_ids_is_known_by_its_owner(there):
    cloud = there
    cloud.slices["one"]["labels"].pop("vlmjax_id")
    cloud.repo = cloud.clone()
    assert "one: deleted" in cloud.run("down", "one")


def test_down_deletes_what_up_made_and_may_be_repeated(there):
    cloud = there
    assert "one: deleted" in cloud.run("down", "one")
    (delete,) = cloud.calls("delete")
    assert delete[2:5] == ["queued-resources", "delete", "one"] and "--force" in delete
    assert "nothing to delete" in cloud.run("down", "one")
    assert len(cloud.calls("delete")) == 1


def test_run_starts_detached_on_every_worker_with_secrets_in_a_file(there):
    cloud = there
    secrets = cloud.repo / "launch" / "secrets.env"
    secrets.write_text("HF_TOKEN=hf_secret words\nQUOTED=a 'b'=\"c\"\nEMPTY=\n\n# a comment\n")
    cloud.program('echo "$VLMJAX_PROCESS_ID/$VLMJAX_PROCESSES at $VLMJAX_COORDINATOR, $HF_TOKEN, $QUOTED, $*, in $PWD"; sleep 60')
    assert "chmod 600" in cloud.run("run", "one", "--", "vlmjax", "train", status=2)
    secrets.chmod(0o600)
    cloud.run("run", "one", "--", "vlmjax", "train", "--workdir={bucket}/runs/a b", "--config.run=('x',)")
    for worker in (0, 1):
        cloud.until(lambda: "in /" in cloud.job(worker, "job.log"))
        assert f"{worker}/2 at 10.0.0.1:8476, hf_secret words, a 'b'=\"c\", train --workdir=gs://here/runs/a b --config.run=('x',), in {cloud.home(worker)}/vlmjax/code" in cloud.job(worker, "job.log")
        assert (cloud.home(worker) / "vlmjax" / "env").stat().st_mode & 0o777 == 0o600
    assert "hf_secret" not in str(cloud.calls())
    assert not [file for file in (cloud.repo / "runs").rglob("*") if file.is_file() and b"hf_secret" in file.read_bytes()]
    assert not (cloud.folder / "ssh.log").exists()

    pids = [cloud.job(worker, "main") for worker in (0, 1)]
    assert "runs already" in cloud.run("run", "one", "--", "vlmjax", "train", "--workdir={bucket}/runs/a b", "--config.run=('x',)")
    printed = cloud.run("run", "one", "--", "vlmjax", "evaluate", status=2)
    assert "a command runs on 2 of 2 workers: vlmjax train" in printed and "stop one" in printed
    assert [cloud.job(worker, "main") for worker in (0, 1)] == pids
    old = cloud.job(0, "installed")
    up(cloud)  # the same code: nothing to replace
    new = cloud.commit()
    assert f"a command runs with the code {old}, here is {new}; stop it first: launch/tpu.sh stop one" in cloud.run("up", "one", status=2)
    assert f"with the code {old}" in cloud.run("run", "one", "--", "vlmjax", "train", "--workdir={bucket}/runs/a b", "--config.run=('x',)", status=2)
    assert cloud.job(0, "installed") == (cloud.repo / "runs" / "launch" / "one" / "code").read_text().strip() == old

    assert cloud.run("logs", "one", "--worker=all").count("hf_secret words") == 2
    assert cloud.run("logs", "one", "--worker=1", "--lines=1").startswith("[1] 1/2 at")


def test_lines_of_secrets_that_a_shell_would_read_otherwise_are_refused_by_number(untouched, tmp_path):
    secrets = tmp_path / "secrets"
    secrets.touch(0o600)
    for line in ("export C=hf_secret", "C='hf_secret'", 'C="hf_secret"', "C=hf_secret\r", " C=hf_secret", "hf_secret"):
        secrets.write_bytes(f"A=1\n\n# C\n{line}\n".encode())
        printed = untouched.run("watch", "one", f"--env-file={secrets}", "--", "vlmjax", status=2)
        assert f"{secrets}: line 4 is not NAME=VALUE" in printed and printed.count("\n") == 1 and "hf_secret" not in printed


def test_one_worker_is_no_job_of_several(cloud):
    cloud.gcloud.workers = 1
    up(cloud)
    cloud.program('echo "alone ${VLMJAX_PROCESSES:-yes}"')
    cloud.run("run", "one", "--", "vlmjax")
    cloud.until(lambda: cloud.job(0, "status") == "0")
    assert "alone yes" in cloud.job(0, "job.log")


def test_stop_lets_the_command_save(there):
    cloud = there
    cloud.program("trap 'echo saved; exit 143' TERM; echo up; while :; do sleep 0.05; done")
    cloud.run("run", "one", "--", "vlmjax")
    for worker in (0, 1):
        cloud.until(lambda: "up" in cloud.job(worker, "job.log").splitlines())
    assert cloud.run("stop", "one").count("exit status 143") == 2
    assert cloud.run("stop", "one").count("nothing runs") == 2
    assert "saved" in cloud.job(1, "job.log").splitlines()
    cloud.program("echo again")
    cloud.run("run", "one", "--", "vlmjax")
    cloud.until(lambda: cloud.job(1, "status") == "0")


@pytest.mark.parametrize("command", [["env", "HF_TOKEN=x", "vlmjax"], ["vlmjax", "--token=hf_abcdefghijklmnopqrstuvwx"]])
def test_run_refuses_a_secret_in_the_command(there, command):
    assert "--env-file" in there.run("run", "one", "--", *command, status=2)


def test_run_refuses_other_code_than_is_here(cloud):
    assert "up one" in cloud.run("run", "one", "--", "vlmjax", status=2)
    up(cloud)
    old = cloud.git("rev-parse", "HEAD")
    new = cloud.commit()
    printed = cloud.run("run", "one", "--", "vlmjax", status=2)
    assert old in printed and new in printed and "up one" in printed


@pytest.mark.parametrize("args, expected", [
    (["fly", "one"], "up, run, watch"), (["up"], "which slice"), (["up", "one", "two"], "one slice at a time"), (["up", "two"], "it has: one plain"),
    (["up", "one", "--spot"], "no flag --spot"), (["up", "one", "--timeout=1h"], "not a number"), (["logs", "one", "--worker=x"], "neither a number nor all"),
    (["down", "one", "--owned="], "is no id"), (["run", "one"], "which command"), (["watch", "one"], "which command"), (["up", "one", "--slices=nowhere"], "slices.example.conf")])
def test_mistakes_are_one_line(untouched, args, expected):
    printed = untouched.run(*args, status=2)
    assert expected in printed and printed.count("\n") == 1


@pytest.mark.parametrize("name, value", [("VLMJAX_GRACE", "ten"), ("VLMJAX_GRACE", "08"), ("VLMJAX_POLL", "1s")])
def test_mistakes_in_the_environment_are_one_line(untouched, monkeypatch, name, value):
    monkeypatch.setitem(untouched.env, name, value)
    printed = untouched.run("stop", "one", status=2)
    assert f"{name}: {value} is not a number" in printed and printed.count("\n") == 1


@pytest.mark.parametrize("line, expected", [
    ("one v4-8 z", "seven columns"), ("one v9-8 z queued spot p -", "no accelerator v9-8"), ("one v4-8 z later spot p -", "queued, vm or gke"),
    ("one v4-8 z vm cheap p -", "spot, on-demand or reserved"), ("one v4-8 z vm spot p here", "gs://NAME or -"), ("one v4-8 z vm spot p -\none v4-8 z vm spot p -", "twice")])
def test_mistakes_in_the_file_of_slices(untouched, tmp_path, line, expected):
    (tmp_path / "slices").write_text(line + "\n")
    assert expected in untouched.run("up", "one", f"--slices={tmp_path / 'slices'}", status=2)


@pytest.mark.parametrize("name", ["one", "plain"])
@pytest.mark.parametrize("action", ["up", "run", "watch", "stop", "down", "logs"])
def test_a_dry_run_prints_calls_and_makes_none(untouched, action, name):
    printed = untouched.run(action, name, "--dry-run", *(["--", "vlmjax", "train", "--workdir={bucket}/x" if name == "one" else "--workdir=x"] if action in ("run", "watch") else []))
    assert all(line.startswith(("gcloud ", "git -C ", "# ")) for line in printed.splitlines())
    wanted = {"up": ["create", "scp", "worker.sh install"], "run": ["scp", "worker.sh start"], "watch": ["worker.sh state", "delete", "create", "worker.sh install", "worker.sh start"],
              "stop": ["worker.sh stop"], "down": ["worker.sh stop", "delete"], "logs": ["worker.sh logs 100"]}[action]
    position = 0
    for part in wanted:
        position = printed.index(part, position)
