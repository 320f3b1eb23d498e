"""From one machine's store to another's, through each kind of zoo: a registry, a folder, a server of files."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from faulty import Asked, Fault, always, faulty, files, upstream
from machines import HERE, Machine
from small_bundles import make_bundle

from qzoo.errors import IntegrityError, NoMatchError, SignatureError, UntrustedEngine, UsageError
from qzoo.store import Reference, Store
from qzoo.store.describe import ACCURACY, LICENCE, MODEL, OS, PRECISION, VERSION
from qzoo.store.layout import BUNDLE_ID, SIGNS, TARGET, Index
from qzoo.zoo.catalog import CATALOG, CatalogEntry, catalog, tags_of
from qzoo.zoo.connect import connect
from qzoo.zoo.keys import KeyRing
from qzoo.zoo.pull import Puller
from qzoo.zoo.push import push
from qzoo.zoo.remote import Document
from qzoo.zoo.trust import TrustStore

NET = Reference.parse("net:int8")


class Zoo:
    """Where to push to, and where to pull from: the same place, but for a server of files."""

    def __init__(self, to: str, origin: str) -> None:
        self.to, self.origin = connect(to), connect(origin)


@pytest.fixture(params=["registry", "folder", "files"])
def zoo(request, folder):
    if request.param == "registry":
        prefix = request.getfixturevalue("prefix")
        yield Zoo(prefix, prefix)
    elif request.param == "folder":
        yield Zoo(f"oci-layout:{folder}", f"oci-layout:{folder}")
    else:
        with faulty(files(folder)) as server:
            yield Zoo(f"oci-layout:{folder}", server.url)


def pushed(store: Store, remote, reference: Reference = NET, **how):
    return push(store, remote, reference, **{"key": KeyRing(store.home).get(), **how})


def pulled(store: Store, remote, reference: Reference = NET, target: str | None = None, here=HERE, **how):
    puller = Puller(store, remote, here)
    selected = puller.select(reference)
    return puller.pull(selected, puller.choose(selected, target).offer, **how)


def contents(bundle) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in bundle.path.iterdir()}


def test_what_is_pushed_is_pulled_byte_for_byte_under_the_same_name_and_digest(zoo, publisher, put, reader):
    put()
    put(runtime="onnxruntime")
    done = pushed(publisher, zoo.to)
    found = pulled(reader, zoo.origin)
    assert contents(found.bundle) == contents(publisher.resolve(NET, "openvino"))
    assert found.trust.status == "trusted"
    assert [(entry.name, entry.target, f"sha256:{entry.sha256}") for entry in reader.entries()] == [
        ("net:int8", "openvino/avx512_vnni+bf16", found.child.digest)
    ]
    assert [engine.target for engine in done.engines] == ["onnxruntime/avx512_vnni", "openvino/avx512_vnni+bf16"]
    assert found.child.digest in {engine.digest for engine in done.engines}
    assert list(reader.verify()) == []
    assert reader.gc().blobs == 0


def test_a_second_push_uploads_nothing_and_leaves_the_tag_as_it_is(zoo, publisher, put):
    put()
    first = pushed(publisher, zoo.to)
    assert first.uploaded_blobs == 5
    again = pushed(publisher, zoo.to)
    assert (again.uploaded_blobs, again.uploaded_bytes) == (0, 0)
    assert again.digest == first.digest


def test_a_second_pull_moves_no_blob(zoo, publisher, put, reader):
    put()
    pushed(publisher, zoo.to)
    assert {one.state for one in pulled(reader, zoo.origin).files} == {"fetched"}
    again = pulled(reader, zoo.origin)
    assert {one.state for one in again.files} == {"already there"}
    assert sum(one.moved_bytes for one in again.files) == 0


def test_a_files_that_was_edited_in_the_store_is_healed_by_a_pull(zoo, publisher, put, reader):
    put()
    pushed(publisher, zoo.to)
    bundle = pulled(reader, zoo.origin).bundle
    bundle.engine.write_bytes(b"edited")
    assert list(reader.verify())
    healed = pulled(reader, zoo.origin)
    assert contents(healed.bundle) == contents(publisher.resolve(NET))
    assert list(reader.verify()) == []


def test_a_pull_leaves_what_is_stored_for_other_targets(zoo, publisher, put, reader):
    put()
    put(runtime="onnxruntime")
    pushed(publisher, zoo.to)
    pulled(reader, zoo.origin)
    pulled(reader, zoo.origin, target="onnxruntime")
    assert [entry.target for entry in reader.entries()] == ["onnxruntime/avx512_vnni", "openvino/avx512_vnni+bf16"]


def test_engines_of_two_machines_merge_into_one_tag_and_each_keeps_its_own_signer(
    zoo, publisher, put, tmp_path, reader
):
    put()
    other = Store(tmp_path / "other")
    KeyRing(other.home).new("default")
    manifest, made = make_bundle("net", "onnxruntime", weights="file")
    other.put("net", "int8", manifest, made)
    pushed(publisher, zoo.to)
    pushed(other, zoo.to)
    assert pulled(reader, zoo.origin).trust.status == "trusted"
    with pytest.raises(UntrustedEngine, match="isn't trusted here") as raised:
        pulled(reader, zoo.origin, target="onnxruntime")
    assert raised.value.exit_code == 6
    TrustStore(reader.home).trust(KeyRing(other.home).get().public, "other")
    assert pulled(reader, zoo.origin, target="onnxruntime").trust.key == KeyRing(other.home).get().public.id


def test_two_runtime_versions_of_one_target_stand_in_one_tag_and_each_machine_gets_its_own(
    zoo, publisher, tmp_path, reader
):
    for version in ("1.0", "2.0"):
        store = Store(tmp_path / version)
        shutil.copytree(publisher.home / "keys", store.home / "keys")
        manifest, made = make_bundle("net", version=version, weights="file", engine_bytes=version.encode())
        store.put("net", "int8", manifest, made)
        pushed(store, zoo.to)
    for version in ("1.0", "2.0"):
        found = pulled(reader, zoo.origin, here=(Machine("openvino", version=version),))
        assert found.bundle.engine.read_bytes() == version.encode()


def test_a_new_engine_replaces_the_one_of_the_same_target(zoo, publisher, put, reader):
    put()
    pushed(publisher, zoo.to)
    put(seed=1)
    pushed(publisher, zoo.to)
    assert contents(pulled(reader, zoo.origin).bundle) == contents(publisher.resolve(NET))
    assert len(Puller(reader, zoo.origin, HERE).select(NET).offers) == 1


def test_pushes_at_the_same_time_both_survive(zoo, tmp_path):
    def machine(runtime: str) -> Store:
        store = Store(tmp_path / runtime)
        KeyRing(store.home).new("default")
        manifest, made = make_bundle("net", runtime, weights="file")
        store.put("net", "int8", manifest, made)
        return store

    stores = [machine(runtime) for runtime in ("openvino", "onnxruntime")]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda store: pushed(store, zoo.to), stores))
    index = zoo.origin.find("net", "int8").children()
    assert sorted(one.annotations[TARGET] for one in index if SIGNS not in one.annotations) == [
        "onnxruntime/avx512_vnni",
        "openvino/avx512_vnni+bf16",
    ]
    assert sum(SIGNS in one.annotations for one in index) == 2
    assert catalog(zoo.origin) == [
        CatalogEntry(reference="net:int8", targets=("onnxruntime/avx512_vnni 1.0", "openvino/avx512_vnni+bf16 1.0"))
    ]


# --- references


def test_a_digest_names_an_engine_whatever_its_tag_means_now(zoo, publisher, put, reader):
    put()
    old = pushed(publisher, zoo.to).engines[0].digest
    before = contents(publisher.resolve(NET))
    found = pulled(reader, zoo.origin, Reference.parse(f"net@{old}"))
    assert found.trust.status == "trusted"
    put(seed=1)
    pushed(publisher, zoo.to)
    found = pulled(reader, zoo.origin, Reference.parse(f"net:int8@{old}"), allow_untrusted=True)
    assert contents(found.bundle) == before


def test_a_digest_may_be_that_of_an_index(zoo, publisher, put, reader):
    put()
    put(runtime="onnxruntime")
    index = pushed(publisher, zoo.to).digest
    assert pulled(reader, zoo.origin, Reference.parse(f"net@{index}")).trust.status == "trusted"


def test_an_engine_that_is_named_by_its_digest_alone_is_stored_under_its_own_precision(zoo, publisher, reader):
    manifest, made = make_bundle("net", weights="file", precision="int8+fp16")
    publisher.put("net", "int8-fp16", manifest, made)
    digest = pushed(publisher, zoo.to, Reference.parse("net:int8-fp16")).engines[0].digest
    found = pulled(reader, zoo.origin, Reference.parse(f"net@{digest}"))
    assert found.trust.status == "trusted"
    assert [entry.name for entry in reader.entries()] == ["net:int8-fp16"]


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("net:int9", "there is net:int8"),
        ("other", "nothing called other: qzoo catalog lists"),
        (f"net@sha256:{'0' * 64}", "there is net:int8"),
    ],
)
def test_what_is_not_there_is_an_error_that_lists_what_is(zoo, publisher, put, reader, reference, says):
    put()
    pushed(publisher, zoo.to)
    with pytest.raises(NoMatchError, match=says) as raised:
        pulled(reader, zoo.origin, Reference.parse(reference))
    assert raised.value.exit_code == 7


# --- what is said of an engine


def test_the_annotations_say_what_an_engine_is_on_its_manifest_and_in_the_index(zoo, publisher, put, reader):
    put()
    pushed(publisher, zoo.to)
    (child, _) = zoo.origin.find("net", "int8").children()
    bundle = publisher.resolve(NET)
    expected = {
        BUNDLE_ID: bundle.id,
        TARGET: "openvino/avx512_vnni+bf16",
        VERSION: "1.0",
        OS: "linux",
        MODEL: "net",
        PRECISION: "int8",
        "dev.qzoo.plugin": "p",
        "dev.qzoo.plugin.version": "1",
        "dev.qzoo.weights": "1" * 64,
        "dev.qzoo.verified": "passed",
        "dev.qzoo.size_bytes": "5",
    }
    assert {key: child.annotations.get(key) for key in expected} == expected
    manifest = zoo.origin.find("net", child.digest)
    assert json.loads(manifest.data)["annotations"] == child.annotations


def test_accuracy_calibration_and_licence_of_a_real_engine_are_among_its_annotations(bundles, built_home):
    store = Store(built_home)
    ((_, child),) = store.named(Reference.parse("resnet20:int8"), "onnxruntime")
    measured, manifest = bundles["onnxruntime"].measurement, bundles["onnxruntime"].manifest
    assert float(child.annotations[ACCURACY]) == pytest.approx(measured.accuracy["engine"].fraction, abs=1e-6)
    assert child.annotations["dev.qzoo.calibration"] == manifest.files["calibration.json"].sha256
    assert child.annotations["dev.qzoo.weights"] == manifest.inputs.weights.sha256
    assert child.annotations[LICENCE] == "Apache-2.0"


def test_the_catalog_lists_names_tags_and_targets_and_no_tags_of_qzoos_own(zoo, publisher, put):
    put()
    put("twin", runtime="onnxruntime")
    pushed(publisher, zoo.to)
    pushed(publisher, zoo.to, Reference.parse("twin"))
    assert [(one.reference, one.targets) for one in catalog(zoo.origin)] == [
        ("net:int8", ("openvino/avx512_vnni+bf16 1.0",)),
        ("twin:int8", ("onnxruntime/avx512_vnni 1.0",)),
    ]
    assert tags_of(zoo.origin, "net") == ["int8"]
    assert len(zoo.origin.tags("net")) > 1


def test_a_zoo_without_a_catalog_is_looked_through(publisher, put):
    put()
    put("twin")
    (publisher.layout.root / "oci-layout").read_text()
    found = catalog(connect(f"oci-layout:{publisher.layout.root}"))
    assert [one.reference for one in found] == ["net:int8", "twin:int8"]


def test_a_push_stands_where_the_catalog_may_not_be_written(publisher, put, open_registry, prefix, reader, caplog):
    put()
    repository = prefix.partition("/")[2]

    def guarded(asked: Asked):
        answer = upstream(open_registry.location)(asked)
        return replace(answer, status=403) if f"{repository}/{CATALOG}/" in asked.path else answer

    with faulty(guarded) as server:
        remote = connect(f"{server.location}/{repository}")
        pushed(publisher, remote)
        assert "is pushed, but qzoo-catalog could not be updated" in caplog.text
        assert pulled(reader, remote).trust.status == "trusted"


# --- what is not pushed


def test_random_weights_are_not_pushed(zoo, publisher, put):
    put(weights="random")
    with pytest.raises(UsageError, match=r"random weights.* can't be pushed") as raised:
        pushed(publisher, zoo.to)
    assert raised.value.exit_code == 2
    assert zoo.to.tags("net") == []


def test_what_was_edited_in_the_store_is_not_pushed(zoo, publisher, put):
    put()
    publisher.resolve(NET).engine.write_bytes(b"edited")
    with pytest.raises(IntegrityError, match="was changed: expected sha256:"):
        pushed(publisher, zoo.to)
    assert zoo.to.find("net", "int8") is None


def test_what_somebody_else_built_is_pushed_on_with_its_own_signatures_only(zoo, publisher, put, reader, tmp_path):
    put()
    pushed(publisher, zoo.to)
    bundle = pulled(reader, zoo.origin)
    KeyRing(reader.home).new("default")
    mirror = connect(f"oci-layout:{tmp_path / 'mirror'}")
    pushed(reader, mirror)
    signers = [
        one.annotations["dev.qzoo.key"] for one in mirror.find("net", "int8").children() if SIGNS in one.annotations
    ]
    assert signers == [KeyRing(publisher.home).get().public.id]
    assert bundle.child.digest in {one.digest for one in mirror.find("net", "int8").children()}


def test_a_server_of_files_can_not_be_pushed_to(publisher, put, folder):
    put()
    with faulty(files(folder)) as server, pytest.raises(UsageError, match="oci-layout:DIR") as raised:
        pushed(publisher, connect(server.url))
    assert raised.value.exit_code == 2


# --- trust


def test_an_engine_that_nobody_signed_is_pulled_only_on_request(zoo, publisher, put, reader):
    put()
    pushed(publisher, zoo.to, key=None)
    with pytest.raises(UntrustedEngine, match=r"has no signature.*--build.*--allow-untrusted"):
        pulled(reader, zoo.origin)
    assert list(reader.layout.stored()) == []
    assert pulled(reader, zoo.origin, allow_untrusted=True).trust.status == "unsigned"


def test_a_tag_that_is_rolled_back_is_refused(publisher, put, reader, folder, tmp_path):
    remote = connect(f"oci-layout:{folder}")
    put()
    pushed(publisher, remote)
    shutil.copytree(folder, tmp_path / "old")
    put(seed=1)
    pushed(publisher, remote)
    pulled(reader, remote)
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "old", folder)
    with pytest.raises(SignatureError, match="rolled back") as raised:
        pulled(reader, remote)
    assert raised.value.exit_code == 6
    assert contents(reader.resolve(NET)) == contents(publisher.resolve(NET))


def test_an_index_that_says_of_an_engine_what_it_does_not_say_of_itself_is_refused(publisher, put, reader, folder):
    put()
    remote = connect(f"oci-layout:{folder}")
    pushed(publisher, remote)
    index = json.loads(remote.find("net", "int8").data)
    index["manifests"][0]["annotations"][ACCURACY] = "1.0"
    remote.put_document("net", "int8", Document(json.dumps(index).encode()))
    with pytest.raises(IntegrityError, match="doesn't say of itself"):
        pulled(reader, remote)


def test_a_signature_that_is_none_counts_for_nothing_and_is_not_kept(publisher, put, reader, folder):
    put()
    remote = connect(f"oci-layout:{folder}")
    pushed(publisher, remote, key=None)
    (child,) = remote.find("net", "int8").children()
    manifest = remote.find("net", child.digest).described()
    forged = replace(manifest, annotations={SIGNS: child.digest})
    index = Index(manifests=[child, forged])
    data = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json"}
    document = Document(json.dumps({**data, "manifests": [one.as_json() for one in index.manifests]}).encode())
    remote.put_document("net", "int8", document)
    with pytest.raises(UntrustedEngine):
        pulled(reader, remote)
    assert pulled(reader, remote, allow_untrusted=True).trust.status == "unsigned"
    assert reader.siblings(reader.entries()[0]) == []


# --- integrity of what is stored


def forge(remote, change) -> Reference:
    """Publish the manifest of net:int8 changed, as anybody could who may write there; the reference of it."""
    (child, *_) = remote.find("net", "int8").children()
    manifest = json.loads(remote.find("net", child.digest).data)
    change(manifest)
    document = Document(json.dumps(manifest).encode())
    remote.put_document("net", document.digest, document)
    return Reference.parse(f"net@{document.digest}")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda manifest: manifest["layers"].pop(0), "engine.blob is expected with"),
        (
            lambda manifest: manifest["layers"][0]["annotations"].update({"org.opencontainers.image.title": "../x"}),
            "outside",
        ),
        (
            lambda manifest: manifest["layers"][0]["annotations"].update({"org.opencontainers.image.title": "\x1b[2J"}),
            "outside",
        ),
        (lambda manifest: manifest["layers"][0].update(size=manifest["layers"][0]["size"] + 1), "byte|bytes"),
        (lambda manifest: manifest["layers"][0].update(digest="sha256:../../x"), "no sha256 digest"),
        (lambda manifest: manifest["annotations"].update({"dev.qzoo.id": "0" * 64}), "expected"),
        (lambda manifest: manifest["annotations"].update({"dev.qzoo.target": "openvino/other"}), "expected"),
        (lambda manifest: manifest["layers"].append(manifest["layers"][0]), "twice"),
        (lambda manifest: manifest.update(config=manifest["layers"][0]), "is not a valid Manifest"),
    ],
    ids=["missing", "outside", "control", "size", "digest", "id", "target", "twice", "config"],
)
def test_a_forged_manifest_puts_nothing_into_the_store(publisher, put, reader, folder, change, says):
    put()
    remote = connect(f"oci-layout:{folder}")
    pushed(publisher, remote)
    reference = forge(remote, change)
    with pytest.raises(Exception, match=says) as raised:
        pulled(reader, remote, reference, target="openvino", allow_untrusted=True)
    assert raised.value.exit_code in (3, 6)
    assert reader.entries() == []
    assert list((reader.home / "bundles").glob("*")) == []


def test_a_blob_that_was_changed_in_the_registrys_storage_is_refused_with_both_digests(
    publisher, put, reader, prefix, open_registry
):
    put()
    remote = connect(prefix)
    pushed(publisher, remote)
    engine = publisher.resolve(NET).manifest.files["engine.blob"]
    stored = open_registry.blob(f"sha256:{engine.sha256}")
    data = bytearray(stored.read_bytes())
    data[-1] ^= 1
    stored.write_bytes(data)
    try:
        found = hashlib.sha256(data).hexdigest()
        with pytest.raises(IntegrityError, match=f"engine.blob.*expected sha256:{engine.sha256}, found sha256:{found}"):
            pulled(reader, remote)
    finally:
        stored.unlink()
    assert reader.entries() == []


def test_blobs_that_a_gc_took_away_meanwhile_are_fetched_again(publisher, put, reader, folder, monkeypatch):
    put()
    remote = connect(f"oci-layout:{folder}")
    pushed(publisher, remote)
    receive, collected = Store.receive, []

    def after_gc(store, *words):
        if not collected:
            collected.append(store.gc())
        return receive(store, *words)

    monkeypatch.setattr(Store, "receive", after_gc)
    found = pulled(reader, remote)
    assert collected[0].blobs > 0
    assert list(reader.verify()) == []
    assert contents(found.bundle) == contents(publisher.resolve(NET))


# --- killed

PULL = """
import sys
sys.path[:0] = {folders!r}
from pathlib import Path
from machines import HERE
from qzoo.store import Reference, Store
from qzoo.zoo.connect import connect
from qzoo.zoo.pull import Puller
puller = Puller(Store(Path(sys.argv[1])), connect(sys.argv[2]), HERE)
selected = puller.select(Reference.parse("net:int8"))
puller.pull(selected, puller.choose(selected, None).offer)
"""


@pytest.mark.parametrize("through", ["registry", "files"])
def test_a_pull_that_is_killed_goes_on_where_it_was(publisher, reader, through, folder, request, tmp_path):
    engine = random.Random(3).randbytes(8 << 20)
    manifest, made = make_bundle("net", weights="file", engine_bytes=engine)
    publisher.put("net", "int8", manifest, made)
    if through == "files":
        pushed(publisher, connect(f"oci-layout:{folder}"))
        behind, suffix = files(folder), ""
    else:
        prefix = request.getfixturevalue("prefix")
        pushed(publisher, connect(prefix))
        behind, suffix = upstream(prefix.partition("/")[0]), f"/{prefix.partition('/')[2]}"
    digest = manifest.files["engine.blob"].sha256
    part = reader.cache / "pulls" / f"{digest}.part"
    with faulty(behind, always(Fault(pieces=1 << 16, pause_s=0.02), digest)) as server:
        where = server.url if through == "files" else f"{server.location}{suffix}"
        code = PULL.format(folders=[str(Path(__file__).parent), str(Path(__file__).parents[1])])
        process = subprocess.Popen([sys.executable, "-c", code, reader.home, where])
        while process.poll() is None and not (part.exists() and part.stat().st_size > 1 << 20):
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        kept = part.stat().st_size
        assert 1 << 20 < kept < len(engine)
        assert reader.entries() == []
        server.faults = lambda _: None
        server.asked.clear()
        found = pulled(reader, connect(where))
        (asked,) = [one for one in server.asked if one.method == "GET" and one.path.endswith(digest)]
    assert asked.headers["Range"] == f"bytes={kept}-"
    assert {one.state for one in found.files if one.name == "engine.blob"} == {"resumed"}
    assert found.bundle.engine.read_bytes() == engine
    assert not part.exists()
    assert list(reader.verify()) == []


def test_pulls_at_the_same_time_into_one_store_all_end_well(publisher, put, reader, prefix):
    put()
    put(runtime="onnxruntime")
    pushed(publisher, connect(prefix))
    code = PULL.format(folders=[str(Path(__file__).parent), str(Path(__file__).parents[1])])
    running = [subprocess.Popen([sys.executable, "-c", code, reader.home, prefix]) for _ in range(3)]
    assert [process.wait() for process in running] == [0] * 3
    assert [entry.target for entry in reader.entries()] == ["openvino/avx512_vnni+bf16"]
    assert contents(reader.resolve(NET)) == contents(publisher.resolve(NET, "openvino"))
    assert list(reader.verify()) == []
    assert list(reader.cache.rglob("*.part")) == []


# --- copied by others


@pytest.mark.parametrize("back", ["registry", "folder"])
def test_skopeo_copies_the_artifact_out_and_in_with_its_digests_unchanged(
    publisher, put, reader, prefix, tmp_path, back
):
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    put()
    put(runtime="onnxruntime")
    index = pushed(publisher, connect(prefix)).digest
    insecure = ["--src-tls-verify=false", "--dest-tls-verify=false"]

    def copy(source: str, target: str) -> None:
        command = ["skopeo", "copy", "--all", "--insecure-policy", *insecure, source, target]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    copy(f"docker://{prefix}/net:int8", f"oci:{tmp_path / 'out'}:net:int8")
    if back == "folder":
        remote = connect(f"oci-layout:{tmp_path / 'out'}")
    else:
        copy(f"oci:{tmp_path / 'out'}:net:int8", f"docker://{prefix}/mirror/net:int8")
        remote = connect(f"{prefix}/mirror")
    assert remote.find("net", "int8").digest == index
    found = pulled(reader, remote)
    assert found.trust.status == "trusted"
    assert contents(found.bundle) == contents(publisher.resolve(NET, "openvino"))
    assert [one.reference for one in catalog(remote)] == ["net:int8"] or back == "registry"


def test_the_same_build_from_two_machines_under_two_names_is_no_damage(publisher, put, reader, folder):
    """Both bundles have one id, and so one directory, though each was measured on its own machine."""
    put()
    remote = connect(f"oci-layout:{folder}")
    pushed(publisher, remote)
    manifest, made = make_bundle("net", weights="file")
    measured = json.loads(made["measurement.json"])
    reader.put(
        "mine", "int8", manifest, {**made, "measurement.json": json.dumps({**measured, "notes": ["here"]}).encode()}
    )
    pulled(reader, remote)
    assert {entry.name for entry in reader.entries()} == {"net:int8", "mine:int8"}
    assert len({entry.id for entry in reader.entries()}) == 1
    assert list(reader.verify()) == []
    reader.resolve(NET).engine.write_bytes(b"edited")
    assert list(reader.verify()) != []
