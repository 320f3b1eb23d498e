"""What a tag means now: rollback and expiry are refused, and statements of anything else don't count."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qzoo.errors import IntegrityError, SignatureError
from qzoo.store.layout import INDEX, Descriptor
from qzoo.zoo.freshness import (
    FRESHNESS,
    Tagged,
    check_index,
    is_referrers_tag,
    list_referrer,
    referrers_tag,
    sign_index,
    stated_version,
)
from qzoo.zoo.keys import PrivateKey
from qzoo.zoo.signature import sign_child
from qzoo.zoo.trust import TrustStore

ALICE, EVE = PrivateKey.generate(), PrivateKey.generate()
OLD = Descriptor(mediaType=INDEX, digest=f"sha256:{'1' * 64}", size=100)
NEW = Descriptor(mediaType=INDEX, digest=f"sha256:{'2' * 64}", size=100)
TAG = Tagged(registry="r:5000", name="net", tag="int8")
NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def trust(tmp_path) -> TrustStore:
    store = TrustStore(tmp_path)
    store.trust(ALICE.public, "alice")
    return store


def stated(index: Descriptor, key: PrivateKey = ALICE, tagged: Tagged = TAG, when: datetime = NOW, **how) -> bytes:
    return list_referrer(None, sign_index(index, tagged, key, now=when, **how))


def check(referrers: bytes | None, index: Descriptor, trust: TrustStore, when: datetime = NOW):
    return check_index(referrers, TAG, index.digest, trust, origin="https://r:5000", now=when)


def test_a_trusted_statement_gives_the_version_and_how_long_it_holds(trust):
    found = check(stated(OLD, valid=30 * DAY), OLD, trust)
    assert (found.version, found.expires, found.key) == (int(NOW.timestamp()), NOW + 30 * DAY, ALICE.public.id)


def test_without_any_statement_so_far_nothing_is_known_and_nothing_refused(trust):
    assert check(None, OLD, trust) is None
    assert check(stated(OLD, EVE), OLD, trust) is None


def test_an_older_version_is_a_rollback_and_both_versions_are_named(trust):
    check(stated(NEW, when=NOW), NEW, trust)
    with pytest.raises(SignatureError, match="was rolled back") as raised:
        check(stated(OLD, when=NOW - DAY), OLD, trust)
    assert raised.value.exit_code == 6
    assert str(int(NOW.timestamp())) in str(raised.value)
    assert str(int((NOW - DAY).timestamp())) in str(raised.value)


def test_the_same_version_again_is_fine(trust):
    assert check(stated(NEW), NEW, trust) == check(stated(NEW), NEW, trust)


@pytest.mark.parametrize("kind", ["none", "untrusted", "of another index"])
def test_once_a_version_was_seen_a_tag_without_one_is_refused(trust, kind):
    check(stated(NEW), NEW, trust)
    referrers = {"none": None, "untrusted": stated(OLD, EVE), "of another index": stated(NEW)}[kind]
    with pytest.raises(SignatureError, match="no trusted key states its version now"):
        check(referrers, OLD, trust)


def test_an_expired_statement_is_refused(trust):
    referrers = stated(OLD, valid=DAY)
    check(referrers, OLD, trust, NOW + DAY - timedelta(seconds=1))
    with pytest.raises(SignatureError, match="expired on 2026-06-02 00:00 UTC") as raised:
        check(referrers, OLD, trust, NOW + DAY)
    assert raised.value.exit_code == 6


def test_an_expired_statement_leaves_no_trace(trust):
    with pytest.raises(SignatureError, match="expired"):
        check(stated(OLD, valid=DAY), OLD, trust, NOW + 2 * DAY)
    assert trust.highest("https://r:5000", "net", "int8") is None


def test_a_revoked_keys_statement_does_not_count(trust):
    check(stated(NEW), NEW, trust)
    trust.revoke("alice")
    with pytest.raises(SignatureError, match="is revoked"):
        check(stated(NEW), NEW, trust)


@pytest.mark.parametrize(
    "other", [replace(TAG, registry="evil:5000"), replace(TAG, name="cats"), replace(TAG, tag="fp32")], ids=str
)
def test_a_statement_of_another_registry_name_or_tag_is_not_replayed(trust, other):
    assert check(stated(OLD, tagged=other), OLD, trust) is None


def test_an_engines_signature_is_no_statement_of_a_tag(trust):
    sibling = sign_child(OLD, ALICE, name="net")
    document = json.loads(stated(OLD))
    document["manifests"][0]["annotations"] = json.loads(sibling.manifest)["annotations"]
    assert check(json.dumps(document).encode(), OLD, trust) is None


def test_a_newer_push_has_a_higher_version_even_where_its_clock_is_behind(trust):
    before = stated(OLD, when=NOW)
    later = stated(NEW, when=NOW - DAY, above=stated_version(before, trust, ALICE.public))
    assert stated_version(later, trust, ALICE.public) == stated_version(before, trust, ALICE.public) + 1


def test_a_version_that_no_trusted_key_states_does_not_count_for_the_next_one(trust):
    huge = stated(OLD, EVE, above=2**53 - 1)
    assert stated_version(huge, trust, ALICE.public) == 0
    assert stated_version(huge, trust, EVE.public) == 2**53
    trust.trust(EVE.public, "eve")
    assert stated_version(huge, trust, ALICE.public) == 2**53


def test_the_newest_of_several_statements_counts(trust):
    older = json.loads(stated(NEW, when=NOW - DAY))
    both = json.loads(stated(NEW, when=NOW))
    both["manifests"] = [*older["manifests"], *both["manifests"]]
    assert check(json.dumps(both).encode(), NEW, trust).version == int(NOW.timestamp())


def test_what_others_list_for_the_index_stays_and_an_older_statement_is_replaced(trust):
    foreign = {"mediaType": "x", "digest": f"sha256:{'9' * 64}", "size": 1, "artifactType": "application/spdx"}
    document = json.loads(stated(OLD))
    document["manifests"].insert(0, foreign)
    renewed = list_referrer(json.dumps(document).encode(), sign_index(OLD, TAG, ALICE, now=NOW + DAY))
    listed = json.loads(renewed)["manifests"]
    assert listed[0] == foreign
    assert [one.get("artifactType") for one in listed] == ["application/spdx", FRESHNESS]
    assert stated_version(renewed, trust, ALICE.public) == int((NOW + DAY).timestamp())


def test_a_referrer_is_a_manifest_with_the_index_as_its_subject():
    referrer = sign_index(OLD, TAG, ALICE, now=NOW)
    document = json.loads(referrer.manifest)
    assert document["subject"] == {"mediaType": INDEX, "digest": OLD.digest, "size": OLD.size}
    assert document["artifactType"] == FRESHNESS


def test_the_referrers_tag_is_the_specifications():
    assert referrers_tag(OLD.digest) == f"sha256-{'1' * 64}"
    assert is_referrers_tag(referrers_tag(OLD.digest))
    assert not is_referrers_tag("int8")
    assert not is_referrers_tag(f"sha256-{'1' * 63}")


@given(st.binary(max_size=200))
def test_any_bytes_for_referrers_are_an_integrity_error_or_nothing(tmp_path_factory, data):
    trust = TrustStore(tmp_path_factory.getbasetemp() / "nobody")
    with contextlib.suppress(IntegrityError):
        assert check(data, OLD, trust) is None


@pytest.mark.parametrize(
    "listed",
    [
        [{"artifactType": FRESHNESS}],
        [{"artifactType": FRESHNESS, "annotations": []}],
        [{"artifactType": FRESHNESS, "annotations": {"dev.qzoo.envelope": 5}}],
        [{"artifactType": FRESHNESS, "annotations": {"dev.qzoo.envelope": "{}"}}],
    ],
)
def test_a_listed_statement_that_is_none_does_not_count(trust, listed):
    assert check(json.dumps({"manifests": listed}).encode(), OLD, trust) is None
