"""The engine for this machine is the one that runs on it, and what is said where there is none."""

from __future__ import annotations

import hashlib

import pytest
from machines import HERE, Machine

from qzoo.errors import NoMatchError
from qzoo.store.describe import OS, VERSION, VNNI, operating_system
from qzoo.store.layout import BUNDLE_ID, MANIFEST, SIGNS, TARGET, Descriptor
from qzoo.zoo.remote import index_of
from qzoo.zoo.resolve import buildable, choose, offers


def child(target: str, version: str = "1.0", **more: str) -> Descriptor:
    annotations = {TARGET: target, VERSION: version, BUNDLE_ID: "0" * 64, OS: operating_system(), VNNI: "true", **more}
    digest = hashlib.sha256(repr(sorted(annotations.items())).encode()).hexdigest()
    return Descriptor(mediaType=MANIFEST, digest=f"sha256:{digest}", size=1, annotations=annotations)


OPENVINO, ORT = child("openvino/avx512_vnni+bf16"), child("onnxruntime/avx512_vnni")


def found(*children: Descriptor, here=HERE):
    return offers(index_of(children), here)


def test_of_those_that_run_here_the_preferred_one_is_taken_and_the_others_are_named():
    choice = choose(found(ORT, OPENVINO), "net:int8", None)
    assert choice.offer.child == OPENVINO
    assert choice.reason == "runs here, preferred to onnxruntime/avx512_vnni"
    assert choice.fits


def test_the_order_of_preference_is_the_machines():
    assert choose(found(ORT, OPENVINO, here=HERE[::-1]), "net:int8", None).offer.child == ORT


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (child("openvino/avx2"), "this machine is openvino/avx512_vnni+bf16 with openvino 1.0"),
        (child("openvino/avx512_vnni+bf16", "2.0"), "this machine is openvino/avx512_vnni+bf16 with openvino 1.0"),
        (
            child("openvino/avx512_vnni+bf16", **{OS: "windows"}),
            f"it is for windows, this machine runs {operating_system()}",
        ),
        (child("openvino/avx512_vnni+bf16", **{VNNI: "false"}), "this machine is"),
        (child("tensorrt/sm90"), "no plugin here knows tensorrt"),
    ],
)
def test_what_is_for_another_machine_is_passed_over_and_the_reason_given_where_nothing_else_is(other, why):
    assert choose(found(other, ORT), "net:int8", None).offer.child == ORT
    with pytest.raises(NoMatchError, match="--build makes one from its portable graph") as raised:
        choose(found(other), "net:int8", None)
    assert why in str(raised.value)
    assert raised.value.exit_code == 7


def test_a_runtime_that_does_not_work_here_is_named_with_its_reason():
    here = (Machine("openvino", version=None), Machine("onnxruntime", version=None))
    with pytest.raises(NoMatchError, match=r"openvino is not installed.*") as raised:
        choose(found(ORT, OPENVINO, here=here), "net:int8", None)
    assert "onnxruntime is not installed" in str(raised.value)


@pytest.mark.parametrize("wanted", ["onnxruntime", "onnxruntime/avx512_vnni"])
def test_a_target_overrides_the_preference(wanted):
    choice = choose(found(ORT, OPENVINO), "net:int8", wanted)
    assert choice.offer.child == ORT
    assert choice.reason == "runs here, asked for with --target"


def test_a_target_also_takes_what_does_not_run_here_and_says_so():
    other = child("openvino/avx2")
    choice = choose(found(other, ORT), "net:int8", "openvino/avx2")
    assert choice.offer.child == other
    assert not choice.fits
    assert "doesn't run here" in choice.reason


def test_a_target_that_is_not_there_is_an_error_that_lists_what_is():
    with pytest.raises(NoMatchError, match="no engine for tensorrt; there is openvino/avx512_vnni") as raised:
        choose(found(ORT, OPENVINO), "net:int8", "tensorrt")
    assert raised.value.exit_code == 7


def test_of_two_versions_the_one_of_this_machine_is_taken():
    newer = child("openvino/avx512_vnni+bf16", "2.0")
    assert choose(found(newer, OPENVINO), "net:int8", None).offer.child == OPENVINO


def test_signatures_and_what_has_no_target_are_no_engines():
    signature = Descriptor(mediaType=MANIFEST, digest=f"sha256:{'1' * 64}", size=1, annotations={SIGNS: ORT.digest})
    stranger = Descriptor(mediaType=MANIFEST, digest=f"sha256:{'2' * 64}", size=1)
    assert [one.child for one in found(signature, ORT, stranger)] == [ORT]
    with pytest.raises(NoMatchError, match="holds no engine"):
        choose(found(signature, stranger), "net:int8", None)


def test_what_can_be_built_from_is_of_a_runtime_that_works_here():
    other = child("openvino/avx2")
    assert buildable(found(other, child("tensorrt/sm90")), HERE, None).child == other
    assert buildable(found(child("tensorrt/sm90")), HERE, None) is None
    assert buildable(found(other), (Machine("openvino", version=None),), None) is None
    assert buildable(found(other, ORT), HERE, "onnxruntime").child == ORT
