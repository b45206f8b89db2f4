"""Processes find each other, or say who is missing."""
import socket

import jax
import pytest

from tests.hosts import running
from vlmjax.errors import UserError
from vlmjax.hosts import meeting


def test_all_are_told_who_is_there():
    outputs = running.finish(running.start("say(index, names == [names[0]] * 3, address.split(':')[0], sorted(links)); job.close()", 3))
    assert outputs == [(0, "0 True 127.0.0.1 [1, 2]"), (0, "1 True 127.0.0.1 [0]"), (0, "2 True 127.0.0.1 [0]")]


def test_who_does_not_come_is_named_on_every_host_that_is_there():
    for status, text in running.finish(running.start("", 4, [0, 2], timeout=2.0)):
        assert status == 1 and text.startswith("Stopped processes 1, 3 of 4 did not come within 2 s (here: 0 on ") and "the same command has to run on every host" in text


def test_a_process_0_that_does_not_come_is_named():
    ((status, text),) = running.finish(running.start("", 2, [1], timeout=1.0))
    assert status == 1 and "process 0 does not answer at 127.0.0.1:" in text and "within 1 s" in text


def test_two_processes_of_one_number_are_refused():
    port = running.free_port()
    outputs = running.finish(running.start("", 3, [0, 1, 1], port=port))
    assert all("says it is process 1 of 3, which does not fit the 3 processes of this job or is there already" in text for _, text in outputs)
    assert outputs[0][0] == 2


def test_whatever_else_knocks_is_not_a_process():
    port = running.free_port()
    first = running.start("say(len(names)); job.close()", 2, [0], port=port)
    while True:
        try:
            stranger = socket.create_connection(("127.0.0.1", port))
            break
        except OSError:
            pass
    stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
    outputs = running.finish(first + running.start("say(len(names)); job.close()", 2, [1], port=port))
    assert outputs == [(0, "2"), (0, "2")]


@pytest.mark.parametrize("settings, message", [
    ({"VLMJAX_COORDINATOR": "here"}, "VLMJAX_COORDINATOR: 'here' is not HOST:PORT"),
    ({"VLMJAX_COORDINATOR": "a:99999", "VLMJAX_PROCESSES": "2", "VLMJAX_PROCESS_ID": "0"}, "VLMJAX_COORDINATOR: 'a:99999' is not HOST:PORT, with a port of 1 … 65535"),
    ({"VLMJAX_COORDINATOR": "a:0", "VLMJAX_PROCESSES": "2", "VLMJAX_PROCESS_ID": "0"}, "VLMJAX_COORDINATOR: 'a:0' is not HOST:PORT"),
    ({"VLMJAX_COORDINATOR": "a..b:9999", "VLMJAX_PROCESSES": "2", "VLMJAX_PROCESS_ID": "1"}, "VLMJAX_COORDINATOR: 'a..b' is not the name of a host"),
    ({"VLMJAX_COORDINATOR": "a:1", "VLMJAX_PROCESSES": "2"}, "VLMJAX_PROCESS_ID: '' is not a number"),
    ({"VLMJAX_COORDINATOR": "a:1", "VLMJAX_PROCESSES": "2", "VLMJAX_PROCESS_ID": "2"}, "VLMJAX_PROCESS_ID: 2 is not one of 0 … 1"),
    ({"VLMJAX_COORDINATOR": "a:1", "VLMJAX_PROCESSES": "2", "VLMJAX_PROCESS_ID": "1", "VLMJAX_TIMEOUT": "soon"}, "VLMJAX_TIMEOUT: 'soon' is not a number of seconds")])
def test_settings_that_mean_nothing_are_one_line(monkeypatch, settings, message):
    for name in (meeting.COORDINATOR, meeting.PROCESSES, meeting.PROCESS_ID, meeting.TIMEOUT):
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        meeting.connect()


def test_chips_without_a_cloud_are_used_alone_and_a_slice_that_is_not_found_is_refused(monkeypatch):
    def nothing(**settings):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.delenv(meeting.COORDINATOR, raising=False)
    monkeypatch.setattr(meeting, "on_tpu_vm", lambda: True)
    monkeypatch.setattr(jax.distributed, "initialize", nothing)
    assert meeting.connect().count == 1
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    with pytest.raises(UserError, match="this slice has 4 hosts, and JAX does not find them .*; set VLMJAX_COORDINATOR, "):
        meeting.connect()


def test_a_machine_without_chips_is_no_tpu_vm(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert not meeting.on_tpu_vm()
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.setattr(meeting.glob, "glob", lambda pattern: ["/dev/accel0"] if "accel" in pattern else [])
    assert meeting.on_tpu_vm()
