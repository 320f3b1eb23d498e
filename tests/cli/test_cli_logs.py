"""-v, -q and --log-file, which every verb takes; and completion."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from every_verb import EVERY_VERB


def broken_plugin(tmp_path):
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "broken.py").write_text("raise RuntimeError('no luck')\n")
    return tmp_path / "plugins"


@pytest.mark.parametrize("words", EVERY_VERB, ids=" ".join)
def test_every_verb_takes_the_options(qzoo, words):
    shown = qzoo(*words, "--help").out
    for option in ("--verbose", "--quiet", "--log-file"):
        assert option in shown


def test_verbose_says_each_stage_on_stderr_and_leaves_stdout_alone(qzoo, built, digits):
    plain, verbose = qzoo("eval", "resnet20:int8", "--json"), qzoo("eval", "resnet20:int8", "--json", "-v")
    assert plain.err == ""
    assert "INFO    qzoo: evaluating, 360 steps" in verbose.err
    assert plain.json["top1"] == verbose.json["top1"]


def test_quiet_leaves_out_remarks_but_not_errors(qzoo, tmp_path):
    folder = broken_plugin(tmp_path)
    assert "was left out" in qzoo("list", "--plugin-dir", folder).err
    assert qzoo("list", "--plugin-dir", folder, "-q").err == ""
    ended = qzoo("info", "nosuch", "-q", "--plugin-dir", folder)
    assert ended.code == 2
    assert ended.err.startswith("qzoo: unknown model 'nosuch'")


def test_a_remark_is_said_once_and_by_the_script_too(script, tmp_path):
    folder = broken_plugin(tmp_path)
    assert script("list", "--plugin-dir", folder).err.count("was left out") == 1
    assert script("list", "--plugin-dir", folder, "-v").err.count("was left out") == 1
    assert script("list", "--plugin-dir", folder, "-q").err == ""


def test_the_log_file_has_remarks_and_tracebacks(qzoo, tmp_path):
    log = tmp_path / "log.txt"
    ended = qzoo("info", "nosuch", "--plugin-dir", broken_plugin(tmp_path), "--log-file", log)
    text = log.read_text()
    assert "Traceback" not in ended.err
    assert "qzoo info nosuch" in text
    assert "broken" in text
    assert "Traceback" in text
    assert "qzoo.errors.UnknownName" in text


def test_a_log_file_that_can_not_be_written_is_a_usage_error(qzoo, tmp_path):
    ended = qzoo("list", "--log-file", tmp_path / "no" / "folder.txt")
    assert ended.code == 2
    assert "can't be written" in ended.err


def test_no_handler_outlives_the_command(qzoo, tmp_path):
    loggers = (logging.getLogger(), logging.getLogger("qzoo"))
    before = [(logger.level, list(logger.handlers)) for logger in loggers]
    qzoo("list", "-vv", "--log-file", tmp_path / "log.txt")
    assert [(logger.level, list(logger.handlers)) for logger in loggers] == before


@pytest.mark.parametrize("handlers", ["[]", "[logging.StreamHandler(io.StringIO())]"], ids=["none", "one"])
def test_quantizing_leaves_the_root_logger_alone(handlers):
    code = (
        "import logging, io\n"
        f"mine = {handlers}; logging.getLogger().handlers[:] = mine\n"
        "from qzoo.quant.toolkit import TensorQuantizer\n"
        "TensorQuantizer('input')\n"
        "assert logging.getLogger().handlers == mine, logging.getLogger().handlers\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("words", "expected"),
    [("qzoo bu", "build"), ("qzoo build resnet2", "resnet20"), ("qzoo build resnet20 --target open", "openvino")],
)
def test_the_shell_completes(script, words, expected):
    ended = script(COMP_WORDS=words, COMP_CWORD=str(words.count(" ")), _QZOO_COMPLETE="bash_complete")
    assert ended.out.split() == [f"plain,{expected}"]


def test_references_in_the_store_are_completed(script, built):
    ended = script(COMP_WORDS="qzoo run resnet20", COMP_CWORD="2", _QZOO_COMPLETE="bash_complete")
    assert ended.out.split() == ["plain,resnet20:int8"]


@pytest.fixture
def in_bash(qzoo, built, tmp_path):
    """What bash completes of words as it breaks them: at colons too, each a word of its own."""
    file = tmp_path / "completion.bash"
    file.write_text(qzoo("completion", "bash").out)
    code = (
        'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); compopt() { :; }; _qzoo_completion qzoo\n'
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def complete(*words: str) -> list[str]:
        done = subprocess.run(
            ["bash", "-c", code, file, "qzoo", *words],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "PATH": path},
        )
        assert done.stderr == ""
        return done.stdout.split()

    return complete


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("sto",), ["store"]),
        (("store", "s"), ["show"]),
        (("store", "rm", "resnet20"), ["resnet20:int8"]),
        (("store", "rm", "resnet20", ":"), ["int8"]),
        (("store", "verify", "resnet20", ":", "in"), ["int8"]),
        (("bench", "resnet20", ":", "int8", "--target", "onnx"), ["onnxruntime"]),
        (("info", "resnet20"), ["resnet20", "resnet20:int8"]),
        (("config", "store.ls.j"), ["store.ls.json"]),
    ],
)
def test_bash_completes_references_with_their_colons(in_bash, words, expected):
    assert in_bash(*words) == expected
