"""launch/tpu.sh watch: goes on through preemption and killed processes, stops where going on is of no use."""
import contextlib
import re

import pytest


@contextlib.contextmanager
def watching(cloud, *args):
    process = cloud.start("watch", "one", *args)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ended(process, status):
    printed = process.communicate(timeout=40)[0]
    assert process.returncode == status, printed
    return printed


@pytest.fixture
def running(there):
    cloud = there
    cloud.run("run", "one", "--", "vlmjax", "train", "--workdir={bucket}/runs/a b")
    for worker in (0, 1):
        cloud.until(lambda: "step 1" in cloud.job(worker, "job.log"))
    return cloud


def test_a_lost_slice_is_made_again_and_goes_on(running):
    cloud = running
    commit, made = cloud.job(0, "installed"), cloud.slices["one"]["labels"]["vlmjax_id"]
    cloud.commit()  # another commit is checked out meanwhile: the run keeps its own
    with watching(cloud) as process:
        cloud.until(lambda: cloud.looks() > 2)
        cloud.program("echo \"align: resumes at step 500\"; echo \"now $*\"; while [ ! -e \"$WORLD/finish\" ]; do sleep 0.05; done")
        cloud.gcloud.coming = ["WAITING_FOR_RESOURCES", "ACTIVE"]
        cloud.preempt()
        cloud.until(lambda: "now" in cloud.job(1, "job.log"))
        (cloud.folder / "finish").touch()
        printed = ended(process, 0)
    assert "SUSPENDED" in printed and "done: vlmjax train" in printed
    assert len(cloud.calls("delete")) == len(cloud.calls("create")) == 1
    for worker in (0, 1):
        assert "now train --workdir=gs://here/runs/a b" in cloud.job(worker, "job.log")
        assert cloud.job(worker, "installed") == commit
        assert cloud.job(worker, "versions.txt") == "jax==0.12.0"  # the packages of the first start
    assert cloud.slices["one"]["labels"]["vlmjax_id"] == made


def test_it_survives_a_cloud_that_does_not_answer_or_has_no_room(running):
    cloud = running
    cloud.program("echo 'align: resumes at step 5'")
    cloud.fail("create", "UNAVAILABLE: no more capacity in the zone", None)
    cloud.fail("describe", "UNAVAILABLE: try later", "UNAVAILABLE: try later")
    cloud.fail("ssh", None, "ssh: connect: timed out")
    with watching(cloud) as process:
        cloud.until(lambda: cloud.looks() > 2)
        cloud.preempt()
        printed = ended(process, 0)
    assert "try later" in printed and "no more capacity" in printed and "timed out" in printed and "done" in printed


def test_a_mistake_of_the_user_stops_it(there):
    cloud = there
    cloud.program("echo preparing; if [ $VLMJAX_PROCESS_ID = 1 ]; then echo 'vlmjax: config.py: stages.align.batch: 7 does not divide'; exit 2; fi; sleep 60")
    cloud.run("run", "one", "--", "vlmjax", "train")
    with watching(cloud) as process:
        printed = ended(process, 2)
    assert "says worker 1 on host-10.0.0.2: vlmjax: config.py: stages.align.batch: 7 does not divide" in printed
    cloud.until(lambda: cloud.job(0, "status") == "143")  # the other worker does not wait for it for ever
    assert "one" in cloud.slices


def test_a_misspelt_command_stops_it(cloud):
    with watching(cloud, "--", "vlmjxa", "train") as process:
        assert re.search("a mistake in the command or its config, says worker . on host-.*: .*vlmjxa: not found", ended(process, 2))


def test_a_killed_process_is_named_and_all_start_again(running):
    cloud = running
    with watching(cloud) as process:
        cloud.program("echo 'align: resumes at step 9'; [ $VLMJAX_PROCESS_ID = 1 ] || sleep 0.2")
        cloud.kill(1)
        printed = ended(process, 0)
    assert "the command on worker 1, host-10.0.0.2, was killed by SIGKILL; its last line: step 1" in printed
    assert "logs one --worker=1; to resume by hand: launch/tpu.sh run one -- vlmjax train '--workdir=gs://here/runs/a b'" in printed
    assert cloud.job(0, "job.log").count("=== ") == 4 and not cloud.calls("delete")


def test_a_lost_shell_is_seen(running):
    cloud = running
    with watching(cloud) as process:
        cloud.program("exit 0")
        cloud.kill_jobs()
        printed = ended(process, 0)
    assert "worker 0, host-10.0.0.1, is gone without an exit status" in printed


@pytest.mark.parametrize("line", ["echo 'align: resumes at step 500'", "true"])
def test_starts_without_progress_are_counted(there, line):
    cloud = there
    cloud.program(f"{line}; echo a line; exit 1")
    cloud.run("run", "one", "--", "vlmjax", "train")
    with watching(cloud, "--attempts=2") as process:
        printed = ended(process, 1)
    assert "2 starts in a row made no progress" in printed and "ended with exit status 1" in printed
    assert cloud.job(0, "job.log").count("a line") == (3 if "500" in line else 2)


def test_starts_that_fail_are_counted(cloud):
    full = "scp: vlmjax/code.bundle: No space left on device"
    cloud.fail("scp", full, None, full, full, full, full)  # of the second: the code is there, the command fails
    with watching(cloud, "--attempts=2", "--", "vlmjax", "train") as process:
        printed = ended(process, 1)
    assert "No space left" in printed and "installing or starting failed 2 times in a row" in printed
    assert len(cloud.calls("scp")) == 3 and "one" in cloud.slices


def test_progress_is_counted_from_what_was_saved(there):
    """By a stage, or by an evaluation, which says it in the same words of the answers that it has kept."""
    cloud = there
    cloud.program('step=$(cat "$HOME/step" 2>/dev/null || echo 0); task=align; [ $step = 0 ] || task=easy_vqa; echo "$task: resumes at step $step"; echo $((step + 1)) >"$HOME/step"; [ $step -ge 2 ] || exit 1')
    cloud.run("run", "one", "--", "vlmjax", "train")
    with watching(cloud, "--attempts=1") as process:
        ended(process, 0)
    assert "easy_vqa: resumes at step 2" in cloud.job(0, "job.log")


def test_a_person_may_stop_the_command(running):
    with watching(running) as process:
        running.run("stop", "one")
        assert "stopped by launch/tpu.sh stop" in ended(process, 0)


def test_down_ends_it(running):
    cloud = running
    with watching(cloud) as process:
        cloud.until(lambda: cloud.looks() > 1)
        cloud.fail("ssh", *["no route to host"] * 1000)  # no worker tells that the command was stopped
        assert "one: deleted" in cloud.run("down", "one")
        assert "down one was typed meanwhile; watch ends" in ended(process, 0)
    cloud.fail("create", *["UNAVAILABLE: no more capacity"] * 1000)
    with watching(cloud) as process:
        cloud.until(lambda: len(cloud.calls("create")) > 1)
        assert "nothing to delete" in cloud.run("down", "one")
        assert "watch ends, the slice is ABSENT" in ended(process, 0)
    assert not cloud.slices


def test_watch_alone_makes_the_slice_and_starts(cloud):
    cloud.program("exit 0")
    with watching(cloud, "--", "vlmjax", "train") as process:
        assert "done: vlmjax train" in ended(process, 0)
    assert len(cloud.calls("create")) == 1
