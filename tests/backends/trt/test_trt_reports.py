"""The JSON files of trtexec's shapes."""

from __future__ import annotations

import json

import pytest

from qzoo.backends.trt import reports
from qzoo.backends.trt.run import Trace
from qzoo.records import LayerTime

TRACES = [
    Trace(enqueue=(at, at + 1), to_device=(at, at + 2), compute=(at + 2, at + 2 + at), to_host=(at + 4, at + 5))
    for at in (1.0, 2.0, 9.0)
]


def test_times_have_when_each_part_began_and_ended_and_how_long_it_took():
    first, *_ = rows = json.loads(reports.times(TRACES))
    assert len(rows) == 3
    parts = ("Enq", "H2d", "Compute", "D2h")
    lasted = ("h2dMs", "computeMs", "d2hMs", "latencyMs")
    assert [*first] == [*(f"{which}{part}Ms" for part in parts for which in ("start", "end")), *lasted]
    assert (first["h2dMs"], first["computeMs"], first["d2hMs"], first["latencyMs"]) == (2, 1, 1, 4)


def test_the_latency_is_the_median_call_of_transfers_and_computation():
    assert reports.median_latency(TRACES) == 5


def test_a_profile_begins_with_the_count_and_has_a_row_per_layer():
    layers = [LayerTime(name="conv", calls=4, total_ms=6.0, median_ms=1.4, percentage=75.0)]
    assert json.loads(reports.profile(layers, 4)) == [
        {"count": 4},
        {"name": "conv", "timeMs": 6.0, "averageMs": 1.5, "medianMs": 1.4, "percentage": 75.0},
    ]


@pytest.fixture(scope="module")
def info(built):
    return json.loads(reports.layer_info(built.layers))


def test_layers_are_written_as_the_inspector_writes_them(info, built):
    assert [layer["Name"] for layer in info["Layers"]] == [layer.name for layer in built.layers.layers]
    for written, layer in zip(info["Layers"], built.layers.layers, strict=True):
        assert [tensor["Datatype"] for tensor in written["Inputs"]] == [tensor.dtype for tensor in layer.inputs]
        assert written["Metadata"].count("[ONNX Layer: ") == len(layer.nodes)


def test_the_bindings_are_the_engines_inputs_and_outputs(info):
    assert info["Bindings"] == ["input", "logits"]
