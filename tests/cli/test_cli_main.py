"""The command itself: its help, its exit codes, and what Ctrl-C leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from every_verb import EVERY_VERB

from qzoo.cli.main import VERBS
from qzoo.cli.store import VERBS as STORE_VERBS
from qzoo.store import Store


def test_help_lists_every_verb_with_what_it_does(qzoo):
    ended = qzoo("--help")
    assert ended.code == 0
    listed = dict(line.strip().split(maxsplit=1) for line in ended.out.partition("Commands:\n")[2].splitlines())
    assert listed.keys() == VERBS.keys()
    assert all(VERBS[verb].startswith(listed[verb].rstrip(".")) for verb in VERBS)


@pytest.mark.parametrize("words", [*EVERY_VERB, ("store",)], ids=" ".join)
def test_a_verbs_help_shows_examples_that_call_it(qzoo, words):
    ended = qzoo(*words, "--help")
    assert ended.code == 0
    examples = ended.out.partition("Examples:\n")[2].partition("\n\n")[0].splitlines()
    assert examples
    assert all(line.strip().startswith(" ".join(("qzoo", *words))) for line in examples)


def test_a_groups_help_lists_its_verbs_with_what_they_do(qzoo):
    listed = qzoo("store", "--help").out.partition("Commands:\n")[2].split()
    assert [word for word in listed if word in STORE_VERBS] == sorted(STORE_VERBS)


def test_h_is_help(qzoo):
    assert qzoo("-h").out == qzoo("--help").out


def test_version_is_the_distributions(qzoo):
    ended = qzoo("--version")
    assert (ended.code, ended.out.split()) == (0, ["qzoo,", "version", version("qzoo")])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["biuld"], "No such command 'biuld'"),
        (["store", "lss"], "No such command 'lss'"),
        (["build"], "Missing argument 'MODEL"),
        (["build", "resnet20", "--int9"], "No such option"),
        (["run", "resnet20:int8"], "Missing argument 'IMAGES...'"),
        (["export", "resnet20"], "Missing option '-o'"),
        (["build", "resnet20", "--calib-samples", "many"], "'many' is not a valid integer"),
        (["build", "resnet20", "--precision", "int7"], "'int7' is not one of"),
    ],
)
def test_words_that_are_off_end_with_2_and_say_which(qzoo, words, says):
    ended = qzoo(*words)
    assert ended.code == 2
    assert ended.out == ""
    assert says in ended.err


def test_the_script_ends_with_the_errors_code_and_says_it_in_one_line(script):
    ended = script("build", "resnet51")
    assert ended.code == 2
    assert ended.out == ""
    assert len(ended.err.splitlines()) == 1
    assert ended.err.startswith("qzoo: unknown model 'resnet51'; did you mean resnet50")


def test_what_is_not_a_qzoo_error_keeps_its_traceback(qzoo, monkeypatch):
    def break_down(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("qzoo.cli.list.load_registry", break_down)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        qzoo("list")


@pytest.fixture
def interrupted(home):
    """A build of resnet20 on a terminal, sent SIGINT as soon as it says that it calibrates: exit code, what it said."""
    terminal, its_end = os.openpty()
    command = [Path(sys.executable).with_name("qzoo"), "build", "resnet20", "--target", "onnxruntime"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(
        [*command, "--calib-samples", "1437"], stdout=subprocess.PIPE, stderr=its_end, env=environment
    ) as build:
        os.close(its_end)
        said = b""
        while b"calibrating" not in said:
            said += os.read(terminal, 4096)
        build.send_signal(signal.SIGINT)
        out, _ = build.communicate()
    while piece := _rest(terminal):
        said += piece
    os.close(terminal)
    return build.returncode, out.decode(), said.decode()


def _rest(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux: nobody holds the other end any more
        return b""


def test_ctrl_c_ends_with_130_leaves_nothing_half_written_and_the_next_build_works(interrupted, home, qzoo):
    code, out, said = interrupted
    assert (code, out) == (130, "")
    assert "qzoo: interrupted; nothing was left half-written" in said
    assert "Traceback" not in said
    assert Store(home).list() == []
    assert not list(home.glob("bundles/*"))
    assert not list(home.rglob(".tmp-*"))
    assert qzoo("build", "resnet20", "--precision", "fp32", "--target", "onnxruntime").code == 0
    assert [name for name, _ in Store(home).list()] == ["resnet20:fp32"]
