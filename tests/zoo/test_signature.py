"""Signatures beside the engines they sign: whose counts, and what no signature of another thing can be made to say."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qzoo.store.layout import MANIFEST, SIGNS, Descriptor
from qzoo.zoo.keys import PrivateKey
from qzoo.zoo.signature import EMPTY, EMPTY_BLOB, ENVELOPE, SIGNATURE, sign_child, verdict
from qzoo.zoo.trust import TrustStore

ALICE, BOB, EVE = PrivateKey.generate(), PrivateKey.generate(), PrivateKey.generate()
CHILD = Descriptor(mediaType=MANIFEST, digest=f"sha256:{'a' * 64}", size=1000)
OTHER = replace(CHILD, digest=f"sha256:{'b' * 64}")


@pytest.fixture
def trust(tmp_path) -> TrustStore:
    store = TrustStore(tmp_path)
    store.trust(ALICE.public, "alice")
    store.trust(BOB.public, "bob")
    return store


def signed(key: PrivateKey, child: Descriptor = CHILD, name: str = "net") -> bytes:
    return sign_child(child, key, name=name).manifest


def test_a_trusted_keys_signature_is_trusted_and_names_the_key(trust):
    found = verdict(CHILD.digest, [signed(ALICE)], trust, name="net")
    assert (found.status, found.key) == ("trusted", ALICE.public.id)


def test_a_mirrors_folders_change_nothing(trust):
    for signed_as, asked_as in (("net", "mirror/net"), ("team/net", "net"), ("a/b/net", "c/net")):
        assert verdict(CHILD.digest, [signed(ALICE, name=signed_as)], trust, name=asked_as).status == "trusted"


def test_without_a_signature_it_is_unsigned(trust):
    assert verdict(CHILD.digest, [], trust, name="net").status == "unsigned"


def test_an_unknown_keys_signature_is_untrusted_and_names_the_key(trust):
    found = verdict(CHILD.digest, [signed(EVE)], trust, name="net")
    assert (found.status, found.key) == ("untrusted", EVE.public.id)
    assert EVE.public.id in found.reason


def test_a_revoked_keys_signature_is_refused_though_it_was_trusted_when_it_was_made(trust):
    manifest = signed(ALICE)
    trust.revoke("alice")
    assert verdict(CHILD.digest, [manifest], trust, name="net").status == "revoked"


def test_one_trusted_signature_among_others_is_enough(trust):
    trust.revoke("bob")
    manifests = [signed(EVE), signed(BOB), b"junk", signed(ALICE), signed(ALICE, OTHER)]
    assert verdict(CHILD.digest, manifests, trust, name="net").status == "trusted"


def test_a_signature_of_another_child_is_invalid_and_both_digests_are_named(trust):
    found = verdict(CHILD.digest, [signed(ALICE, OTHER)], trust, name="net")
    assert found.status == "invalid"
    assert CHILD.digest in found.reason
    assert OTHER.digest in found.reason


def test_relabelling_a_signature_as_of_another_child_does_not_help(trust):
    document = json.loads(signed(ALICE, OTHER))
    document["annotations"][SIGNS] = CHILD.digest
    assert verdict(CHILD.digest, [json.dumps(document).encode()], trust, name="net").status == "invalid"


def test_a_signature_for_another_name_is_invalid(trust):
    found = verdict(CHILD.digest, [signed(ALICE, name="cats")], trust, name="dogs")
    assert found.status == "invalid"
    assert "it was signed as cats, not as dogs" in found.reason


def test_a_signature_that_claims_another_key_is_invalid(trust):
    document = json.loads(signed(EVE))
    envelope = json.loads(document["annotations"][ENVELOPE])
    envelope["signatures"][0]["keyid"] = ALICE.public.id
    envelope["payload"] = json.loads(json.loads(signed(ALICE))["annotations"][ENVELOPE])["payload"]
    document["annotations"][ENVELOPE] = json.dumps(envelope)
    assert verdict(CHILD.digest, [json.dumps(document).encode()], trust, name="net").status == "invalid"


def test_the_keyid_beside_a_signature_is_not_believed(trust):
    document = json.loads(signed(EVE))
    envelope = json.loads(document["annotations"][ENVELOPE])
    envelope["signatures"][0]["keyid"] = ALICE.public.id
    document["annotations"][ENVELOPE] = json.dumps(envelope)
    found = verdict(CHILD.digest, [json.dumps(document).encode()], trust, name="net")
    assert (found.status, found.key) == ("untrusted", EVE.public.id)


@given(st.binary(max_size=200))
def test_any_bytes_beside_a_child_are_an_invalid_signature(tmp_path_factory, data):
    trust = TrustStore(tmp_path_factory.getbasetemp() / "nobody")
    assert verdict(CHILD.digest, [data], trust, name="net").status == "invalid"


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", b'{"annotations":{}}', b'{"annotations":{"dev.qzoo.envelope":1}}', b"[" * 100_000, b"\xff"],
)
def test_a_manifest_that_is_no_signature_is_invalid(trust, data):
    assert verdict(CHILD.digest, [data], trust, name="net").status == "invalid"


def test_the_same_key_child_and_name_give_the_same_bytes():
    assert sign_child(CHILD, ALICE, name="net") == sign_child(CHILD, ALICE, name="x/net")


def test_a_sibling_is_an_image_manifest_of_ocis_empty_blob_with_its_descriptor():
    sibling = sign_child(CHILD, ALICE, name="net")
    document = json.loads(sibling.manifest)
    assert (document["mediaType"], document["artifactType"]) == (MANIFEST, SIGNATURE)
    # image-spec 1.1, manifest.md: the empty descriptor
    empty = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert document["config"]["digest"] == empty == EMPTY.digest
    assert [layer["digest"] for layer in document["layers"]] == [empty]
    assert (EMPTY_BLOB, EMPTY.size) == (b"{}", 2)
    assert sibling.descriptor.size == len(sibling.manifest)
    assert sibling.descriptor.annotations[SIGNS] == CHILD.digest == document["annotations"][SIGNS]
