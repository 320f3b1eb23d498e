"""A server that answers as a real one behind it would, except where it is told to go wrong.

What is behind it is a registry (`Upstream`) or a directory (`Files`, with byte ranges). It notes each request.
"""

from __future__ import annotations

import http.client
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass(frozen=True)
class Asked:
    """A request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Fault:
    """How an answer goes wrong. `cut_after`: bytes of the body before the connection is cut.

    `change` makes another answer of the real one; `ask` another request of the one that came; `endless`: the body is
    sent again and again, in chunks; `pieces`: it is sent in pieces of that size, `pause_s` apart.
    """

    change: Callable[[Answer], Answer] = lambda answer: answer
    ask: Callable[[Asked], Asked] = lambda asked: asked
    cut_after: int | None = None
    endless: bool = False
    pieces: int | None = None
    pause_s: float = 0


def with_body(answer: Answer, body: bytes) -> Answer:
    """The same answer with another body, and as long as that."""
    return replace(answer, headers={**answer.headers, "Content-Length": str(len(body))}, body=body)


Behind = Callable[[Asked], Answer]
Faults = Callable[[Asked], "Fault | None"]


@dataclass
class Faulty:
    """The running server: its port, the requests so far, and which fault each request meets."""

    behind: Behind
    faults: Faults = lambda asked: None
    asked: list[Asked] = field(default_factory=list)
    sent_bytes: int = 0
    port: int = 0

    @property
    def location(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def blob_requests(self) -> list[Asked]:
        return [one for one in self.asked if one.method == "GET" and "/blobs/" in one.path]


def once(fault: Fault, matches: str = "/blobs/") -> Faults:
    """The first GET whose path has `matches` meets the fault."""
    return each([fault], matches)


def each(faults: list[Fault], matches: str = "/blobs/") -> Faults:
    """The GETs whose paths have `matches` meet these faults, one after the other, then none."""
    left, lock = list(faults), threading.Lock()

    def choose(asked: Asked) -> Fault | None:
        with lock:
            return left.pop(0) if asked.method == "GET" and matches in asked.path and left else None

    return choose


def always(fault: Fault, matches: str = "/blobs/") -> Faults:
    return lambda asked: fault if asked.method == "GET" and matches in asked.path else None


@contextmanager
def faulty(behind: Behind, faults: Faults = lambda asked: None) -> Iterator[Faulty]:
    """Run one."""
    state = Faulty(behind, faults)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"state": state}))
    server.daemon_threads = True
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    state: Faulty
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except OSError:  # the client went away
            self.close_connection = True

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        asked = Asked(self.command, self.path, dict(self.headers.items()), body)
        self.state.asked.append(asked)
        fault = self.state.faults(asked) or Fault()
        answer = fault.change(self.state.behind(fault.ask(asked)))
        self.send_response(answer.status)
        headers = {key: value for key, value in answer.headers.items() if key.lower() != "content-length"}
        for key, value in headers.items():
            self.send_header(key, value)
        if fault.endless:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            while True:
                self._sent(b"%x\r\n%b\r\n" % (len(answer.body), answer.body))
        length = answer.headers.get("Content-Length", str(len(answer.body)))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command == "HEAD":
            return
        whole = answer.body if fault.cut_after is None else answer.body[: fault.cut_after]
        step = fault.pieces or max(len(whole), 1)
        for start in range(0, len(whole), step):
            self._sent(whole[start : start + step])
            time.sleep(fault.pause_s)
        if fault.cut_after is not None:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = _serve  # noqa: N815 - http.server's own names

    def _sent(self, data: bytes) -> None:
        self.wfile.write(data)
        self.state.sent_bytes += len(data)


def upstream(location: str) -> Behind:
    """What the server at `host:port` answers."""

    def ask(asked: Asked) -> Answer:
        connection = http.client.HTTPConnection(location)
        try:
            connection.request(asked.method, asked.path, asked.body or None, asked.headers)
            response = connection.getresponse()
            body = response.read()
            hop = {"connection", "transfer-encoding"}
            headers = {key: value for key, value in response.getheaders() if key.lower() not in hop}
            return Answer(response.status, headers, body)
        finally:
            connection.close()

    return ask


def files(directory: Path) -> Behind:
    """What a server of files answers, as nginx does: with byte ranges."""

    def ask(asked: Asked) -> Answer:
        path = directory / asked.path.lstrip("/")
        if not path.is_file():
            return Answer(404, {}, b"")
        data = path.read_bytes()
        wanted = re.fullmatch(r"bytes=(\d+)-", asked.headers.get("Range", ""))
        if wanted is None:
            return Answer(200, {"Content-Length": str(len(data))}, b"" if asked.method == "HEAD" else data)
        start = int(wanted[1])
        if start >= len(data):
            return Answer(416, {"Content-Range": f"bytes */{len(data)}"}, b"")
        return Answer(206, {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}, data[start:])

    return ask
