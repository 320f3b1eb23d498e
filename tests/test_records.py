"""Records and their JSON."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qzoo.errors import IntegrityError
from qzoo.records import (
    BuildInputs,
    CalibrationTable,
    QuantizerRange,
    Target,
    WeightsRecord,
    decode,
    digest_of,
    encode,
    file_digest,
)
from qzoo.spec import ROLES, Recipe

AMAX = st.floats(0, 2.0**99, allow_nan=False, width=32)
RANGES = st.builds(
    QuantizerRange,
    role=st.sampled_from(ROLES),
    amax=st.lists(AMAX, min_size=1, max_size=4).map(tuple),
    axis=st.none() | st.integers(0, 1),
    method=st.sampled_from(["max", "percentile:99.99"]),
)
TABLES = st.builds(
    CalibrationTable,
    calibrator=st.just("max"),
    samples=st.integers(1, 1000),
    sample_list_sha256=st.just("0" * 64),
    ranges=st.dictionaries(st.text("abc.01_", min_size=1, max_size=12), RANGES, max_size=5),
)
PROPERTY = settings(max_examples=100, deadline=None, derandomize=True)

INPUTS = BuildInputs(
    model="net",
    plugin_version="1",
    plugin_source_sha256="0" * 64,
    recipe=Recipe(target="openvino", precision="int8"),
    weights=WeightsRecord(kind="random", ref="seed 0", sha256="1" * 64, num_classes=2),
    sample_list_sha256="2" * 64,
    held_out_list_sha256="3" * 64,
    labels=("a", "b"),
    target=Target(runtime="openvino", isa="avx2", version="1"),
    versions={"torch": "2"},
    seed=0,
)


@PROPERTY
@given(TABLES)
def test_a_table_comes_back_from_its_json(table):
    assert decode(encode(table), CalibrationTable) == table


@PROPERTY
@given(TABLES, st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_change_the_bytes(table, random):
    items = list(table.ranges.items())
    random.shuffle(items)
    assert encode(replace(table, ranges=dict(items))) == encode(table)


def test_json_is_readable_and_ends_in_a_newline():
    data = encode(INPUTS)
    assert json.loads(data)["recipe"]["target"] == "openvino"
    assert data.endswith(b"}\n")
    assert b"\n  " in data


@pytest.mark.parametrize("damage", [lambda d: d[:-20], lambda d: d.replace(b'"seed": 0', b'"seed": "x"')])
def test_a_damaged_record_names_its_source(damage):
    with pytest.raises(IntegrityError, match=r"manifest\.json is not a valid BuildInputs") as raised:
        decode(damage(encode(INPUTS)), BuildInputs, "manifest.json")
    assert raised.value.exit_code == 6


CHANGES = {
    "model": "other",
    "plugin_version": "2",
    "plugin_source_sha256": "4" * 64,
    "recipe": replace(INPUTS.recipe, per_channel=False),
    "weights": replace(INPUTS.weights, sha256="5" * 64),
    "sample_list_sha256": "6" * 64,
    "held_out_list_sha256": "7" * 64,
    "labels": ("a", "c"),
    "target": replace(INPUTS.target, isa="avx512"),
    "versions": {"torch": "3"},
    "seed": 1,
}


def test_each_input_of_a_build_is_changed_below():
    assert set(CHANGES) == {field.name for field in fields(BuildInputs)}


@pytest.mark.parametrize("name", CHANGES)
def test_whatever_goes_into_a_build_changes_its_id(name):
    assert replace(INPUTS, **{name: CHANGES[name]}).bundle_id != INPUTS.bundle_id


def test_the_id_is_the_sha256_of_the_json():
    assert INPUTS.bundle_id == hashlib.sha256(encode(INPUTS)).hexdigest()


def test_digests_are_sha256(tmp_path):
    data = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(data)
    assert digest_of(data) == file_digest(tmp_path / "file") == hashlib.sha256(data).hexdigest()
    assert digest_of(["a", 1]) == hashlib.sha256(b'[\n  "a",\n  1\n]\n').hexdigest()


def test_without_vnni_weights_use_seven_bits():
    assert (INPUTS.target.weight_max, replace(INPUTS.target, vnni=False).weight_max) == (127, 63)
