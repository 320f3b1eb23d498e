"""A server on this machine that speaks the hub's protocol for one file: what a client asks before it downloads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def hub(repository: str, file: str, content: bytes) -> Iterator[tuple[str, list[str]]]:
    """The address of a hub that has one file in one repository, and the requests that it got, as "GET /path"."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            seen.append(f"{self.command} {self.path}")
            if self.path.startswith(f"/api/models/{repository}"):
                found = json.dumps({"id": repository, "sha": COMMIT, "siblings": [{"rfilename": file}]}).encode()
            elif self.path in (f"/{repository}/resolve/main/{file}", f"/{repository}/resolve/{COMMIT}/{file}"):
                found = content
            else:
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound" if repository in self.path else "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(found)))
            self.send_header("ETag", f'"{hashlib.sha256(found).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if body:
                self.wfile.write(found)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        server.server_close()
