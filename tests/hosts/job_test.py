"""What the processes of a job agree on, and how they end together."""
import signal
import time

from tests.hosts import running
from vlmjax.hosts import Job


def test_a_process_alone_agrees_with_itself():
    job = Job()
    assert job.gather(3) == [3] and job.share(lambda: "a") == "a" and job.stops() == ""
    job.close()


def test_values_are_gathered_in_order_and_the_first_is_shared():
    program = """
for n in range(20):
    time.sleep(0.01 * ((index + n) % 3))
    assert job.gather([index, n]) == [[i, n] for i in range(count)]
say(job.share(lambda: index if index == 0 else 1 / 0))
job.close()
"""
    assert running.finish(running.start(program, 3)) == [(0, "0")] * 3


def test_a_mistake_on_one_host_ends_the_block_on_all():
    program = """
try:
    with job.agreed():
        if index == 1: raise UserError("data.json: is missing")
except UserError as error:
    say(str(error).replace(names[1], "HOST"))
with job.agreed():
    pass
job.close()
"""
    assert running.finish(running.start(program, 3)) == [(0, "process 1 of 3 on HOST: data.json: is missing"), (0, "data.json: is missing"), (0, "process 1 of 3 on HOST: data.json: is missing")]


def test_who_fails_ends_all_with_its_status_and_its_words():
    for failing in (0, 1):
        program = f"""
if index == {failing}:
    time.sleep(0.5)
    job.fail("a row of nothing", 2)
threading.Event().wait(60)  # a collective that does not come
"""
        outputs = running.finish(running.start(program, 3))
        assert [status for status, _ in outputs] == [2, 2, 2]
        assert all(("stopped: " in text) == (i != failing) and text.endswith("a row of nothing") for i, (_, text) in enumerate(outputs))


def test_a_process_that_is_killed_is_named_on_the_others_within_seconds():
    for killed in (0, 2):
        processes = running.start("say('ready'); threading.Event().wait(60)", 3)
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        began = time.monotonic()
        processes[killed].kill()
        outputs = running.finish(processes)
        assert time.monotonic() - began < 10
        for i, (status, text) in enumerate(outputs):
            assert i == killed or status == 1 and f"process {killed} of 3 on " in text and "is gone, without a word" in text


STEPS = """
job.catch_termination(GRACE)
say("ready")
for step in range(1, 10**6):
    time.sleep(0.002 * (1 + index))
    if reason := job.stops():
        break
say(step, reason.replace(names[0], "HOST"))
job.close()
"""


def test_all_stop_at_one_step_when_one_is_asked_to():
    processes = running.start(STEPS.replace("GRACE", "20"), 3)
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    time.sleep(0.3)
    processes[1].send_signal(signal.SIGTERM)
    processes[2].send_signal(signal.SIGTERM)
    outputs = running.finish(processes)
    assert {status for status, _ in outputs} == {0} and len({text for _, text in outputs}) == 1
    assert outputs[0][1].split(" ", 1)[1] in ("process 1 of 3 on HOST was asked to stop (SIGTERM)", "process 2 of 3 on HOST was asked to stop (SIGTERM)")


def test_who_does_not_come_to_a_step_in_time_ends_as_it_is():
    processes = running.start("job.catch_termination(0.5)\nsay('ready')\nthreading.Event().wait(60)", 2)
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    processes[1].send_signal(signal.SIGTERM)
    outputs = running.finish(processes)
    assert [status for status, _ in outputs] == [143, 143] and all("before the next step; the same command resumes" in text for _, text in outputs)


def test_process_0_ends_last_however_slow_the_others_are():
    slow = "if index: sys.modules['vlmjax.hosts.job'].print = lambda *what, **how: (time.sleep(1 + index), print(*what, **how))\n"
    for end in ("job.barrier()\njob.leave('stopped at step 5', 143)", "if index == 1: job.fail('stopped at step 5', 143)\nthreading.Event().wait(60)"):
        processes = running.start(slow + end, 3)
        first = processes[0].wait(timeout=30)
        others = [process.wait(timeout=0.8) for process in processes[1:]]  # have ended already; the last of them would take a second more than its neighbour
        assert [first, *others] == [143] * 3 and all(text.endswith("stopped at step 5") for _, text in running.finish(processes))
