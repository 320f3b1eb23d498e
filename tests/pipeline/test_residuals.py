"""Why a model's plugin places its skip quantizers: `--placement auto` against `manual`, as docs/tensorrt.md has it."""

from __future__ import annotations

from math import prod

import pytest

from qzoo.pipeline import Options, build_all, make_plan
from qzoo.records import Layer, LayerTable
from qzoo.spec import BatchProfile
from qzoo.store import Store

BYTES = {"Int8": 1, "Half": 2, "Float": 4}


@pytest.fixture(scope="module")
def auto(planned, registry, tmp_path_factory):
    """resnet20 as `planned` is, but with `--placement auto`."""
    options = Options(
        model="resnet20",
        target="tensorrt-rtx/sm86+sm89+sm120",
        batch=BatchProfile(min=1, opt=8, max=32),
        placement="auto",
    )
    store = Store(tmp_path_factory.mktemp("auto-home"))
    return build_all([make_plan(options, registry, store.home / "cache")], store)[0]


def additions(table: LayerTable) -> list[Layer]:
    return [layer for layer in table.layers if any(node.startswith("node_add") for node in layer.nodes)]


def moved(layers: list[Layer]) -> int:
    """Bytes that layers read and write per image."""
    tensors = [tensor for layer in layers for tensor in (*layer.inputs, *layer.outputs)]
    return sum(abs(prod(tensor.shape)) * BYTES[tensor.dtype] for tensor in tensors)


def written(layer: Layer) -> set[str]:
    return {tensor.dtype for tensor in layer.outputs}


def test_placement_changes_no_convolution(planned, auto):
    assert planned.layers.coverage("Conv") == auto.layers.coverage("Conv") == (21, 21)


def test_with_manual_placement_every_addition_writes_int8_only(planned):
    assert len(additions(planned.layers)) == 9
    assert [written(layer) for layer in additions(planned.layers)] == [{"Int8"}] * 9


def test_with_auto_placement_additions_write_the_next_skip_input_in_float_as_well(auto):
    assert sum(written(layer) == {"Int8", "Float"} for layer in additions(auto.layers)) == 6


def test_manual_placement_moves_fewer_bytes_and_not_fewer_layers(planned, auto):
    assert moved(additions(planned.layers)) < 0.7 * moved(additions(auto.layers))
    assert sum(layer.kind == "kgen" for layer in planned.layers.layers) == sum(
        layer.kind == "kgen" for layer in auto.layers.layers
    )
