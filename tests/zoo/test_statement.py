"""The statement parser takes canonical statements, and nothing else raises anything else."""

from __future__ import annotations

import base64
import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qzoo.errors import SignatureError
from qzoo.zoo.envelope import seal, unseal
from qzoo.zoo.keys import PrivateKey
from qzoo.zoo.statement import LIMIT, EngineStatement, IndexStatement, encode, parse

KEY = PrivateKey.generate()
DIGEST = f"sha256:{'a' * 64}"
ENGINE = EngineStatement(name="net", digest=DIGEST, key=KEY.public.base64)
INDEX = IndexStatement(
    registry="r:5000", name="net", tag="int8", digest=DIGEST, version=3, expires=10, key=KEY.public.base64
)


@pytest.mark.parametrize("statement", [ENGINE, INDEX], ids=["engine", "index"])
def test_a_statement_survives_its_bytes_which_are_sorted_compact_json(statement):
    data = encode(statement)
    assert data == json.dumps(json.loads(data), sort_keys=True, separators=(",", ":")).encode()
    assert parse(data, type(statement)) == statement


def test_a_statement_of_one_type_is_not_taken_for_another():
    with pytest.raises(SignatureError):
        parse(encode(ENGINE), IndexStatement)
    with pytest.raises(SignatureError):
        parse(encode(INDEX), EngineStatement)


def changed(**fields: object) -> bytes:
    return json.dumps({**json.loads(encode(INDEX)), **fields}, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"\xff\xfe",
        encode(INDEX) + b"\n",
        b" " + encode(INDEX),
        encode(INDEX).replace(b'"version":3', b'"version":3,"version":3'),
        encode(INDEX).replace(b"net", b"\\u006eet"),
        changed(more=1),
        changed(version=-1),
        changed(version=2**53 + 1),
        changed(version=10**400),
        changed(version=3.0),
        changed(version="3"),
        changed(digest="a" * 64),
        changed(digest=f"sha256:{'A' * 64}"),
        changed(digest=f"{DIGEST}\n"),
        changed(key="AAAA"),
        changed(key=base64.b64encode(bytes(33)).decode()),
        changed(name="n" * LIMIT),
        b"[" * LIMIT,
        b'{"more":' + b"[" * (LIMIT - 8),
    ],
)
def test_what_is_not_canonical_is_refused(data):
    with pytest.raises(SignatureError):
        parse(data, IndexStatement)


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_a_signature_error_or_a_canonical_statement(data):
    for kind in (EngineStatement, IndexStatement):
        with contextlib.suppress(SignatureError):
            assert encode(parse(data, kind)) == data


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = sorted(json.loads(encode(INDEX)))


@given(st.dictionaries(st.sampled_from([*FIELDS, "more"]), JSON, max_size=3), st.sampled_from(FIELDS), st.booleans())
def test_a_statement_with_other_fields_is_refused_unless_it_is_canonical_too(fields, gone, drop):
    value = {**json.loads(encode(INDEX)), **fields}
    if drop:
        del value[gone]
    data = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    with contextlib.suppress(SignatureError):
        assert encode(parse(data, IndexStatement)) == data


@given(st.data())
def test_a_flipped_bit_anywhere_in_what_was_signed_is_noticed(data):
    document = json.loads(seal(ENGINE, KEY))
    payload = bytearray(base64.b64decode(document["payload"]))
    place = data.draw(st.integers(0, len(payload) * 8 - 1))
    payload[place // 8] ^= 1 << place % 8
    document["payload"] = base64.b64encode(payload).decode()
    with pytest.raises(SignatureError):
        unseal(json.dumps(document), EngineStatement)


@given(st.text(max_size=200) | JSON.map(json.dumps))
def test_any_text_is_a_signature_error(text):
    with pytest.raises(SignatureError):
        unseal(text, EngineStatement)


@pytest.mark.parametrize(
    "change",
    [
        {"payloadType": "application/json"},
        {"signatures": []},
        {"signatures": json.loads(seal(ENGINE, KEY))["signatures"] * 2},
        {"signatures": [{"keyid": "", "sig": "!"}]},
        {"signatures": [{"keyid": "", "sig": ""}]},
        {"payload": "é"},
        {"payload": "A" * 5 * LIMIT},
    ],
)
def test_an_envelope_that_is_not_as_it_was_sealed_is_refused(change):
    with pytest.raises(SignatureError):
        unseal(json.dumps({**json.loads(seal(ENGINE, KEY)), **change}), EngineStatement)


def test_what_is_signed_is_dsse_s_pre_authentication_encoding():
    document = json.loads(seal(ENGINE, KEY))
    body, kind = base64.b64decode(document["payload"]), document["payloadType"]
    signed = f"DSSEv1 {len(kind)} {kind} {len(body)} ".encode() + body
    assert KEY.public.verifies(base64.b64decode(document["signatures"][0]["sig"]), signed)
    assert document["signatures"][0]["keyid"] == KEY.public.id
