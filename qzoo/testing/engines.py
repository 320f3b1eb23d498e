"""Checks of what the pipeline makes of a plugin: the portable graph, and an engine of every runtime that works here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from qzoo.errors import AccuracyGateError, TargetUnsupported
from qzoo.measure import fidelity
from qzoo.pipeline.assemble import assemble, run_reference, serialize
from qzoo.pipeline.build import facts_of, shared_key
from qzoo.pipeline.gates import check_engine, check_export
from qzoo.pipeline.progress import Silent
from qzoo.records import encode
from qzoo.spec import matches_any
from qzoo.testing.evidence import Evidence, Fault
from qzoo.testing.subject import Subject
from qzoo.testing.where import line_of_object, line_of_pattern, line_of_text

if TYPE_CHECKING:
    import onnx_ir as ir
    from torch import nn

    from qzoo.quant.derive import LeftInFloat

_LAYERS = {"Conv": "convolution", "ConvTranspose": "convolution", "Gemm": "linear", "MatMul": "linear", "Add": "add"}


def it_is_calibrated_and_exported(subject: Subject) -> Evidence:
    """The pipeline calibrates the network and exports a portable graph, whose invariants hold."""
    graphs = subject.prepared
    ranges = 0 if graphs.table is None else len(graphs.table.ranges)
    images = len(graphs.calibration.images)
    return Evidence(f"{ranges} ranges from {images} images, {len(list(graphs.portable.graph))} nodes")


def the_export_is_the_network(subject: Subject) -> Evidence:
    """The portable graph, unoptimized, computes what the fake-quantized network does (`gates.check_export`)."""
    plan, graphs = subject.plan, subject.prepared
    network = graphs.fake_quantized_outputs or graphs.float_outputs
    outputs = run_reference(serialize(graphs.portable), graphs.held_out.images)
    quantization = fidelity(graphs.float_outputs, network, plan.spec.decision, trained=False)
    found = fidelity(network, outputs, plan.spec.decision, trained=False)
    check_export(found, quantization, plan.recipe.tolerances, plan.spec.name)
    return Evidence(f"SQNR {found.sqnr_db:.1f} dB to the network, INT8's own to float {quantization.sqnr_db:.1f} dB")


def every_runtime_agrees(subject: Subject) -> Evidence:
    """The engine of each runtime that works here computes what its lowered graph does (`gates.check_engine`)."""
    from qzoo.pipeline.prepare import prepare

    evidence, faults = [], []
    for backend in subject.runtimes():
        try:
            plan = subject.plan_for(backend.name)
        except TargetUnsupported as error:
            evidence.append(f"{backend.name} left out: {error}")
            faults += [Fault(str(error), None)] * (backend.name in subject.targets)
            continue
        same = shared_key(plan) == shared_key(subject.plan)
        graphs = subject.prepared if same else prepare(plan, Silent())
        images, recipe = graphs.held_out.images, plan.recipe
        engine = assemble(
            graphs.portable, recipe, backend, plan.target, facts_of(plan), images, trained=False, progress=Silent()
        )
        lowered = fidelity(graphs.float_outputs, engine.lowered_outputs, plan.spec.decision, trained=False)
        try:
            check_engine(engine.engine_fidelity, lowered, recipe, backend.name)
        except AccuracyGateError as error:
            faults.append(Fault(str(error)))
        ran = engine.engine_fidelity
        evidence.append(f"{backend.name} " + ("only built" if ran is None else f"{ran.sqnr_db:.1f} dB"))
    return Evidence("; ".join(evidence), tuple(faults))


def every_layer_is_quantized(subject: Subject) -> Evidence:
    """Which convolutions, linear layers and adds are INT8; one in float without a reason is a fault.

    The reason is that `keep_float` names it or, where the placement is derived, what the derivation recorded.
    """
    network = subject.prepared.quantized
    if network is None:
        return Evidence("", (Fault("nothing is quantized"),))
    total, floats = 0, []
    for node in subject.prepared.portable.graph:
        if node.op_type in _LAYERS and _is_layer(node):
            total += 1
            if not all(_quantized(value) for value in list(node.inputs)[:2]):
                floats.append(node)
    explained = list(_explained(floats, network, subject))
    kept = [name for name, fault, recorded in explained if fault is None and not recorded]
    recorded = Counter(name for name, _, recorded in explained if recorded)
    text = f"{total - len(floats)} of {total} convolutions, linear layers and adds are INT8"
    text += f", in float as keep_float says: {', '.join(kept)}" if kept else ""
    text += "".join(f"; in float: {count} x {name}" for name, count in recorded.items())
    return Evidence(text, tuple(fault for _, fault, _ in explained if fault is not None))


def a_second_build_is_the_same(subject: Subject) -> Evidence:
    """Loading, calibrating and exporting once more gives the same bytes."""
    from qzoo.pipeline.prepare import prepare

    first, second = subject.prepared, prepare(subject.plan, Silent())
    random = line_of_pattern(subject.root, r"random\w*\.\w+\(|rand\w*\(|shuffle\(|dropout\(|uuid\d\(|time\(|\bid\(")
    faults = tuple(
        Fault(f"a second build gives other {what}", random)
        for what, one, other in (
            ("ranges", encode(first.table), encode(second.table)),
            ("bytes of the portable graph", serialize(first.portable), serialize(second.portable)),
        )
        if one != other
    )
    return Evidence(f"{len(serialize(first.portable)):,} bytes of graph and all ranges, twice", faults)


def _is_layer(node: ir.Node) -> bool:
    """Not a matrix product of two activations, nor an add of a constant."""
    from qzoo.graph.edit import constant

    fixed = [constant(value) is not None or _weight(value) for value in list(node.inputs)[:2]]
    if node.op_type == "Add":
        shapes = {str(value.shape) for value in node.inputs if value is not None}
        return not any(fixed) and len(shapes) == 1
    return any(fixed) or node.op_type != "MatMul"


def _weight(value: ir.Value | None) -> bool:
    from qzoo.graph.edit import DEQUANTIZE, constant

    producer = _source(value)
    return producer is not None and producer.op_type == DEQUANTIZE and constant(producer.inputs[0]) is not None


def _quantized(value: ir.Value | None) -> bool:
    from qzoo.graph.edit import DEQUANTIZE

    producer = _source(value)
    return producer is not None and producer.op_type == DEQUANTIZE


def _source(value: ir.Value | None) -> ir.Node | None:
    """What makes a value; the weight of a linear layer of a sequence is exported transposed."""
    producer = None if value is None else value.producer()
    while producer is not None and producer.op_type == "Transpose":
        producer = None if producer.inputs[0] is None else producer.inputs[0].producer()
    return producer


def _explained(floats: list[ir.Node], network: nn.Module, subject: Subject) -> Iterator[tuple[str, Fault | None, bool]]:
    """Each layer in float: its name, a fault unless there is a reason, and whether the derivation recorded one."""
    from qzoo.quant.derive import DerivedNetwork

    modules = _float_modules(network)
    recorded = network.left_in_float if isinstance(network, DerivedNetwork) else ()
    kept = (*subject.spec.keep_float, *subject.plan.recipe.keep_float)
    whole = _whole(recorded)
    left = {kind: sum(_LAYERS[node.op_type] == kind for node in floats) for kind in set(_LAYERS.values())}
    for path, (kind, name) in modules.items():
        if not left[kind]:
            continue
        left[kind] -= 1
        if matches_any(path, kept):
            yield path, None, False
        elif inside := _inside(path, whole):
            yield f"{kind}, {inside.reason}", None, True
        else:
            text = f"{path} ({name}) is in float: no swap takes it; add one, or name it in keep_float"
            yield path, Fault(text, _maker(subject, path) or line_of_text(subject.root, "swaps=")), False
    root = subject.root
    for one in recorded:
        if left.get(one.kind):
            yield f"{one.kind}, {one.reason}", None, True
            left[one.kind] -= 1
    for one in list(whole.values())[:1]:  # operators inside what couldn't be traced have no record of their own
        yield from [(f"{kind}, {one.reason}", None, True) for kind, count in left.items() for _ in range(count)]
        left = {}
    for kind, count in left.items():
        if count:
            text = f"{count} {kind}(s) in float, called as operators, which can't be swapped; call a module instead"
            pattern = {"add": r"\w\)?\s\+=?\s.*\w", "convolution": r"\bconv\w*\(", "linear": r"\blinear\(|@"}[kind]
            yield (
                kind,
                Fault(text, line_of_pattern(root, pattern) or line_of_object(root, type(network).forward)),
                False,
            )


def _whole(recorded: Iterable[LeftInFloat]) -> dict[str, LeftInFloat]:
    """What couldn't be traced, by the path that its layers are under: its own, or that of a function's caller."""
    modules = {one.path: one for one in recorded if one.kind == "module"}
    return modules | {one.path.rpartition(".")[0]: one for one in recorded if one.kind == "function"}


def _inside(path: str, whole: dict[str, LeftInFloat]) -> LeftInFloat | None:
    """What couldn't be traced and has the module at `path` in it."""
    return next((one for place, one in whole.items() if not place or f"{path}.".startswith(f"{place}.")), None)


def _float_modules(network: nn.Module) -> dict[str, tuple[str, str]]:
    """The convolutions, linear layers and adds of a network that have no quantizers: path -> kind and class.

    PyTorch's attention counts as the linear layer that its packed projection is.
    """
    from torch import nn

    from qzoo.quant.modules import Add, quantizers

    kinds = (("convolution", nn.modules.conv._ConvNd), ("linear", nn.Linear | nn.MultiheadAttention), ("add", Add))  # noqa: SLF001 - no public base
    return {
        path: (kind, type(module).__name__)
        for path, module in network.named_modules()
        for kind, base in kinds
        if isinstance(module, base) and not quantizers(module)
    }


def _maker(subject: Subject, path: str) -> str | None:
    """The line that makes the module at a path."""
    return line_of_pattern(subject.root, rf"self\.{path.rpartition('.')[2]}\s*[:=]")
