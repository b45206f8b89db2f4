"""`vlmjax train` on the hosts of a pod: real processes that share eight virtual devices."""
import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests import xla_flags
from tests.hosts.running import finish, free_port
from vlmjax.commands.common import DATA_DIR
from vlmjax.data.datasets import easy_vqa
from vlmjax.train import metrics

STAGE = ["--config=experiments/demo.py:tiny", "--config.run=('align',)", "--config.stages.align.epochs=0.2", "--config.checkpoint.every=2",
         "--config.evaluate.after.align=('easy_vqa_caption',)", "--config.evaluate.after.contrast=()", "--config.evaluate.after.instruct=()", "--config.evaluate.split=test[:12]",
         "--config.logging.tensorboard=False"]


@pytest.fixture(scope="module", autouse=True)
def data_dir():
    easy_vqa.build(os.path.expanduser(DATA_DIR))


def start(workdir, count, *more, data_dirs=None, own=lambda i: ()):
    """One process per host, of 8 / `count` devices each."""
    base = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": xla_flags.flags(8 // count)}
    if count > 1:
        base |= {"VLMJAX_COORDINATOR": f"127.0.0.1:{free_port()}", "VLMJAX_PROCESSES": str(count)}
    command = lambda i: [sys.executable, "-m", "vlmjax", "train", *STAGE, *more, *own(i), f"--workdir={workdir}", f"--data_dir={data_dirs[i] if data_dirs else os.path.expanduser(DATA_DIR)}"]
    return [subprocess.Popen(command(i), env={**base, "VLMJAX_PROCESS_ID": str(i)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for i in range(count)]


def ended(processes):
    """[(exit status, the lines it printed)]; collectives on a CPU print lines of their own."""
    return [(status, [line for line in text.splitlines() if "[Gloo]" not in line]) for status, text in finish(processes, 300)]


def wait_for_a_checkpoint(workdir, processes):
    """While they train; it says at which step."""
    while all(process.poll() is None for process in processes):
        steps = [int(path.name) for path in (workdir / "stages" / "align").glob("*") if path.name.isdigit()]
        if steps:
            return max(steps)
        time.sleep(0.05)
    raise AssertionError(ended(processes))


def steps(workdir):
    return [(row["step"], row["batch"]) for row in metrics.read(workdir, "align")], [row["loss"] for row in metrics.read(workdir, "align")]


def test_processes_with_different_configs_do_not_train_together(tmp_path):
    outputs = ended(start(tmp_path / "run", 2, own=lambda i: [f"--config.seed={i}"]))
    assert [status for status, _ in outputs] == [2, 2] and all("were started with different configs" in lines[-1] for _, lines in outputs) and not (tmp_path / "run" / "config.json").exists()


def test_what_is_wrong_on_one_host_is_said_on_all_before_anything_is_written(tmp_path):
    good = os.path.expanduser(DATA_DIR)
    outputs = ended(start(tmp_path / "run", 2, data_dirs=[good, "/nowhere"]))
    assert [status for status, _ in outputs] == [2, 2]
    missing = "easy_vqa: /nowhere: not built; run: vlmjax data build easy_vqa --data_dir=/nowhere"
    assert outputs[1][1] == [f"vlmjax: {missing}"] or outputs[1][1][0].endswith(f"stopped: process 1 of 2 on {os.uname().nodename}: {missing}")
    assert outputs[0][1] == [f"vlmjax: process 1 of 2 on {os.uname().nodename}: {missing}"] or outputs[0][1][0].endswith(f"stopped: {missing}")
    assert not any(not path.name.startswith(".") for path in (tmp_path / "run").iterdir())


@pytest.mark.slow
def test_sigterm_to_one_host_stops_all_at_one_step(tmp_path):
    processes = start(tmp_path, 2, "--config.stages.align.epochs=4.0")
    wait_for_a_checkpoint(tmp_path, processes)
    processes[1].send_signal(signal.SIGTERM)
    began = time.monotonic()
    outputs = ended(processes)
    assert time.monotonic() - began < 30 and [status for status, _ in outputs] == [143, 143]
    (last,) = {lines[-1] for _, lines in outputs}
    assert f"vlmjax: align: process 1 of 2 on {os.uname().nodename} was asked to stop (SIGTERM); step " in last
    done = int(last.split("; step ")[1].split()[0])
    assert max(int(p.name) for p in (tmp_path / "stages" / "align").iterdir()) == done and len(steps(tmp_path)[0]) == done


@pytest.mark.slow
def test_a_killed_process_ends_the_others_and_any_number_of_hosts_ends_with_one_result(tmp_path):
    def whole(workdir, count):
        outputs = ended(start(workdir, count))
        assert [status for status, _ in outputs] == [0] * count, outputs

    whole(tmp_path / "one", 1)
    for count, again in ((4, 2), (2, 4)):
        workdir = tmp_path / f"{count} then {again}"
        processes = start(workdir, count)
        wait_for_a_checkpoint(workdir, processes)
        processes[1].kill()
        began = time.monotonic()
        outputs = ended(processes)
        assert time.monotonic() - began < 60
        for i, (status, lines) in enumerate(outputs):
            assert i == 1 or status == 1 and f"process 1 of {count} on {os.uname().nodename} is gone, without a word" in lines[-1], outputs
        whole(workdir, again)
        (order, losses), (expected, by_one) = steps(workdir), steps(tmp_path / "one")
        assert order == expected and losses == pytest.approx(by_one, rel=1e-4)
        scores = [json.loads((d / "results.json").read_text())["easy_vqa_caption"] for d in (workdir, tmp_path / "one")]
        assert {c: scores[0][c] for c in ("real", "blind", "prior")} == {c: scores[1][c] for c in ("real", "blind", "prior")}
        assert json.loads((workdir / "record.json").read_text())["starts"] == 2
