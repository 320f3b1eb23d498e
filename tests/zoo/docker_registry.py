"""Debian's docker-registry as a process on a free port of this machine."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

USER, PASSWORD = "alice", "open sesame"
HTPASSWD = "alice:$2b$05$/VE9Fk1isqiFbiZHtQfW/OCNS/B41bpPTJ/Hg..HLtvTFVHEmMDEa\n"
"""bcrypt of the password, as `htpasswd -nB` makes it."""
CONFIG = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {root}}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


@dataclass(frozen=True)
class RunningRegistry:
    """Where it listens, and the directory it keeps its blobs in."""

    location: str
    root: Path

    def blob(self, digest: str) -> Path:
        """The file of a blob."""
        sha256 = digest.removeprefix("sha256:")
        return self.root / "docker/registry/v2/blobs/sha256" / sha256[:2] / sha256 / "data"


@contextmanager
def docker_registry(folder: Path, more: str = "") -> Iterator[RunningRegistry]:
    """Run one that keeps everything in `folder`. `more` are further lines of its configuration."""
    if shutil.which("docker-registry") is None:
        pytest.skip("docker-registry is not installed (Debian's package of that name)")
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    config = folder / "config.yml"
    config.write_text(CONFIG.format(root=folder / "data", port=port) + more)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", config], stdout=subprocess.DEVNULL, stderr=log)
    try:
        until_listening(port, process)
        yield RunningRegistry(f"127.0.0.1:{port}", folder / "data")
    finally:
        process.terminate()
        process.wait()


def with_password(folder: Path) -> str:
    """The configuration of one that wants USER and PASSWORD."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "htpasswd").write_text(HTPASSWD)
    return f"auth: {{htpasswd: {{realm: zoo, path: {folder / 'htpasswd'}}}}}\n"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until_listening(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(400):
        assert process.poll() is None, "docker-registry ended at once"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.025)
    raise AssertionError("docker-registry doesn't listen")
