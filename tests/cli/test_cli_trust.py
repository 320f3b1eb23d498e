"""qzoo sign and verify, and what run, eval and bench make of engines that came from elsewhere."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import onnx
import pytest

from qzoo.pipeline import Options, make_plan
from qzoo.pipeline.build import stored
from qzoo.records import EngineRecord, decode, digest_of, encode
from qzoo.store import Bundle, Store

RUNTIMES = ("onnxruntime", "openvino")


@pytest.fixture
def received(built_home, bundles, home) -> Path:
    """QZOO_HOME: where the store of `built_home` was received, and nothing built."""
    shutil.copytree(built_home / "store", home / "store")
    return home


@pytest.fixture
def signed(qzoo, built_home, bundles, home, tmp_path, monkeypatch) -> Path:
    """QZOO_HOME: the same, the engines signed by their builder; tmp_path/builder.pub is the builder's key."""
    builder = shutil.copytree(built_home, tmp_path / "builder")
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("QZOO_HOME", str(builder))
        assert qzoo("key", "new").code == 0
        assert qzoo("sign", "resnet20:int8").code == 0
        (tmp_path / "builder.pub").write_text(qzoo("key", "show").out)
    shutil.copytree(builder / "store", home / "store")
    return home


VERBS = [("run", "IMAGE"), ("eval", "--samples", "20"), ("bench", "--duration", "0.1")]


@pytest.mark.parametrize("verb", VERBS, ids=lambda words: words[0])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_engine_from_elsewhere_is_loaded_only_if_that_is_allowed(qzoo, received, digits, verb, runtime):
    words = [verb[0], "resnet20:int8", "--target", runtime]
    words += [str(digits[3]) if word == "IMAGE" else word for word in verb[1:]]
    ended = qzoo(*words)
    assert (ended.code, ended.out) == (6, "")
    assert "is not loaded: it was not built here, and it has no signature" in ended.err
    assert "--allow-untrusted" in ended.err
    assert qzoo(*words, "--allow-untrusted").code == 0


def test_a_trusted_keys_engine_runs_and_a_revoked_keys_does_not(qzoo, signed, digits, tmp_path):
    untrusted = qzoo("run", "resnet20:int8", digits[3])
    assert (untrusted.code, "which isn't trusted here" in untrusted.err) == (6, True)
    assert "qzoo key trust" in untrusted.err
    qzoo("key", "trust", tmp_path / "builder.pub")
    assert (
        qzoo("run", "resnet20:int8", digits[3], "--top", "1", "--json").json["results"][0]["classes"][0]["index"] == 3
    )
    qzoo("key", "revoke", "builder")
    revoked = qzoo("run", "resnet20:int8", digits[3])
    assert (revoked.code, "which is revoked" in revoked.err) == (6, True)


def test_with_build_an_untrusted_engine_is_rebuilt_from_its_graph_and_run(qzoo, received, digits):
    ended = qzoo("run", "resnet20:int8", digits[5], "--target", "onnxruntime", "--build", "--top", "1", "--json")
    assert ended.code == 0, ended.err
    assert ended.json["results"][0]["classes"][0]["index"] == 5
    assert "rebuilt for onnxruntime/" in ended.err
    assert qzoo("run", "resnet20:int8", digits[5], "--target", "onnxruntime").code == 0


def test_a_build_is_not_answered_from_an_untrusted_bundle_with_its_id(received, built_home, bundles, registry):
    plan = make_plan(Options(model="resnet20", target="onnxruntime"), registry, received / "cache")
    assert plan.inputs.bundle_id == bundles["onnxruntime"].id
    assert stored(plan, Store(built_home)) == bundles["onnxruntime"]
    assert Store(received).find(plan.inputs.bundle_id) is not None
    assert stored(plan, Store(received)) is None


def test_an_exported_bundle_is_ones_own_where_it_was_built_and_nowhere_else(
    qzoo, copied, digits, tmp_path, monkeypatch
):
    place = tmp_path / "exported"
    assert qzoo("build", "resnet20", "--target", "onnxruntime", "-o", place).code == 0
    for engine in (place, place / "engine.onnx"):
        assert qzoo("run", engine, digits[0]).code == 0
    monkeypatch.setenv("QZOO_HOME", str(tmp_path / "another machine"))
    for engine in (place, place / "engine.onnx"):
        assert qzoo("run", engine, digits[0]).code == 6
        assert qzoo("run", engine, digits[0], "--allow-untrusted").code == 0


def replaced(bundle: Bundle, place: Path, engine: bytes) -> Path:
    """A copy of a bundle in which the engine and all digests of it are another's, as a forger would."""
    shutil.copytree(bundle.path, place)
    path = place / bundle.manifest.engine
    record = json.loads(path.with_name(f"{path.name}.json").read_text())
    record["sha256"], record["size_bytes"] = digest_of(engine), len(engine)
    for name, data in ((path.name, engine), (f"{path.name}.json", encode(record))):
        (place / name).unlink()
        (place / name).write_bytes(data)
    assert decode(encode(record), EngineRecord).sha256 == digest_of(engine)
    return place


def test_an_engine_with_all_its_digests_forged_is_refused(qzoo, copied, bundles, digits, tmp_path):
    engine = bundles["openvino"].engine.read_bytes() + b"\0"
    ended = qzoo("run", replaced(bundles["openvino"], tmp_path / "forged", engine), digits[0])
    assert (ended.code, "was not built here" in ended.err) == (6, True)


def test_external_data_is_refused_even_where_untrusted_engines_are_allowed(qzoo, home, bundles, digits, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(64 * 4))
    model = onnx.load(bundles["onnxruntime"].engine)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    place = replaced(bundles["onnxruntime"], tmp_path / "forged", model.SerializeToString())
    ended = qzoo("run", place, digits[0], "--allow-untrusted")
    assert (ended.code, ended.out) == (6, "")
    assert "in another file (../secret)" in ended.err


class Payload:
    """Its pickle makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_pickle_in_an_engines_place_is_not_run(qzoo, home, bundles, digits, tmp_path, runtime):
    engine = pickle.dumps(Payload(tmp_path / "ran"))
    place = replaced(bundles[runtime], tmp_path / "forged", engine)
    assert qzoo("run", place, digits[0]).code == 6
    assert qzoo("run", place, digits[0], "--allow-untrusted").code in {4, 6}
    assert not (tmp_path / "ran").exists()


def test_verify_says_of_each_engine_whether_and_why_it_may_be_loaded(qzoo, copied):
    found = qzoo("verify", "resnet20:int8", "--json").json
    assert {(one["trust"], one["target"].partition("/")[0]) for one in found["engines"]} == {
        ("built here", runtime) for runtime in RUNTIMES
    }
    assert found["damaged"] == []
    text = qzoo("verify", "all").out
    assert text.count("it was built here") == 2
    assert "files are as they were stored" in text


def test_verify_of_an_untrusted_engine_ends_with_6_and_names_the_key(qzoo, signed, tmp_path):
    ended = qzoo("verify", "resnet20:int8", "--target", "openvino", "--json")
    assert ended.code == 6
    ((engine),) = ended.json["engines"]
    assert (engine["trust"], engine["digest"][:7]) == ("untrusted", "sha256:")
    trusted = qzoo("key", "trust", tmp_path / "builder.pub", "--json").json
    assert engine["key"] == trusted["id"]
    ended = qzoo("verify", "all", "--json")
    assert ended.code == 0, ended.err
    assert {one["trust"] for one in ended.json["engines"]} == {"trusted"}


def test_verify_finds_a_flipped_byte_in_a_stored_blob_and_names_both_digests(qzoo, copied, bundles):
    store = Store(copied)
    sha256 = bundles["openvino"].record.sha256
    path = store.layout.blob_path(sha256)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    path.write_bytes(data)
    ended = qzoo("verify", "resnet20:int8", "--json")
    assert ended.code == 6
    assert {"path": str(path), "expected": sha256, "found": digest_of(bytes(data))} in ended.json["damaged"]
    assert f"expected sha256:{sha256}" in qzoo("verify", "all").out


def test_verify_of_a_directory_checks_its_files(qzoo, copied, bundles, tmp_path):
    place = shutil.copytree(bundles["openvino"].path, tmp_path / "mine")
    assert qzoo("verify", place).code == 0
    (place / "portable.onnx").unlink()
    (place / "calibration.json").unlink()
    (place / "calibration.json").write_text("{}")
    ended = qzoo("verify", place, "--json")
    assert ended.code == 6
    assert {Path(one["path"]).name: one["found"] for one in ended.json["damaged"]} == {
        "portable.onnx": None,
        "calibration.json": digest_of(b"{}"),
    }


def test_verify_of_an_engine_alone_compares_it_with_its_record(qzoo, copied, bundles, tmp_path):
    for file in (bundles["openvino"].engine, bundles["openvino"].engine.with_suffix(".blob.json")):
        shutil.copy(file, tmp_path / file.name)
    found = qzoo("verify", tmp_path / "engine.blob", "--json").json
    assert (found["files"], found["engines"][0]["trust"]) == (1, "built here")


@pytest.mark.parametrize(
    ("words", "code"),
    [(("all", "resnet20"), 2), (("all", "--target", "openvino"), 2), (("resnet50",), 7), (("./nowhere",), 2)],
)
def test_verify_of_what_is_not_there_is_refused(qzoo, copied, words, code):
    assert qzoo("verify", *words).code == code


def test_sign_keeps_the_digest_and_says_it_again(qzoo, copied, bundles):
    key = qzoo("key", "new", "--json").json
    before = {entry.target: f"sha256:{entry.sha256}" for entry in Store(copied).entries()}
    found = qzoo("sign", "resnet20:int8", "--json").json
    assert found["key"] == key["id"]
    assert {one["target"]: one["digest"] for one in found["signed"]} == before
    assert qzoo("sign", "resnet20:int8", "--json").json == found
    assert {entry.target: f"sha256:{entry.sha256}" for entry in Store(copied).entries()} == before


def test_signing_without_a_key_says_how_to_make_one(qzoo, copied):
    ended = qzoo("sign", "resnet20:int8")
    assert (ended.code, "make one: qzoo key new" in ended.err) == (2, True)


def test_what_was_pulled_unsigned_is_not_signed_by_accident(qzoo, received):
    qzoo("key", "new")
    assert qzoo("sign", "resnet20:int8").code == 6
    assert qzoo("sign", "resnet20:int8", "--allow-untrusted").code == 0
    assert qzoo("verify", "resnet20:int8").code == 0
