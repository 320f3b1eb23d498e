"""What a build is refused for."""

from __future__ import annotations

import numpy as np
import pytest

from qzoo.errors import AccuracyGateError
from qzoo.pipeline.gates import check_accuracy, check_engine, check_export, check_finite
from qzoo.records import Accuracy, Fidelity, LayerError, Measurement, Target
from qzoo.spec import Recipe, Tolerances

INT8, BF16 = (Recipe(target="openvino", precision=precision) for precision in ("int8", "bf16"))
DEFAULT = Tolerances()


def fidelity(sqnr_db: float, top1: float | None = 1.0) -> Fidelity:
    return Fidelity(cosine=1.0, sqnr_db=sqnr_db, top1_agreement=top1, samples=100)


def measurement(correct: tuple[int, int] | None, cost: float | None, *, trained: bool = True) -> Measurement:
    scores = None if correct is None else {"float": correct[0], "engine": correct[1]}
    return Measurement(
        target=Target(runtime="openvino", isa="avx2", version="1"),
        verified="passed",
        size_bytes={"float": 1, "engine": 1},
        latency={},
        accuracy=scores and {side: Accuracy(correct=value, total=200) for side, value in scores.items()},
        fidelity=fidelity(30, 1.0 if trained else None),
        export_fidelity=None,
        engine_fidelity=None,
        lowering_cost_db=cost,
        data="digits",
    )


@pytest.mark.parametrize(
    ("found", "quantization", "passes"), [(45.0, 60.0, True), (44.9, 60.0, False), (44.9, 40.0, True)]
)
def test_an_export_is_held_to_45_db_or_to_what_rounding_allows(found, quantization, passes):
    if passes:
        check_export(fidelity(found), fidelity(quantization), DEFAULT, "net")
    else:
        with pytest.raises(AccuracyGateError, match=r"net is 44\.9 dB.*allowed are 45\.0 dB") as raised:
            check_export(fidelity(found), fidelity(quantization), DEFAULT, "net")
        assert raised.value.exit_code == 5


def test_an_export_as_far_from_its_network_as_twice_the_quantization_noise_passes_and_further_does_not():
    check_export(fidelity(16.0), fidelity(20.0), DEFAULT, "net")
    with pytest.raises(AccuracyGateError):
        check_export(fidelity(15.9), fidelity(20.0), DEFAULT, "net")


def test_a_float_export_is_held_to_45_db():
    with pytest.raises(AccuracyGateError):
        check_export(fidelity(44.9), None, DEFAULT, "net")


@pytest.mark.parametrize(
    ("found", "quantization", "passes"), [(35.0, 60.0, True), (34.9, 60.0, False), (30.0, 33.0, True)]
)
def test_an_engine_is_held_to_35_db_or_to_what_rounding_allows(found, quantization, passes):
    if passes:
        check_engine(fidelity(found), fidelity(quantization), INT8, "openvino")
    else:
        with pytest.raises(AccuracyGateError, match=r"the openvino engine is 34\.9 dB from its lowered graph"):
            check_engine(fidelity(found), fidelity(quantization), INT8, "openvino")


def test_an_engine_must_decide_as_its_lowered_graph():
    check_engine(fidelity(40, 0.995), fidelity(30, 1.0), INT8, "openvino")
    with pytest.raises(AccuracyGateError, match=r"98\.00%.*allowed are 99\.00%"):
        check_engine(fidelity(40, 0.98), fidelity(30, 1.0), INT8, "openvino")


def test_an_engine_need_not_decide_more_alike_than_quantization_leaves_it():
    check_engine(fidelity(40, 0.94), fidelity(30, 0.95), INT8, "openvino")


def test_16_bit_engines_are_held_to_20_db_and_untrained_ones_to_nothing():
    check_engine(fidelity(20.0), None, BF16, "openvino")
    check_engine(fidelity(5.0, None), None, BF16, "openvino")
    with pytest.raises(AccuracyGateError):
        check_engine(fidelity(19.9), None, BF16, "openvino")


def worst() -> list[LayerError]:
    return [LayerError(path="layer1.conv2", sqnr_db=12.3)]


def test_a_drop_beyond_max_drop_names_the_worst_layers():
    check_accuracy(measurement((200, 198), 0.0), DEFAULT, "net", worst)
    with pytest.raises(AccuracyGateError, match=r"drops 1\.50 points \(200 -> 197 of 200\).*layer1\.conv2 12\.3 dB"):
        check_accuracy(measurement((200, 197), 0.0), DEFAULT, "net", worst)


def test_a_gain_is_never_refused():
    check_accuracy(measurement((100, 200), 0.0), Tolerances(max_drop=0), "net", worst)


def test_lowering_may_cost_half_a_db_of_a_trained_network():
    check_accuracy(measurement(None, 0.5), DEFAULT, "net", worst)
    check_accuracy(measurement(None, 9.0, trained=False), DEFAULT, "net", worst)
    with pytest.raises(AccuracyGateError, match=r"costs 0\.51 dB"):
        check_accuracy(measurement(None, 0.51), DEFAULT, "net", worst)


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_a_graph_that_overflows_in_16_bits_is_refused_by_the_name_of_its_output(value):
    outputs = {"logits": np.array([[1.0, value]], np.float32)}
    check_finite({"logits": np.array([[1.0, 65504]], np.float32)}, "fp16", "net")
    with pytest.raises(AccuracyGateError, match=r"of net gives values in logits that aren't finite in int8\+fp16"):
        check_finite(outputs, "int8+fp16", "net")
