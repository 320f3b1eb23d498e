"""The operator at which an engine departs from its graph, found in engines that compute one operator wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from qzoo.backends.ort import OnnxRuntime
from qzoo.errors import AccuracyGateError, TargetError
from qzoo.pipeline import Options, build_all, make_plan
from qzoo.pipeline.assemble import assemble
from qzoo.pipeline.build import facts_of
from qzoo.pipeline.departure import find_departure
from qzoo.pipeline.prepare import prepare
from qzoo.pipeline.progress import Silent
from qzoo.registry import Registry
from qzoo.store import Store

LEAST_DB = 30.0


class Doubling(OnnxRuntime):
    """It gives twice what one kind of operator computes."""

    def __init__(self, operator: str) -> None:
        self.operator = operator

    def build(self, lowered: bytes, config: Mapping[str, str], out: Path) -> None:
        super().build(doubled(lowered, self.operator), config, out)


class Choosy(Doubling):
    """It builds whole networks only."""

    def build(self, lowered: bytes, config: Mapping[str, str], out: Path) -> None:
        if not any(node.op_type == "Gemm" for node in onnx.load_from_string(lowered).graph.node):
            raise TargetError("a part of a network")
        super().build(lowered, config, out)


def doubled(lowered: bytes, operator: str) -> bytes:
    model = onnx.load_from_string(lowered)
    model.graph.initializer.append(numpy_helper.from_array(np.float32(2), "two"))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        model.graph.node.append(node)
        if node.op_type == operator:
            given, model.graph.node[-1].output[0] = node.output[0], "half"
            model.graph.node.append(helper.make_node("Mul", ["half", "two"], [given], name="doubled"))
    return bytes(model.SerializeToString())


@pytest.fixture(scope="module")
def tiny(tiny_dir, tmp_path_factory):
    """A plan of the tiny network."""
    registry = Registry.load((tiny_dir,), env={})
    options = Options(model="tiny", target="onnxruntime", weights="random")
    return make_plan(options, registry, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def graphs(tiny):
    return prepare(tiny, Silent())


def departure(plan, graphs, backend: OnnxRuntime):
    images, facts = graphs.held_out.images, facts_of(plan)
    engine = assemble(
        graphs.portable, plan.recipe, backend, plan.target, facts, images, trained=False, progress=Silent()
    )
    return find_departure(engine, plan.recipe, backend, facts, images, LEAST_DB)


@pytest.mark.parametrize(("operator", "layer"), [("Add", "conv"), ("Gemm", "head")])
def test_the_operator_that_is_computed_wrong_is_named_with_the_layer_before_it(tiny, graphs, operator, layer):
    found = departure(tiny, graphs, Doubling(operator))
    assert (found.operator, found.layer) == (operator, layer)
    assert 0 < found.sqnr_db < LEAST_DB


def test_an_engine_that_computes_its_graph_departs_nowhere(tiny, graphs):
    assert departure(tiny, graphs, OnnxRuntime()) is None


def test_nothing_is_named_where_a_part_of_the_graph_cannot_be_built(tiny, graphs):
    assert departure(tiny, graphs, Choosy("Add")) is None


def test_a_build_ends_with_5_and_says_where_and_what_to_do(tiny, tmp_path):
    words = (
        r"the onnxruntime engine is .* dB from its lowered graph.*it departs at \w+ \(Add, after conv\), .* dB there; "
        r"take another --target, or keep conv in float \(keep_float of its spec\)$"
    )
    with pytest.raises(AccuracyGateError, match=words) as raised:
        build_all([replace(tiny, backend=Doubling("Add"))], Store(tmp_path))
    assert raised.value.exit_code == 5
