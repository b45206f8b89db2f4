"""launch/local.sh: processes that form one job, their output, signals and ends."""
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from tests.launch import cloud

SHOW = "import os; print(os.environ['VLMJAX_PROCESS_ID'], os.environ['VLMJAX_PROCESSES'], os.environ['VLMJAX_COORDINATOR'], os.environ.get('XLA_FLAGS'))"
# Each says that it is up, then waits; process 0 also ignores SIGTERM where asked.
WAIT = """
import os, signal, sys, time
i = int(os.environ["VLMJAX_PROCESS_ID"])
def end(number, frame):
    print("saved after", signal.Signals(number).name, flush=True)
    sys.exit(int(sys.argv[1]))
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, end)
"""
# A shell starts what runs in its background with SIGINT ignored, which is inherited: with this in front it is not, also where these tests are in the background.
HEEDING = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execvp(sys.argv[1], sys.argv[1:])"


@pytest.fixture
def start(tmp_path):
    env = {"PATH": cloud.tools(tmp_path), "VLMJAX_POLL": "0.05", "VLMJAX_GRACE": "1", "HOME": str(tmp_path)}
    started = []

    def start(count, *command, **more):
        process = subprocess.Popen([*python(HEEDING), "bash", str(cloud.TOP / "launch" / "local.sh"), str(count), "--", *command], cwd=tmp_path, env=env | more,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()


def python(text, *args):
    return [sys.executable, "-SEc", text, *args]


def ended(process, status):
    printed = process.communicate(timeout=30)[0]
    assert process.returncode == status, printed
    return printed


def test_they_know_each_other_and_keep_the_environment(start):
    printed = sorted(ended(start(3, *python(SHOW), XLA_FLAGS="--xla_force_host_platform_device_count=2"), 0).splitlines())
    places = {line.split()[3] for line in printed}
    assert [line.split()[:3] for line in printed] == [[f"[{i}]", str(i), "3"] for i in range(3)] and len(places) == 1
    assert all(line.endswith("=2") for line in printed)
    host, port = places.pop().split(":")
    assert host == "127.0.0.1" and 20000 <= int(port) < 32000


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("status", [0, 143])
def test_signals_reach_all(start, tmp_path, name, status):
    process = start(2, *python(WAIT + "open(str(i), 'w'); time.sleep(60)", str(status)))
    wait_for(tmp_path, 2)
    process.send_signal(signal.Signals[name])
    printed = ended(process, status or 128 + signal.Signals[name])
    assert all(f"[{i}] saved after {name}" in printed for i in (0, 1))
    assert f"stopped by {name}" in printed and "launch/local.sh 2 -- " in printed


def wait_for(folder: pathlib.Path, count: int):
    end = time.monotonic() + 20
    while not all((folder / str(i)).exists() for i in range(count)):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_one_dies_and_the_others_are_ended(start, tmp_path):
    process = start(3, *python(WAIT + """
open(str(i), "w").write(str(os.getpid()))
while not os.path.exists("all"):
    time.sleep(0.02)
if i == 1:
    os.kill(os.getpid(), 9)
if i == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(60)
""", "1"))
    wait_for(tmp_path, 3)
    began = time.monotonic()
    (tmp_path / "all").touch()
    printed = ended(process, 137)
    assert time.monotonic() - began < 10
    pid = (tmp_path / "1").read_text()
    assert f"process 1 of 3 on host-here (pid {pid}) was killed by SIGKILL; ending the other 2" in printed
    assert "[2] saved after SIGTERM" in printed and "to resume, type: launch/local.sh 3 -- " in printed
    for i in range(3):
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / str(i)).read_text()), 0)


def test_a_mistake_of_the_user_is_2_whoever_ended_first(start):
    printed = ended(start(2, *python(WAIT + """
open(str(i), "w")
while not os.path.exists(str(1 - i)):
    time.sleep(0.02)
if i == 0:
    sys.exit(134)
time.sleep(60)
""", "2")), 2)
    assert "process 0 of 2" in printed and "a mistake in the command or its config" in printed


def test_what_a_dead_process_left_behind_is_ended(start, tmp_path):
    left = f"import subprocess; p = subprocess.Popen([{sys.executable!r}, '-SEc', 'import time; time.sleep(60)']); open('left' + str(i), 'w').write(str(p.pid)); sys.exit(143)"
    assert "ended after SIGTERM (143); ending" in ended(start(1, *python(WAIT + left, "1")), 143)  # it may have saved: not "killed"
    end = time.monotonic() + 5
    while os.path.exists(f"/proc/{(tmp_path / 'left0').read_text()}/exe"):
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("args, grace, expected", [([], "1", "usage"), (["2"], "1", "usage"), (["0", "--", "x"], "1", "usage"), (["2", "--", "no-such-program"], "1", "no such command"),
                                                   (["2", "--", "true"], "ten", "VLMJAX_GRACE: ten is not a number")])
def test_mistakes_are_one_line(tmp_path, args, grace, expected):
    done = subprocess.run(["bash", str(cloud.TOP / "launch" / "local.sh"), *args], env={"PATH": cloud.tools(tmp_path), "VLMJAX_GRACE": grace}, capture_output=True, text=True)
    assert done.returncode == 2 and expected in done.stderr and done.stderr.count("\n") == 1
