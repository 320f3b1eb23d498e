"""What somebody who may write to the zoo, but holds no trusted key, tries on those who pull from it."""

from __future__ import annotations

import json
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from machines import HERE
from small_bundles import make_bundle

from qzoo.errors import SignatureError, UntrustedEngine
from qzoo.store import Reference, Store, locate
from qzoo.store.layout import SIGNS, Descriptor
from qzoo.zoo.connect import connect
from qzoo.zoo.freshness import Tagged, list_referrer, referrers_tag, sign_index
from qzoo.zoo.gate import admit
from qzoo.zoo.keys import KeyRing, PrivateKey
from qzoo.zoo.pull import Pulled, Puller
from qzoo.zoo.push import push
from qzoo.zoo.remote import Document, Remote, index_of
from qzoo.zoo.signature import sign_child
from qzoo.zoo.trust import TrustStore

NET, CATS = Reference.parse("net:int8"), Reference.parse("cats:int8")
EVE = PrivateKey.generate()


@pytest.fixture
def zoo(publisher, put, folder) -> Remote:
    """A zoo with net:int8 as its publisher signed it."""
    put()
    remote = connect(f"oci-layout:{folder}")
    push(publisher, remote, NET, key=KeyRing(publisher.home).get())
    return remote


@pytest.fixture
def evil(tmp_path) -> Store:
    """The attacker's own builds: the same name, target and id, other code."""
    store = Store(tmp_path / "evil")
    manifest, files = make_bundle(weights="file", seed=666)
    store.put("net", "int8", manifest, files)
    return store


def pull(store: Store, remote: Remote, reference: Reference = NET) -> Pulled:
    puller = Puller(store, remote, HERE)
    selected = puller.select(reference)
    return puller.pull(selected, puller.choose(selected, None).offer)


def put_blobs(remote: Remote, store: Store, name: str = "net") -> Descriptor:
    """Put the attacker's bundle into the zoo, without a tag; its image manifest."""
    ((_, child),) = store.named(NET)
    for file in store.layout.files_of(child).values():
        remote.put_blob(name, file, store.layout.blob_path(file.sha256), lambda _: None)
    remote.put_document(name, child.digest, Document(store.layout.read(child)))
    return child


def signatures(remote: Remote) -> list[Descriptor]:
    return [one for one in remote.find("net", "int8").children() if SIGNS in one.annotations]


def retag(remote: Remote, children: list[Descriptor], name: str = "net") -> None:
    remote.put_document(name, "int8", index_of(children))


def refused(store: Store, remote: Remote, says: str, reference: Reference = NET) -> None:
    """The pull is refused before anything is fetched, and nothing is kept."""
    with pytest.raises(UntrustedEngine, match=says) as raised:
        pull(store, remote, reference)
    assert raised.value.exit_code == 6
    assert list(store.layout.stored()) == []
    assert store.entries() == []


def test_another_engine_that_the_attacker_signed_is_refused_and_the_key_named(zoo, evil, reader):
    child = put_blobs(zoo, evil)
    forged = sign_child(child, EVE, name="net")
    zoo.put_document("net", forged.descriptor.digest, Document(forged.manifest))
    retag(zoo, [child, forged.descriptor])
    refused(reader, zoo, f"signed by key {EVE.public.id}, which isn't trusted here")


def test_another_engine_under_the_publishers_signature_is_refused(zoo, evil, reader):
    child = put_blobs(zoo, evil)
    (genuine,) = signatures(zoo)
    document = json.loads(zoo.find("net", genuine.digest).data)
    document["annotations"][SIGNS] = child.digest
    forged = Document(json.dumps(document).encode())
    zoo.put_document("net", forged.digest, forged)
    retag(zoo, [child, forged.described()])
    refused(reader, zoo, "its signature is of another engine")


def test_a_genuine_signature_that_the_index_says_is_of_another_engine_is_refused(zoo, evil, reader):
    child = put_blobs(zoo, evil)
    (genuine,) = signatures(zoo)
    relabelled = Descriptor(
        mediaType=genuine.mediaType, digest=genuine.digest, size=genuine.size, annotations={SIGNS: child.digest}
    )
    retag(zoo, [child, relabelled])
    refused(reader, zoo, "its signature is of another engine")


def test_a_signed_engine_under_another_models_name_is_refused(zoo, folder, reader):
    for child in zoo.find("net", "int8").children():
        zoo.put_document("cats", child.digest, zoo.find("net", child.digest))
    retag(zoo, zoo.find("net", "int8").children(), "cats")
    refused(reader, zoo, "it was signed as net, not as cats", CATS)


def test_an_engine_whose_signature_was_taken_away_is_refused(zoo, reader):
    retag(zoo, [one for one in zoo.find("net", "int8").children() if SIGNS not in one.annotations])
    refused(reader, zoo, "it has no signature")


def test_many_signatures_by_nobody_do_not_make_one(zoo, evil, reader):
    child = put_blobs(zoo, evil)
    forged = [sign_child(child, PrivateKey.generate(), name="net") for _ in range(20)]
    for one in forged:
        zoo.put_document("net", one.descriptor.digest, Document(one.manifest))
    retag(zoo, [child, *(one.descriptor for one in forged)])
    refused(reader, zoo, "which isn't trusted here")


def test_the_engines_of_two_machines_in_one_tag_both_keep_their_signatures(zoo, reader, tmp_path):
    """And who trusts one of the two gets only that one's."""
    second = Store(tmp_path / "second")
    second.put("net", "int8", *make_bundle(runtime="onnxruntime", weights="file"))
    key = KeyRing(second.home).new("default")
    push(second, zoo, NET, key=key)
    assert len(signatures(zoo)) == 2
    assert pull(reader, zoo).trust.status == "trusted"
    puller = Puller(reader, zoo, HERE)
    selected = puller.select(NET)
    offer = puller.choose(selected, "onnxruntime").offer
    with pytest.raises(UntrustedEngine, match=key.public.id):
        puller.pull(selected, offer)
    TrustStore(reader.home).trust(key.public, "second")
    assert puller.pull(selected, offer).trust.key == key.public.id
    assert {entry.target.partition("/")[0] for entry in reader.entries()} == {"openvino", "onnxruntime"}


def test_a_key_that_is_revoked_after_a_pull_pulls_and_loads_nothing_any_more(zoo, reader):
    pull(reader, zoo)
    engine = locate("net:int8", reader)
    admit(engine, reader)
    TrustStore(reader.home).revoke("publisher")
    with pytest.raises(UntrustedEngine, match="which is revoked"):
        admit(engine, reader)
    with pytest.raises(SignatureError, match="is revoked"):
        pull(reader, zoo)


def state(remote: Remote, publisher: Store, **how: object) -> None:
    """State anew, by the publisher's key, what the tag means."""
    index = remote.find("net", "int8")
    tagged = Tagged(registry="", name="net", tag="int8")
    referrer = sign_index(index.descriptor, tagged, KeyRing(publisher.home).get(), **how)
    remote.put_document("net", referrers_tag(index.digest), Document(list_referrer(None, referrer)))


def test_a_tag_whose_statement_has_expired_is_refused_but_not_an_engine_by_its_digest(zoo, publisher, reader):
    state(zoo, publisher, valid=timedelta(seconds=-1))
    with pytest.raises(SignatureError, match="has expired on") as raised:
        pull(reader, zoo)
    assert raised.value.exit_code == 6
    assert list(reader.layout.stored()) == []
    child = next(one for one in zoo.find("net", "int8").children() if SIGNS not in one.annotations)
    assert pull(reader, zoo, Reference.parse(f"net@{child.digest}")).trust.status == "trusted"


def test_a_tag_whose_statement_was_taken_away_is_refused_once_it_had_one(zoo, reader, folder):
    pull(reader, zoo)
    place = Path(folder) / "index.json"
    listed = json.loads(place.read_bytes())
    listed["manifests"] = [
        one for one in listed["manifests"] if ":sha256-" not in one["annotations"]["org.opencontainers.image.ref.name"]
    ]
    place.write_text(json.dumps(listed))
    with pytest.raises(SignatureError, match="no trusted key states its version now"):
        pull(reader, zoo)


def test_an_older_list_with_its_genuine_statement_is_a_rollback(zoo, publisher, put, reader, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "older")
    put(seed=1)
    push(publisher, zoo, NET, key=KeyRing(publisher.home).get())
    pull(reader, zoo)
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "older", folder)
    with pytest.raises(SignatureError, match="was rolled back") as raised:
        pull(reader, zoo)
    assert raised.value.exit_code == 6


def test_a_statement_that_the_attacker_signed_does_not_make_an_old_list_new(zoo, reader):
    pull(reader, zoo)
    index = zoo.find("net", "int8")
    children = [one for one in index.children() if SIGNS not in one.annotations]
    retag(zoo, children)
    index = zoo.find("net", "int8")
    referrer = sign_index(index.descriptor, Tagged(registry="", name="net", tag="int8"), EVE, above=2**50)
    zoo.put_document("net", referrers_tag(index.digest), Document(list_referrer(None, referrer)))
    with pytest.raises(SignatureError, match="no trusted key states its version now"):
        pull(reader, zoo)
