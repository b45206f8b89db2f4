"""The HTTP server: one model, one answer at a time, the others wait in their order."""
import contextlib
import dataclasses
import http.server
import ipaddress
import json
import secrets
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from vlmjax import errors
from vlmjax.bundle import Bundle
from vlmjax.serve import page, protocol
from vlmjax.serve.protocol import Refused

JSON = "application/json"


@dataclasses.dataclass(frozen=True)
class Limits:
    """max_new_tokens: of an answer, also where a request says none. length: tokens of a prompt and its answer. waiting: requests at once. body: bytes of one. temperature: where a
    request says none, 0: the likeliest token."""

    max_new_tokens: int = 512
    length: int = 4096
    waiting: int = 32
    body: int = 64 << 20
    temperature: float = 0.0

    def __post_init__(self):
        errors.at_least("serve", self, max_new_tokens=1, length=2, waiting=1, body=1, temperature=0)


class Turns:
    """Who comes first is answered first; `most` at once, the one that is answered among them."""

    def __init__(self, most: int):
        self._most, self._line, self._changed = most, [], threading.Condition()

    @property
    def count(self) -> int:
        return len(self._line)

    @contextlib.contextmanager
    def mine(self) -> Iterator[None]:
        me = object()
        with self._changed:
            if len(self._line) >= self._most:
                raise Refused(f"{self._most} requests are waiting; try again later", None, 503, "overloaded")
            self._line.append(me)
            self._changed.wait_for(lambda: self._line[0] is me)
        try:
            yield
        finally:
            with self._changed:
                self._line.remove(me)
                self._changed.notify_all()


class Server(http.server.ThreadingHTTPServer):
    """model: what answers, under `name`. log: takes a line for each request."""

    daemon_threads = True

    def __init__(self, place: tuple[str, int], model: Bundle, name: str, limits: Limits = Limits(), log: Callable[[str], None] = lambda line: None):
        self.model, self.name, self.limits, self.log, self.turns = model, name, limits, log, Turns(limits.waiting)
        super().__init__(place, Handler)
        self.hosts = self._hosts(place[0])

    def _hosts(self, asked: str) -> set[str] | None:
        """The names that requests may have for this server. At an address of this machine alone they are its own: a page of another site whose name leads here is not one of them (DNS
        rebinding). None: whoever can reach it may call it as they like."""
        address = self.server_address[0]
        return {"localhost", "127.0.0.1", "[::1]", asked, address} if ipaddress.ip_address(address).is_loopback else None

    def handle_error(self, request, client_address):
        self.log(f"{client_address[0]}: the connection broke")


class Gone(Exception):
    """Nobody waits for the answer any more."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "vlmjax", ""
    timeout = 60  # seconds without a byte of a request
    server: Server

    def do_GET(self) -> None:
        routes: dict[str, Callable[[], None]] = {
            "/": lambda: self._send(200, page.html(self.server.name, self.server.model.layout is not None), "text/html; charset=utf-8"), "/page.js": lambda: self._send(200, page.SCRIPT, "text/javascript; charset=utf-8"),
            "/health": lambda: self._json(200, {"status": "ok", "requests": self.server.turns.count}), "/v1/models": lambda: self._json(200, {"object": "list", "data": [{"id": self.server.name, "object": "model", "created": 0, "owned_by": "vlmjax"}]})}
        self._answer(routes.get(self.path.partition("?")[0]), {"/v1/chat/completions"})

    do_HEAD = do_GET

    def do_POST(self) -> None:
        routes = {"/v1/chat/completions": self._complete}
        self._answer(routes.get(self.path.partition("?")[0]), {"/", "/page.js", "/health", "/v1/models"})

    def _answer(self, route: Callable[[], None] | None, other: set[str]) -> None:
        """Whatever goes wrong is one JSON object that says what."""
        began, self.said = time.monotonic(), None
        if self.command != "POST" and (self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers):
            self.close_connection = True  # its body would be taken for the next request
        try:
            self._check_host()
            if route is None:
                self.close_connection = True  # a body is not read
                known = self.path.partition("?")[0] in other
                raise Refused(f"{self.path}: {'takes another method' if known else 'is not here; POST /v1/chat/completions, GET /v1/models, /health and / are'}", None, 405 if known else 404, "not_found")
            route()
        except (Gone, BrokenPipeError, ConnectionResetError, TimeoutError):
            self.close_connection, self.said = True, "left before the end"
        except Refused as error:
            self._fail(error)
        except errors.UserError as error:
            self._fail(Refused(str(error)))
        except Exception as error:  # ours, not the client's
            self._fail(Refused(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}", None, 500, "internal_error"))
        said = f"{self.client_address[0]} {self.command} {self.path.partition('?')[0]}: {self.said}"
        said = "".join(char if char.isprintable() else "?" for char in said[:300])  # a log has one line for each request, whatever is in it
        self.server.log(f"{said}, {time.monotonic() - began:.2f} s")

    def _check_host(self) -> None:
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        name = host if host.endswith("]") else host.rpartition(":")[0] or host  # without its port
        if self.server.hosts is not None and name not in self.server.hosts:
            self.close_connection = True
            raise Refused("the Host is not this server's", None, 403, "forbidden")
        if origin is not None and origin.partition("://")[2] != host:
            self.close_connection = True
            raise Refused("the Origin is another site's", None, 403, "forbidden")

    # --- a completion ----------------------------------------------------------------------------------------------------------

    def _complete(self) -> None:
        model, limits = self.server.model, self.server.limits
        asked = protocol.read(self._body(), self.server.name, limits.temperature, sorted(model.tokenizer.control))
        most = min(asked.most or limits.max_new_tokens, limits.max_new_tokens)
        if asked.most and asked.most > limits.max_new_tokens:
            raise Refused(f"max_tokens: {asked.most} is more than the {limits.max_new_tokens} this server gives", "max_tokens")
        if len(asked.images) * model.processor.tokens_per_image + most > limits.length:
            raise Refused(f"messages: {len(asked.images)} images and an answer of {most} tokens are more than {limits.length}", "messages", code="context_length_exceeded")  # before any is decoded
        seed = secrets.randbits(32) if asked.seed is None else asked.seed
        about = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": self.server.name}
        with self.server.turns.mine():
            self._here()
            batch = model.conversation(asked.turns, asked.images)  # images of one request at a time are decoded
            prompt = int((batch["segments"] > 0).sum())
            if prompt + most > limits.length:
                raise Refused(f"messages: {prompt} tokens and an answer of {most} are more than {limits.length}", "messages", code="context_length_exceeded")
            pieces = protocol.until(model.speak(batch, limits.max_new_tokens, asked.sampling, seed), asked.stops, most)
            if asked.stream:
                tokens = self._stream(pieces, about, prompt, asked.usage)
            else:
                text, tokens, reason = "", 0, "length"
                for piece, tokens, ended in pieces:
                    text, reason = text + piece, ended or reason
                    self._here()
        if not asked.stream:
            self._json(200, protocol.completion(about, text, reason, protocol.usage(prompt, tokens)))
        self.said = f"200, {prompt} tokens, an answer of {tokens}"

    def _stream(self, pieces: Iterator[tuple[str, int, str | None]], about: dict[str, Any], prompt: int, usage: bool) -> int:
        """Server-sent events, as they come. An error behind the first is an event, too: the status has been sent."""
        self.send_response(200)
        for key, value in (("Content-Type", "text/event-stream"), ("Cache-Control", "no-cache"), ("Transfer-Encoding", "chunked")):
            self.send_header(key, value)
        self.end_headers()
        tokens = 0
        try:
            self._event(protocol.chunk(about, {"role": "assistant", "content": ""}))
            for text, tokens, reason in pieces:
                if text:
                    self._event(protocol.chunk(about, {"content": text}))
                if reason:
                    self._event(protocol.chunk(about, {}, reason))
                self._here()
            if usage:
                self._event(protocol.chunk(about, None, None, protocol.usage(prompt, tokens)))
        except (Gone, OSError):
            raise
        except Exception as error:
            self._event(Refused(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}", None, 500, "internal_error").body())
        self._event("[DONE]")
        self._chunk(b"")
        return tokens

    def _event(self, data: Any) -> None:
        self._chunk(f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode())

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _here(self) -> None:
        """Gone where the client has closed the connection: its answer is not computed to the end."""
        poll = select.poll()
        poll.register(self.connection, select.POLLIN)
        if poll.poll(0) and not self.connection.recv(1, socket.MSG_PEEK):
            raise Gone

    # --- HTTP ------------------------------------------------------------------------------------------------------------------

    def _body(self) -> Any:
        if (self.headers.get("Content-Type") or "").partition(";")[0].strip().lower() != JSON:  # what a page of another site cannot send unasked
            self.close_connection = True
            raise Refused(f"the Content-Type is not {JSON}", None, 415, "unsupported_media_type")
        length = self.headers.get("Content-Length") or ""
        if "Transfer-Encoding" in self.headers or not (length.isascii() and length.isdecimal() and len(length) < 19):
            self.close_connection = True
            raise Refused("the request has no Content-Length", None, 411, "length_required")
        if int(length) > self.server.limits.body:
            self.close_connection = True  # it is not read
            raise Refused(f"the body has {int(length):,} bytes, more than {self.server.limits.body:,}", None, 413, "too_large")
        try:
            return json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError) as error:
            raise Refused(f"the body is not JSON: {error}", None, 400, "invalid_json") from None

    def _fail(self, error: Refused) -> None:
        self.said = f"{error.status}, {error}"
        with contextlib.suppress(OSError):
            self._json(error.status, error.body(), {"Retry-After": "5"} if error.status == 503 else {})

    def _json(self, status: int, value: Any, headers: dict[str, str] = {}) -> None:
        self._send(status, json.dumps(value), JSON, headers)  # in ASCII, whatever a client's texts hold

    def _send(self, status: int, content: str, kind: str, headers: dict[str, str] = {}) -> None:
        data = content.encode()
        self.send_response(status)
        for key, value in {"Content-Type": kind, "Content-Length": str(len(data)), "X-Content-Type-Options": "nosniff", **({"Connection": "close"} if self.close_connection else {}), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
        self.said = self.said or str(status)

    def log_message(self, *args: Any) -> None:
        """One line for each request is written when it ends."""
