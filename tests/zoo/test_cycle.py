"""The command, from who builds to who runs: over a registry with a password, and over a server of files."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from docker_registry import PASSWORD, USER
from faulty import Fault, always, faulty, upstream
from PIL import Image
from sklearn.datasets import load_digits

from qzoo.store import Store

QZOO = Path(sys.executable).with_name("qzoo")


class Person:
    """Somebody with a QZOO_HOME of their own."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def __call__(self, *words: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [QZOO, *map(str, words)], input=stdin, capture_output=True, text=True, check=False, env=self.environment
        )

    @property
    def environment(self) -> dict[str, str]:
        left = {name: value for name, value in os.environ.items() if not name.startswith("QZOO_")}
        return {**left, "QZOO_HOME": str(self.home), "QZOO_CONFIG": str(self.home / "config.toml")}


@pytest.fixture
def builder(built_home, bundles, tmp_path) -> Person:
    """Who built resnet20:int8 for both CPU runtimes, and has a key."""
    person = Person(shutil.copytree(built_home, tmp_path / "builder"))
    assert person("key", "new").returncode == 0
    return person


@pytest.fixture
def user(builder, tmp_path) -> Person:
    """Who trusts the builder's key, and has nothing."""
    (tmp_path / "builder.pub").write_text(builder("key", "show").stdout)
    person = Person(tmp_path / "user")
    assert person("key", "trust", tmp_path / "builder.pub").returncode == 0
    return person


@pytest.fixture
def digit(tmp_path) -> Path:
    """A picture of a 3."""
    bunch = load_digits()
    Image.fromarray(np.rint(bunch.images[13] * 255 / 16).astype(np.uint8)).save(tmp_path / "three.png")
    assert bunch.target[13] == 3
    return tmp_path / "three.png"


def test_through_a_registry_with_a_password(builder, user, closed_registry, digit):
    where = ("--registry", f"{closed_registry.location}/cycle")
    refused = builder("push", "resnet20", *where)
    assert (refused.returncode, f"qzoo login {closed_registry.location}" in refused.stderr) == (3, True)
    for person in (builder, user):
        logged_in = person("login", closed_registry.location, "-u", USER, "--password-stdin", stdin=PASSWORD)
        assert logged_in.returncode == 0, logged_in.stderr
    pushed = builder("push", "resnet20", *where)
    assert pushed.returncode == 0, pushed.stderr
    assert "resnet20:int8" in user("catalog", *where).stdout
    pulled = user("pull", "resnet20:int8", *where)
    assert pulled.returncode == 0, pulled.stderr
    assert pulled.stdout.splitlines()[-1].startswith("Digest: sha256:")
    ran = user("run", "resnet20:int8", digit, "--json")
    assert json.loads(ran.stdout)["results"][0]["classes"][0]["label"] == "3"
    user("logout", closed_registry.location)
    assert user("pull", "resnet20:int8", *where).returncode == 3
    assert all(PASSWORD not in one.stdout + one.stderr for one in (refused, pushed, pulled, ran))


@pytest.fixture
def served(tmp_path) -> Iterator[str]:
    """The address of Python's own server of files, which shows tmp_path/zoo."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path / "zoo"))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_through_a_directory_that_a_server_of_files_shows(builder, user, served, tmp_path, digit):
    pushed = builder("push", "resnet20", "--registry", f"oci-layout:{tmp_path / 'zoo'}")
    assert pushed.returncode == 0, pushed.stderr
    assert user("config", "pull.registry", served).returncode == 0
    assert "resnet20:int8" in user("catalog").stdout
    assert user("tags", "resnet20").stdout == "resnet20:int8\n"
    pulled = user("pull", "resnet20", "--target", "onnxruntime", "--json")
    assert pulled.returncode == 0, pulled.stderr
    ran = user("run", "resnet20:int8", digit, "--json")
    assert json.loads(ran.stdout)["results"][0]["classes"][0]["label"] == "3"
    refused = builder("push", "resnet20", "--registry", served)
    assert (refused.returncode, "can only be read" in refused.stderr) == (2, True)


def test_a_pull_that_the_user_interrupts_keeps_what_came_and_goes_on_with_it(builder, user, prefix, bundles):
    assert builder("push", "resnet20", "--registry", prefix).returncode == 0
    digest = bundles["openvino"].manifest.files["engine.blob"].sha256
    part = user.home / "cache" / "pulls" / f"{digest}.part"
    with faulty(upstream(prefix.partition("/")[0]), always(Fault(pieces=4096, pause_s=0.05), digest)) as slow:
        where = f"{slow.location}/{prefix.partition('/')[2]}"
        words = [QZOO, "pull", "resnet20", "--registry", where, "--target", "openvino"]
        process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=user.environment)
        while process.poll() is None and not (part.exists() and part.stat().st_size > 40_000):
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        said = process.communicate()[1]
        assert (process.returncode, "interrupted" in said) == (130, True)
        kept = part.stat().st_size
        assert kept > 40_000
        assert Store(user.home).entries() == []
        slow.faults = lambda _: None
        again = json.loads(user("pull", "resnet20", "--registry", where, "--target", "openvino", "--json").stdout)
    (engine,) = [one for one in again["files"] if one["name"] == "engine.blob"]
    assert (engine["state"], engine["moved_bytes"]) == ("resumed", engine["size"] - kept)


def test_a_registry_that_lists_nothing_and_has_no_catalog_says_what_to_ask_instead(user, open_registry, prefix):
    def closed(asked):
        answer = upstream(open_registry.location)(asked)
        return answer if "_catalog" not in asked.path else type(answer)(403, {}, b"")

    with faulty(closed) as server:
        ended = user("catalog", "--registry", f"{server.location}/{prefix.partition('/')[2]}")
    assert (ended.returncode, "qzoo tags NAME" in ended.stderr) == (3, True)
