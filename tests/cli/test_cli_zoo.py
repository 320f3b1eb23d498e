"""qzoo push, pull, catalog and tags: from the machine that built to one that runs, with real engines."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from test_cli_schemas import check

from qzoo.records import FileEntry, Manifest, decode, digest_of, encode
from qzoo.store import Reference, Store

RUNTIMES = ("onnxruntime", "openvino")


@pytest.fixture
def zoo(qzoo, copied, folder, monkeypatch, tmp_path) -> str:
    """Where resnet20:int8 was pushed to for both CPU runtimes; QZOO_HOME is then another's, who trusts its key."""
    assert qzoo("key", "new").code == 0
    (tmp_path / "builder.pub").write_text(qzoo("key", "show").out)
    pushed = qzoo("push", "resnet20", "--registry", folder)
    assert pushed.code == 0, pushed.err
    assert pushed.out.splitlines()[-1].startswith("Digest: sha256:")
    monkeypatch.setenv("QZOO_HOME", str(tmp_path / "other"))
    assert qzoo("key", "trust", tmp_path / "builder.pub").code == 0
    return folder


@pytest.fixture
def folder(tmp_path) -> str:
    return f"oci-layout:{tmp_path / 'zoo'}"


def other(tmp_path) -> Store:
    return Store(tmp_path / "other")


def test_a_pulled_engine_runs_at_once_and_decides_as_the_one_that_was_built(script, zoo, digits, built_home, tmp_path):
    for runtime in RUNTIMES:
        pulled = script("pull", "resnet20:int8", "--registry", zoo, "--target", runtime)
        assert pulled.code == 0, pulled.err
        words = ("run", "resnet20:int8", *digits, "--target", runtime, "--json")
        ours, builders = script(*words), script(*words, QZOO_HOME=str(built_home))
        assert ours.code == 0, ours.err
        assert ours.json["results"] == builders.json["results"]


def test_without_a_target_the_engine_of_the_preferred_runtime_is_taken_and_it_is_said_why(qzoo, zoo, tmp_path):
    ended = qzoo("pull", "resnet20", "--registry", zoo)
    (entry,) = other(tmp_path).entries()
    first, *_, last = ended.out.splitlines()
    assert "runs here, preferred to onnxruntime/" in first
    assert last == f"Digest: sha256:{entry.sha256}"
    assert entry.target.startswith("openvino/")
    assert qzoo("store", "verify").code == 0


def test_pull_and_push_print_what_their_schemas_say(qzoo, zoo, tmp_path):
    found = qzoo("pull", "resnet20:int8", "--registry", zoo, "--json").json
    check("pull", found)
    assert found["trust"]["status"] == "trusted"
    assert found["rebuilt"] is False
    assert found["moved_bytes"] == sum(one["size"] for one in found["files"])
    assert Path(found["engine"]).is_file()
    again = qzoo("pull", "resnet20:int8", "--registry", zoo, "--json").json
    assert again["moved_bytes"] == 0
    assert again["digest"] == found["digest"]
    check("pull", qzoo("pull", "resnet20:int8", "--offline", "--json").json)
    check("catalog", qzoo("catalog", "--registry", zoo, "--json").json)
    check("tags", qzoo("tags", "resnet20", "--registry", zoo, "--json").json)
    pushed = qzoo("push", "resnet20", "--registry", f"oci-layout:{tmp_path / 'mirror'}", "--unsigned", "--json").json
    check("push", pushed)
    assert pushed["engines"][0]["signatures"] == 1


def test_the_default_registry_is_read_from_the_config_file_and_the_environment(qzoo, zoo, tmp_path, monkeypatch):
    monkeypatch.setenv("QZOO_CONFIG", str(tmp_path / "config.toml"))
    ended = qzoo("catalog")
    assert (ended.code, "no registry is named; give --registry" in ended.err) == (2, True)
    assert qzoo("config", "pull.registry", zoo).code == 0
    assert "resnet20:int8" in qzoo("catalog").out
    assert qzoo("tags", "resnet20").out == "resnet20:int8\n"
    assert qzoo("pull", "resnet20").code == 0
    monkeypatch.setenv("QZOO_REGISTRY", f"oci-layout:{tmp_path / 'empty'}")
    assert "holds nothing" in qzoo("catalog").out
    assert qzoo("pull", "resnet20").code == 7


def test_offline_takes_only_what_is_stored_and_checks_it(qzoo, zoo, tmp_path, monkeypatch):
    monkeypatch.setenv("QZOO_REGISTRY", "127.0.0.1:1")
    ended = qzoo("pull", "resnet20", "--offline")
    assert (ended.code, "not in the store" in ended.err) == (7, True)
    qzoo("pull", "resnet20", "--registry", zoo)
    ended = qzoo("pull", "resnet20", "--offline")
    assert ended.code == 0
    (entry,) = other(tmp_path).entries()
    assert ended.out.splitlines()[-1] == f"Digest: sha256:{entry.sha256}"
    other(tmp_path).open(entry).engine.write_bytes(b"edited")
    assert qzoo("pull", "resnet20", "--offline").code == 6


def test_an_untrusted_engine_is_not_pulled_and_the_ways_out_are_said(qzoo, zoo, tmp_path, monkeypatch):
    monkeypatch.setenv("QZOO_HOME", str(tmp_path / "stranger"))
    ended = qzoo("pull", "resnet20", "--registry", zoo)
    assert ended.code == 6
    assert all(way in ended.err for way in ("qzoo key trust", "--build", "--allow-untrusted"))
    assert Store(tmp_path / "stranger").entries() == []
    assert qzoo("pull", "resnet20", "--registry", zoo, "--allow-untrusted").code == 0


def test_an_untrusted_engine_is_rebuilt_from_its_portable_graph_and_then_runs(qzoo, zoo, tmp_path, monkeypatch, digits):
    monkeypatch.setenv("QZOO_HOME", str(tmp_path / "stranger"))
    found = qzoo("pull", "resnet20", "--registry", zoo, "--target", "onnxruntime", "--build", "--json").json
    assert found["rebuilt"] is True
    assert "rebuilt here from the portable graph" in found["reason"]
    ran = qzoo("run", "resnet20:int8", digits[0], "--target", "onnxruntime", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["results"][0]["classes"][0]["label"] == "0"


def for_another_version(store: Store, runtime: str) -> None:
    """Make the one engine of a runtime one that this machine's version of it doesn't load."""
    bundle = store.resolve(Reference.parse("resnet20:int8"), runtime)
    files = {path.name: path.read_bytes() for path in bundle.path.iterdir() if path.name != "manifest.json"}
    manifest = json.loads((bundle.path / "manifest.json").read_text())
    record = json.loads(files[f"{bundle.engine.name}.json"])
    for target in (manifest["inputs"]["target"], record["target"]):
        target["version"] = "0.0.1"
    files[f"{bundle.engine.name}.json"] = encode(record)
    changed = decode(encode(manifest), Manifest)
    inputs = changed.inputs
    entries = {
        name: FileEntry(sha256=digest_of(data), size_bytes=len(data))
        for name, data in files.items()
        if name != "measurement.json"
    }
    store.put("resnet20", "int8", replace(changed, id=inputs.bundle_id, files=entries), files)


def test_where_no_engine_fits_it_ends_with_7_and_lists_what_there_is_or_builds_one(
    qzoo, copied, folder, tmp_path, monkeypatch, digits
):
    for runtime in RUNTIMES:
        for_another_version(Store(copied), runtime)
    assert qzoo("push", "resnet20", "--registry", folder, "--unsigned").code == 0
    monkeypatch.setenv("QZOO_HOME", str(tmp_path / "other"))
    ended = qzoo("pull", "resnet20", "--registry", folder)
    assert ended.code == 7
    assert all(f"with {runtime} 0.0.1: this machine is {runtime}/" in ended.err for runtime in RUNTIMES)
    assert "--build" in ended.err
    assert qzoo("pull", "resnet20", "--registry", folder, "--target", "tensorrt").code == 7
    built = qzoo("pull", "resnet20", "--registry", folder, "--build", "--json")
    assert built.code == 0, built.err
    assert built.json["rebuilt"] is True
    assert built.json["version"] != "0.0.1"
    assert qzoo("run", "resnet20:int8", digits[0]).code == 0


def test_random_weights_are_not_pushed(qzoo, copied, folder):
    store = Store(copied)
    bundle = store.resolve(Reference.parse("resnet20:int8"), "onnxruntime")
    inputs = replace(bundle.manifest.inputs, weights=replace(bundle.manifest.inputs.weights, kind="random"))
    files = {path.name: path.read_bytes() for path in bundle.path.iterdir() if path.name != "manifest.json"}
    store.put("drawn", "int8", replace(bundle.manifest, id=inputs.bundle_id, inputs=inputs), files)
    ended = qzoo("push", "drawn", "--registry", folder, "--unsigned")
    assert (ended.code, "random weights" in ended.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("push", "nothing", "--registry", "oci-layout:x", "--unsigned"), 7, "not in the store"),
        (("push", "resnet20", "--registry", "oci-layout:x"), 2, "there is no key to sign with; make one: qzoo key new"),
        (("push", "resnet20", "--registry", "oci-layout:x", "--unsigned", "--key", "k"), 2, "contradicts --unsigned"),
        (("push", "resnet20", "--registry", "http://127.0.0.1:1", "--unsigned"), 3, "can't be reached"),
        (("pull", "resnet20", "--registry", "127.0.0.1:1"), 3, "can't be reached"),
        (("pull", "resnet20", "--registry", "oci-layout:x"), 7, "nothing called resnet20"),
        (("pull", "resnet20", "--registry", "http://192.0.2.1"), 2, "plain HTTP"),
        (("pull", "Resnet20", "--registry", "oci-layout:x"), 2, "is no reference"),
        (("pull", "resnet20", "--registry", "no registry"), 2, "is no registry"),
        (("tags", "resnet20:int8", "--registry", "oci-layout:x"), 2, "without a tag"),
        (("tags", "resnet20", "--registry", "oci-layout:x"), 7, "nothing called resnet20"),
    ],
)
def test_what_goes_wrong_ends_with_its_code_and_says_what_to_do(qzoo, built, tmp_path, monkeypatch, words, code, says):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("qzoo.zoo.retry.Backoff.wait", lambda *_: None)
    ended = qzoo(*words)
    assert (ended.code, ended.out) == (code, "")
    assert says in ended.err


LOADED = """
import sys
from qzoo.cli.main import entry
try:
    entry()
finally:
    print([name for name in ("torch", "torchvision", "timm", "onnxscript") if name in sys.modules], file=sys.stderr)
"""


def test_pulling_and_running_load_no_torch(zoo, digits):
    pull, run = ("pull", "resnet20", "--registry", zoo), ("run", "resnet20:int8", digits[0])
    for words in (pull, ("catalog", "--registry", zoo), run):
        command = [sys.executable, "-c", LOADED, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ})
        assert done.stderr.splitlines()[-1] == "[]", words


def test_a_store_can_be_read_as_a_zoo(qzoo, built_home, bundles, home):
    shutil.copytree(built_home / "store", home.parent / "theirs")
    ended = qzoo("pull", "resnet20", "--registry", f"oci-layout:{home.parent / 'theirs'}", "--allow-untrusted")
    assert ended.code == 0, ended.err


class OnTerminal(NamedTuple):
    """What a command left that was run on a terminal: its exit code, its stdout, and what the terminal showed."""

    code: int
    out: str
    err: str


def on_a_terminal(*words: object, answer: str = "") -> OnTerminal:
    """Run the installed script with a terminal as its stdin and stderr, on which `answer` is typed."""
    command = [Path(sys.executable).with_name("qzoo"), *map(str, words)]
    ours, its = pty.openpty()
    process = subprocess.Popen(command, stdin=its, stderr=its, stdout=subprocess.PIPE, text=True)
    os.close(its)
    os.write(ours, answer.encode())
    seen = b""
    with contextlib.suppress(OSError):  # what Linux ends a terminal with
        while data := os.read(ours, 65536):
            seen += data
    out = process.communicate()[0]
    os.close(ours)
    return OnTerminal(process.returncode, out, seen.decode())


def test_on_a_terminal_each_file_has_a_bar_and_what_was_kept_counts(zoo, tmp_path):
    done = on_a_terminal("pull", "resnet20", "--registry", zoo)
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1].startswith("Digest: sha256:")
    assert all(f"{name} (fetched)" in done.err for name in ("engine.blob", "portable.onnx", "manifest.json"))
    again = on_a_terminal("pull", "resnet20", "--registry", zoo)
    assert "engine.blob (already there)" in again.err
    assert on_a_terminal("pull", "resnet20", "--registry", zoo, "--quiet").err == ""


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("\n", 0), ("n\n", 6)])
def test_on_a_terminal_it_is_asked_whether_to_build(zoo, tmp_path, monkeypatch, answer, code):
    monkeypatch.setenv("QZOO_HOME", str(tmp_path / "stranger"))
    done = on_a_terminal("pull", "resnet20", "--registry", zoo, "--target", "onnxruntime", answer=answer)
    assert "Build one from the portable graph? [Y/n]" in done.err
    assert done.code == code, done.err
    assert ("rebuilt here" in done.out) == (code == 0)
