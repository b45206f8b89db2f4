"""The server over real connections, with the tiny model."""
import base64
import contextlib
import http.client
import json
import socket
import threading
import time

import numpy as np
import pytest

from tests.data.tiny import png
from tests.evaluate.tiny import model
from vlmjax import bundle
from vlmjax.data.example import Turn
from vlmjax.decode import Sampling
from vlmjax.serve import protocol, server

RED = np.full((16, 16, 3), (200, 0, 0), np.uint8)
URL = "data:image/png;base64," + base64.b64encode(png(RED)).decode()
LIMITS = server.Limits(max_new_tokens=6, length=64, waiting=2, body=100_000)


@contextlib.contextmanager
def running(limits=LIMITS):
    log = []
    with server.Server(("127.0.0.1", 0), model(), "tiny", limits, log.append) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        try:
            yield made.server_address[1], log
        finally:
            made.shutdown()


@pytest.fixture(scope="module")
def port():
    with running() as (number, _):
        yield number


def send(port, method, path, body=None, headers={}):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
    connection.request(method, path, data, {"Content-Type": "application/json", **headers})
    return connection.getresponse()


def ask(port, text="what color is it?", image=True, **fields):
    content = [*([{"type": "image_url", "image_url": {"url": URL}}] if image else []), {"type": "text", "text": text}]
    return send(port, "POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": content}], **fields})


def events(response):
    parts = response.read().decode().split("\n\n")
    assert parts[-2:] == ["data: [DONE]", ""]
    return [json.loads(part.removeprefix("data: ")) for part in parts[:-2]]


TURNS = (Turn("user", "<image>\nwhat color is it?"),)


def test_a_completion_is_the_models_reply(port):
    response = ask(port, model="tiny")
    found = json.loads(response.read())
    pieces = list(model().speak(model().conversation(TURNS, [png(RED)]), 6))
    assert response.status == 200 and found["object"] == "chat.completion" and found["model"] == "tiny"
    (choice,) = found["choices"]
    assert choice["message"] == {"role": "assistant", "content": model().reply(TURNS, [png(RED)], 6)} and choice["finish_reason"] == ("stop" if pieces[-1].ended else "length")
    prompt = 1 + 4 + 4  # <s>, the image, what color is it?
    assert found["usage"]["prompt_tokens"] >= prompt and found["usage"]["completion_tokens"] == pieces[-1].tokens == found["usage"]["total_tokens"] - found["usage"]["prompt_tokens"]


def test_a_stream_says_the_same_piece_by_piece(port):
    found = events(ask(port, stream=True, stream_options={"include_usage": True}))
    assert found[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""} and len({part["id"] for part in found}) == 1
    assert "".join(part["choices"][0]["delta"].get("content", "") for part in found[:-1]) == model().reply(TURNS, [png(RED)], 6)
    assert found[-2]["choices"][0]["finish_reason"] in ("stop", "length") and found[-1]["choices"] == [] and found[-1]["usage"]["completion_tokens"] > 0
    assert "usage" not in events(ask(port, stream=True))[-1]


def test_drawn_answers_hang_on_the_seed(port):
    say = lambda **fields: json.loads(ask(port, temperature=3.0, **fields).read())["choices"][0]["message"]["content"]
    assert say(seed=3) == say(seed=3) == model().reply(TURNS, [png(RED)], 6, Sampling(3.0), 3)
    assert len({say() for _ in range(6)}) > 1  # without one each draws its own


def test_an_answer_is_cut_at_its_own_limit(port):
    found = json.loads(ask(port, max_tokens=2).read())
    assert found["usage"]["completion_tokens"] <= 2 and model().reply(TURNS, [png(RED)], 6).startswith(found["choices"][0]["message"]["content"])


@pytest.mark.parametrize("fields, status, says", [
    ({"n": 3}, 400, "n: 3 is not supported"), ({"model": "other"}, 404, "'other' is not here"), ({"max_tokens": 7}, 400, "7 is more than the 6 this server gives"),
    ({"text": "red " * 80}, 400, "are more than 64")])
def test_what_is_refused_says_why(port, fields, status, says):
    response = ask(port, **fields)
    error = json.loads(response.read())["error"]
    assert response.status == status and says in error["message"] and error["type"] == "invalid_request_error"


def test_bodies_that_are_none(port):
    for body, headers, status in ((b"{", {}, 400), (b"[]", {}, 400), (b"{}", {}, 400), (b"{}", {"Content-Type": "text/plain"}, 415), (b" " * 100_001, {}, 413)):
        response = send(port, "POST", "/v1/chat/completions", body, headers)
        assert response.status == status and json.loads(response.read())["error"]["message"]
    broken = {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}]}]}
    assert "not a readable image" in json.loads(send(port, "POST", "/v1/chat/completions", broken).read())["error"]["message"]


def test_only_its_own_pages_reach_a_server_of_one_machine(port):
    for headers, status in (({"Host": "evil.example"}, 403), ({"Host": f"localhost:{port}"}, 200), ({"Host": f"127.0.0.1:{port}", "Origin": f"http://127.0.0.1:{port}"}, 200), ({"Origin": "http://evil.example"}, 403),
                            ({"Host": "[::1]:80"}, 200), ({"Host": "evil.example:127"}, 403)):
        assert send(port, "GET", "/health", None, headers).status == status, headers


def test_whatever_a_client_sends_is_answered(port):
    deep, half = b"[" * 100_000, '{"messages": [{"role": "user", "content": "\\ud800 what"}]}'
    ask_ = '{"messages": [{"role": "user", "content": "is it red?"}], '
    for body, says in ((deep[:90_000], "not JSON"), (half, "half of a character"), ('{"\\ud800": 1}', "is not known"), (ask_ + '"temperature": 1e999}', "between 1e-6 and 1e6"), (ask_ + '"temperature": 1e-40}', "between"),
                       (ask_ + f'"temperature": {"9" * 400}}}', "too large")):
        response = send(port, "POST", "/v1/chat/completions", body if isinstance(body, bytes) else body.encode())
        assert response.status == 400 and says in json.loads(response.read())["error"]["message"]
    assert send(port, "POST", "/v1/chat/completions", (ask_ + '"temperature": 1, "top_k": 10000000000}').encode()).status == 200
    many = {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": URL}}] * 20}]}
    assert "20 images and an answer of 6 tokens are more than 64" in json.loads(send(port, "POST", "/v1/chat/completions", many).read())["error"]["message"]


def test_a_body_where_none_belongs_is_no_request(port):
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 40\r\n\r\nGET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n")
        heard = b""
        with contextlib.suppress(ConnectionResetError):
            while data := client.recv(4096):
                heard += data
    assert heard.count(b"HTTP/1.1") == 1 and b"Connection: close" in heard


def test_a_log_has_a_line_for_each_request():
    with running() as (port, log):
        send(port, "POST", "/v1/chat/completions", {"a\n127.0.0.1 POST fake: 200\x1b[31m": 1}).read()
        until(lambda: log)
        assert len(log) == 1 and log[0].isprintable()


def test_other_places(port):
    assert json.loads(send(port, "GET", "/v1/models").read())["data"][0]["id"] == "tiny"
    assert json.loads(send(port, "GET", "/health").read()) == {"status": "ok", "requests": 0}
    for method, path, status in (("GET", "/v1/chat/completions", 405), ("POST", "/health", 405), ("GET", "/v1/other", 404), ("POST", "/", 405), ("PUT", "/", 501)):
        assert send(port, method, path).status == status
    page = send(port, "GET", "/")
    text = page.read().decode()
    assert page.getheader("Content-Type").startswith("text/html") and "<h1>tiny</h1>" in text and "default-src 'none'" in text and "http" not in text.replace("http-equiv", "")
    assert send(port, "HEAD", "/").read() == b"" and b"v1/chat/completions" in send(port, "GET", "/page.js").read()


def test_one_connection_carries_several_requests(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for status, body in ((400, {"messages": []}), (200, {"messages": [{"role": "user", "content": "is it red?"}]}), (400, {})):
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert response.status == status and response.read()


def slow(monkeypatch, held):
    """Answers that grow a token each time `held` is released, and the turns that were asked."""
    asked = []

    def speak(self, batch, *args):
        asked.append(batch)
        for n in range(1, 7):
            held.acquire(timeout=20)
            yield bundle.Piece("a", n, n == 6)

    monkeypatch.setattr(bundle.Bundle, "speak", speak)
    return asked


def test_who_comes_first_is_answered_first_and_one_too_many_is_sent_away(monkeypatch):
    held, answers = threading.Semaphore(0), []
    asked = slow(monkeypatch, held)
    with running() as (port, log):
        threads = [threading.Thread(target=lambda n=n: answers.append((n, ask(port, "is it red? " * n).status))) for n in (1, 2)]
        for n, thread in enumerate(threads, 1):
            thread.start()
            until(lambda n=n: json.loads(send(port, "GET", "/health").read())["requests"] == n)
        third = ask(port)
        assert third.status == 503 and third.getheader("Retry-After") and "2 requests are waiting" in json.loads(third.read())["error"]["message"]
        until(lambda: asked)
        assert len(asked) == 1
        held.release(12)
        for thread in threads:
            thread.join(20)
    assert sorted(answers) == [(1, 200), (2, 200)] and [int((batch["segments"] > 0).sum()) for batch in asked] == sorted(int((batch["segments"] > 0).sum()) for batch in asked)
    assert any("503" in line for line in log) and sum("an answer of" in line for line in log) == 2


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_nobody_waits_for_is_not_computed_to_the_end(monkeypatch, stream):
    held = threading.Semaphore(0)
    asked = slow(monkeypatch, held)
    with running() as (port, log):
        body = json.dumps({"messages": [{"role": "user", "content": "is it red?"}], "stream": stream}).encode()
        client = socket.create_connection(("127.0.0.1", port))
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        until(lambda: asked)
        client.close()
        held.release()
        until(lambda: any("left before the end" in line for line in log))
        held.release(6)
        assert ask(port, image=False).status == 200  # the next one has its turn


def test_what_goes_wrong_inside_is_an_event_and_the_server_goes_on(monkeypatch):
    def speak(self, batch, *args):
        yield bundle.Piece("a", 1, False)
        raise RuntimeError("out of\nmemory")

    with monkeypatch.context() as patched, running() as (port, log):
        patched.setattr(bundle.Bundle, "speak", speak)
        *_, last = events(ask(port, stream=True))
        assert last["error"]["message"] == "RuntimeError: out of memory" and last["error"]["type"] == "server_error"
        assert ask(port).status == 500
    with running() as (port, log):
        assert ask(port).status == 200


def until(true, seconds=20):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_limits_are_checked():
    with pytest.raises(protocol.UserError, match="serve.max_new_tokens: 0 is less than 1"):
        server.Limits(max_new_tokens=0)
