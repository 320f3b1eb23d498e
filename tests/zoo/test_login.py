"""Logging in, against a docker-registry that wants a password and one that doesn't."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from docker_registry import PASSWORD, USER

from qzoo.cli.main import entry
from qzoo.errors import AuthenticationError, RemoteError, UsageError
from qzoo.zoo.credentials import Credentials
from qzoo.zoo.login import origin_at, try_login


@pytest.fixture
def login(monkeypatch, capsys, tmp_path):
    """`login("HOST", "-u", USER, stdin="...")` runs the verb and returns its exit code, stdout and stderr."""
    monkeypatch.setenv("QZOO_HOME", str(tmp_path / "home"))

    def run(*words: str, stdin: str = "", verb: str = "login") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["qzoo", verb, *words])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        code = 0
        try:
            entry()
        except SystemExit as end:
            code = int(end.code or 0)
        return (code, *capsys.readouterr())

    return run


@pytest.fixture
def kept(tmp_path) -> Credentials:
    return Credentials(tmp_path / "home")


def test_a_login_that_the_registry_takes_is_kept_for_its_origin(login, kept, closed_registry):
    code, out, err = login(closed_registry.location, "-u", USER, "--password-stdin", "--json", stdin=f"{PASSWORD}\n")
    assert (code, err) == (0, "")
    assert PASSWORD not in out
    assert kept.for_origin(f"http://{closed_registry.location}") == (USER, PASSWORD)
    assert kept.path.stat().st_mode & 0o777 == 0o600


def test_a_login_that_the_registry_refuses_is_not_kept_and_ends_with_3(login, kept, closed_registry):
    code, out, err = login(closed_registry.location, "-u", USER, "--password-stdin", stdin="hunter2\n")
    assert (code, out) == (3, "")
    assert "hunter2" not in err
    assert kept.origins() == []


def test_a_registry_that_is_not_there_is_said_and_the_login_kept(login, kept):
    code, _, err = login("127.0.0.1:1", "-u", USER, "--password-stdin", stdin="secret\n")
    assert code == 0
    assert "kept without having been tried" in err
    assert kept.for_origin("http://127.0.0.1:1") == (USER, "secret")


def test_logout_forgets_and_a_second_one_says_that_there_is_none(login, kept, open_registry):
    assert login(open_registry.location, "-u", USER, "--password-stdin", stdin="x")[0] == 0
    assert login(open_registry.location, "--json", verb="logout")[0] == 0
    assert kept.origins() == []
    code, _, err = login(open_registry.location, verb="logout")
    assert (code, "there is no login for" in err) == (2, True)


@pytest.mark.parametrize(
    ("words", "stdin", "says"),
    [
        (("-u", USER), "", "there is no terminal to ask for the password"),
        (("--password-stdin",), "x", "give -u USER too"),
        (("-u", USER, "--password-stdin"), "\n", "neither of them empty"),
        (("-u", "a:b", "--password-stdin"), "x", "without a colon"),
    ],
)
def test_half_a_login_is_refused_before_anything_is_asked(login, kept, words, stdin, says):
    code, out, err = login("127.0.0.1:1", *words, stdin=stdin)
    assert (code, out) == (2, "")
    assert says in err
    assert kept.origins() == []


def test_there_is_no_option_for_the_password_itself(login):
    code, _, err = login("127.0.0.1:1", "-u", USER, "--password", "x")
    assert (code, "No such option" in err) == (2, True)


@pytest.mark.parametrize(
    ("location", "origin"),
    [
        ("r.example.com", "https://r.example.com"),
        ("r.example.com:5000/team", "https://r.example.com:5000"),
        ("localhost:5000", "http://localhost:5000"),
        ("https://files.example.com/zoo", "https://files.example.com"),
    ],
)
def test_the_origin_is_https_but_for_this_machine(location, origin):
    assert origin_at(location) == origin


@pytest.mark.parametrize(
    "location", ["oci-layout:/tmp/zoo", "http://files.example.com/zoo", "https://a:b@x/zoo", "no one"]
)
def test_there_is_no_login_for_a_folder_or_over_plain_http(location):
    with pytest.raises(UsageError):
        origin_at(location)


def test_a_login_is_tried_with_what_was_given(closed_registry):
    try_login(closed_registry.location, USER, PASSWORD)
    with pytest.raises(AuthenticationError):
        try_login(closed_registry.location, "bob", PASSWORD)
    with pytest.raises(RemoteError):
        try_login("127.0.0.1:1", USER, PASSWORD)


def test_on_a_terminal_user_and_password_are_asked_for_and_the_password_is_not_shown(tmp_path, kept, closed_registry):
    if shutil.which("setsid") is None:
        pytest.skip("setsid is not installed")
    terminal, side = os.openpty()
    command = ["setsid", "--ctty", "--wait", Path(sys.executable).with_name("qzoo"), "login", closed_registry.location]
    environment = {**os.environ, "QZOO_HOME": str(tmp_path / "home")}
    with subprocess.Popen(command, stdin=side, stdout=side, stderr=side, env=environment) as process:
        os.close(side)
        shown = b""
        for asked, answer in ((b"user: ", USER), (b"assword: ", PASSWORD)):
            while asked not in shown:
                shown += os.read(terminal, 1024)
            os.write(terminal, f"{answer}\n".encode())
        while b"logged in to" not in shown:
            shown += os.read(terminal, 1024)
        assert process.wait(60) == 0
    os.close(terminal)
    assert PASSWORD.encode() not in shown
    assert kept.for_origin(f"http://{closed_registry.location}") == (USER, PASSWORD)
