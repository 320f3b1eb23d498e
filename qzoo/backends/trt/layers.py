"""The layers that TensorRT planned, read out of the builder's log, or as the engine's inspector tells them.

Without a GPU an engine can't be deserialized, hence not inspected. But with detailed profiling verbosity TensorRT-RTX's
builder logs one message that begins with "Layers:" and has a line per layer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir

from qzoo.records import INT8, Layer, LayerTable, LayerTensor, PlannedOperator

HEAD = "Layers:"
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")

_LAYER = re.compile(
    r"Name: (?P<name>.*?), LayerType: (?P<kind>[^,]*), Inputs: \[(?P<inputs>.*?)\]"
    r"(?:, Constants: \[(?P<constants>.*?)\])?"
    r", Outputs: \[(?P<outputs>.*?)\], TacticName: .*?(?:, Metadata: (?P<nodes>.*))?"
)
_TENSOR = re.compile(
    r"\{ Name: (?P<name>.*?), (?:Location: \w+, )?Dimensions: \[(?P<shape>[^\]]*)\].*?Datatype: (?P<dtype>\w+), "
    r"Format: (?P<format>.*?) \}"
)
_NODE = re.compile(r"\[ONNX Layer: (.*?)\]")


def read_layers(text: str, model: ir.Model) -> LayerTable:
    """The table in a message that begins with HEAD; `model` is the graph that was built.

    Raises ValueError for a line that can't be read.
    """
    lines = text.removeprefix(HEAD).strip().split("\n\n")[0].splitlines()
    layers = tuple(_layer(line) for line in lines if line.strip())
    return LayerTable(layers=layers, operators=tuple(_planned(model, layers)))


def read_inspector(text: str, model: ir.Model) -> LayerTable:
    """The table in an engine inspector's JSON; `model` is the graph that was built.

    As documented for TensorRT 10 ("Format/Datatype" in one, "Weights" as type and count) and for 11 and TensorRT-RTX
    ("Datatype" and "Format"). Raises ValueError for other text.
    """
    try:
        layers = tuple(_inspected(layer) for layer in json.loads(text)["Layers"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not an inspector's layers: {text[:200]}") from error
    return LayerTable(layers=layers, operators=tuple(_planned(model, layers)))


def _inspected(layer: Mapping[str, Any]) -> Layer:
    weights = layer.get("Weights")
    constants = [_inspected_tensor(tensor) for tensor in layer.get("Constants", ())]
    if weights:
        constants.append(LayerTensor(name="weights", dtype=weights["Type"], shape=(weights["Count"],), format=""))
    nodes = _NODE.findall(layer["Metadata"]) if "Metadata" in layer else layer["Name"].split(_FUSED)
    return Layer(
        name=layer["Name"],
        kind=layer["LayerType"],
        inputs=tuple(map(_inspected_tensor, layer.get("Inputs", ()))),
        constants=tuple(constants),
        outputs=tuple(map(_inspected_tensor, layer.get("Outputs", ()))),
        nodes=tuple(dict.fromkeys(nodes)),
    )


def _inspected_tensor(tensor: Mapping[str, Any]) -> LayerTensor:
    both = tensor.get("Format/Datatype", "")
    return LayerTensor(
        name=tensor["Name"],
        dtype=tensor.get("Datatype") or next((dtype for word, dtype in _DTYPES if word in both), both),
        shape=tuple(tensor["Dimensions"]),
        format=tensor.get("Format", both),
    )


_FUSED = " + "
_DTYPES = (
    *(
        ("Int8", INT8),
        ("INT8", INT8),
        ("BF16", "BFloat16"),
        ("BFloat16", "BFloat16"),
        ("FP16", "Half"),
        ("Half", "Half"),
    ),
    *(("FP32", "Float"), ("Float", "Float"), ("Int32", "Int32"), ("INT32", "Int32")),
)
"""What of "Thirty-two wide channel vectorized row major Int8 format." is the type; the first that fits."""


def _layer(line: str) -> Layer:
    match = _LAYER.fullmatch(line.strip())
    if match is None:
        raise ValueError(f"not a layer: {line[:200]}")
    return Layer(
        name=match["name"],
        kind=match["kind"],
        inputs=_tensors(match["inputs"]),
        constants=_tensors(match["constants"] or ""),
        outputs=_tensors(match["outputs"]),
        nodes=tuple(dict.fromkeys(_NODE.findall(match["nodes"] or ""))),
    )


def _tensors(text: str) -> tuple[LayerTensor, ...]:
    return tuple(
        LayerTensor(
            name=match["name"],
            dtype=match["dtype"],
            shape=tuple(int(dim) for dim in match["shape"].split(",") if dim),
            format=match["format"],
        )
        for match in _TENSOR.finditer(text)
    )


def _planned(model: ir.Model, layers: Sequence[Layer]) -> list[PlannedOperator]:
    found = []
    for node in model.graph:
        if node.op_type in WEIGHTED:
            layer, dtype = _computing(str(node.name), layers)
            name = None if layer is None else layer.name
            found.append(PlannedOperator(node=str(node.name), operator=node.op_type, layer=name, dtype=dtype))
    return found


def _computing(node: str, layers: Sequence[Layer]) -> tuple[Layer | None, str | None]:
    """The layer that a node's products are computed in, and the type of what it multiplies.

    Several layers may name the node, since what follows it (the bias, the next quantizer) is fused into other kernels.
    The products are in the layer that is called after it. A kernel that fuses them with more has another name: then the
    type is known only if there is nothing but floats in it.
    """
    naming = [layer for layer in layers if node in layer.nodes and layer.inputs]
    for layer in naming:
        if layer.name.startswith(node) or node in layer.name.split(_FUSED):
            return layer, layer.inputs[0].dtype
    for layer in naming:
        if any(sum(dim > 1 for dim in tensor.shape) > 1 for tensor in layer.constants):
            types = {tensor.dtype for tensor in (*layer.inputs, *layer.constants)}
            return layer, types.pop() if len(types) == 1 and INT8 not in types else None
    return None, None
