"""Checks of the float network and of what a spec says about its modules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from qzoo import weights
from qzoo.errors import SpecError
from qzoo.spec import Fusion, Recipe, matches_any
from qzoo.testing.evidence import Evidence, Fault
from qzoo.testing.subject import IMAGES, SEED, Subject
from qzoo.testing.where import line_of_object, line_of_pattern, line_of_text

if TYPE_CHECKING:
    from torch import Tensor, nn

CLOSE = 1e-4
"""The largest difference of two float computations that add in another order, as a fraction of the largest output."""


def builder_gives_the_network(subject: Subject) -> Evidence:
    """The builder heeds the class count, the head has it, and the outputs are those that the spec names."""
    from qzoo.pipeline.network import make_network

    spec, faults = subject.spec, []
    for classes in (spec.num_classes, spec.num_classes + 1):
        modules = dict(make_network(spec, classes).named_modules())
        weight = getattr(modules.get(spec.head), "weight", None)
        if weight is None:
            faults.append(Fault(f"head {spec.head!r} is no module with a weight", line_of_text(subject.root, "head=")))
            break
        if weight.shape[0] != classes:
            text = f"built for {classes} classes, the weight of head {spec.head!r} has {weight.shape[0]}"
            faults.append(Fault(text, _builder_line(subject)))
    outputs = _outputs(subject.network, subject.batch)
    if len(outputs) != len(spec.outputs):
        text = (
            f"the spec names {len(spec.outputs)} outputs ({', '.join(spec.outputs)}), the network gives {len(outputs)}"
        )
        faults.append(Fault(text, line_of_text(subject.root, "outputs=")))
    shapes = [tuple(output.shape) for output in outputs]
    if any(shape != (IMAGES, spec.num_classes) for shape in shapes):
        faults.append(Fault(f"outputs have shapes {shapes}, not (N, {spec.num_classes})", _forward_line(subject)))
    parameters = sum(parameter.numel() for parameter in subject.network.parameters())
    return Evidence(f"{parameters:,} parameters, head {spec.head} follows the class count", tuple(faults))


def a_hub_state_dict_loads(subject: Subject) -> Evidence:
    """A checkpoint as hubs and DataParallel write it, `{"state_dict": {"module.stem.weight": ...}}`, gives the same.

    Bit for bit: a network that computes with a tensor which isn't in its state dict would not.
    """
    import torch

    from qzoo.pipeline.network import load_network

    state = subject.network.state_dict()
    with TemporaryDirectory(prefix="qzoo-") as folder:
        path = Path(folder) / "hub.pth"
        torch.save({"epoch": 1, "state_dict": {f"module.{key}": value for key, value in state.items()}}, path)
        plan = weights.plan(subject.spec, str(path), SEED + 1, subject.cache)
        loaded = load_network(subject.spec, plan, subject.batch).network
    faults = []
    if plan.record.num_classes != subject.spec.num_classes:
        text = f"{plan.record.num_classes} classes are read from head {subject.spec.head!r}"
        faults.append(Fault(text, line_of_text(subject.root, "head=")))
    same = _outputs(subject.network, subject.batch), _outputs(loaded, subject.batch)
    if not all(torch.equal(*pair) for pair in zip(*same, strict=True)):
        text = "a loaded network computes something else: a tensor isn't in the state dict; use a parameter or a buffer"
        faults.append(
            Fault(text, line_of_pattern(subject.root, r"self\.\w+ = .*torch\.\w+\(") or _forward_line(subject))
        )
    return Evidence(f"{len(state)} tensors, wrapped and prefixed", tuple(faults))


def the_reference_agrees(subject: Subject) -> Evidence:
    """The reference network's state dict loads strictly, and gives its outputs; skipped where the spec names none."""
    spec = subject.spec
    if spec.reference is None:
        return Evidence("the spec names no reference", skipped=True)
    from torch import nn

    from qzoo.quant.insert import resolve

    make = resolve(spec.reference)
    if not callable(make):
        raise SpecError(f"{spec.name}: reference {spec.reference!r} is not callable")
    theirs = weights.initialize_random(lambda: make(num_classes=spec.num_classes), SEED, subject.batch)
    if not isinstance(theirs, nn.Module):
        raise SpecError(f"{spec.name}: reference {spec.reference!r} gave a {type(theirs).__name__}, no network")
    ours = deepcopy(subject.network)
    weights.apply(ours, theirs.state_dict(), f"the state dict of {spec.reference}")
    worst = _difference(_outputs(theirs, subject.batch), _outputs(ours, subject.batch))
    text = f"{spec.reference} differs by {worst:.1e} of the largest output"
    return Evidence(text, () if worst <= CLOSE else (Fault(text, _forward_line(subject)),))


def batches_of_one_and_many_agree(subject: Subject) -> Evidence:
    """Each image alone gives what it gives among others."""
    together = _outputs(subject.network, subject.batch)
    alone = [_outputs(subject.network, image[None]) for image in subject.batch]
    worst = max(_difference([out[i : i + 1] for out in together], one) for i, one in enumerate(alone))
    text = f"an image alone differs by {worst:.1e} of the largest output from itself among {IMAGES}"
    fault = Fault(f"{text}; its forward depends on the batch", _forward_line(subject))
    return Evidence(text, () if worst <= CLOSE else (fault,))


def every_batchnorm_is_in_one_fusion(subject: Subject) -> Evidence:
    """Every pattern matches, every BatchNorm is in one fusion (or kept in float), and folding keeps the outputs."""
    from torch.nn.modules.batchnorm import _BatchNorm

    from qzoo.quant.fuse import fold_batchnorm

    spec, root, faults = subject.spec, subject.root, []
    network, fusions, alone = _to_fold(subject)
    modules = dict(network.named_modules())
    fused: Counter[str] = Counter()
    for fusion in fusions:
        try:
            fused.update(bn for _, bn, _ in fusion.bind(modules))
        except SpecError as error:
            faults.append(Fault(str(error), line_of_text(root, f'"{fusion.conv}"')))
    norms = [path for path, module in modules.items() if isinstance(module, _BatchNorm)]
    for path in norms:
        if fused[path] > 1:
            faults.append(Fault(f"{path} is in {fused[path]} fusions", line_of_text(root, f'"{path}"')))
        elif not fused[path] and path not in alone and not matches_any(path, spec.keep_float):
            text = f"{path} is in no fusion; add one, or name it in keep_float where no convolution comes before it"
            faults.append(Fault(text, line_of_text(root, "fusions=")))
    if not faults:
        folded = deepcopy(network)
        fold_batchnorm(folded, fusions)
        worst = _difference(_outputs(subject.network, subject.batch), _outputs(folded, subject.batch))
        if not worst <= CLOSE:
            text = f"folding BatchNorms changes the outputs by {worst:.1e}; does each follow its convolution at once?"
            faults.append(Fault(text, line_of_text(root, "Fusion(")))
    others = f", {len(alone)} of them with no layer of their own before them" if alone else ""
    text = f"{len(fusions)} patterns, {len(norms)} BatchNorms{others}, folding keeps the outputs"
    return Evidence(text, tuple(faults))


def _to_fold(subject: Subject) -> tuple[nn.Module, tuple[Fusion, ...], set[str]]:
    """The network, its fusions, and the BatchNorms that none can have; all derived where the placement is."""
    spec, network = subject.spec, subject.network
    if spec.placement == "declared":
        return network, spec.fusions, set()
    from qzoo.quant.derive import derive

    derived = derive(deepcopy(network), spec.input.shape, spec.name)
    alone = {left.path for left in derived.network.left_in_float if left.kind == "batchnorm"}
    return derived.network, (*spec.fusions, *derived.fusions), alone


def swaps_keep_the_state_dict(subject: Subject) -> Evidence:
    """Before calibration the quantized network has the float one's state dict and outputs, bit for bit.

    A derived placement computes some poolings in another order, and a weight that is computed in every call once; and
    `QuantMultiheadAttention` computes as operators what PyTorch does in one kernel.
    """
    import torch

    from qzoo.quant.derive import DerivedNetwork
    from qzoo.quant.insert import insert_quantizers
    from qzoo.quant.modules import QuantMultiheadAttention, quantizers

    network, root = subject.network, subject.root
    recipe = Recipe(target="onnxruntime", precision="int8")
    quantized = insert_quantizers(network, subject.spec, recipe, trainable=True)
    before, after = network.state_dict(), quantized.state_dict()
    computed = quantized.computed if isinstance(quantized, DerivedNetwork) else frozenset()
    faults = [
        Fault(f"{key} is {_fate(before, after, key)} by the swap", _class_line(subject, quantized, key))
        for key in sorted({*before, *after} - computed)
        if key not in before or key not in after or not torch.equal(before[key], after[key])
    ]
    both = _outputs(network, subject.batch), _outputs(quantized, subject.batch)
    attention = any(isinstance(module, QuantMultiheadAttention) for module in quantized.modules())
    other_order = attention or subject.spec.placement == "derived"
    same = _difference(*both) <= CLOSE if other_order else all(map(torch.equal, *both))
    if not faults and not same:
        own = [line_of_object(root, type(module)) for module in quantized.modules()]
        swapped = next((line for line in own[::-1] if line), None)
        faults.append(Fault("before calibration a quantized module computes something else than its twin", swapped))
    return Evidence(f"{len(before)} tensors, {len(quantizers(quantized))} quantizers", tuple(faults))


def _outputs(network: nn.Module, batch: Tensor) -> list[Tensor]:
    import torch

    with torch.inference_mode():
        result = network(batch.clone())
    return list(result) if isinstance(result, tuple) else [result]


def _difference(expected: list[Tensor], found: list[Tensor]) -> float:
    """The largest difference as a fraction of the largest expected value; infinite where shapes or counts differ."""
    if [one.shape for one in expected] != [one.shape for one in found]:
        return float("inf")
    pairs = zip(expected, found, strict=True)
    return max(float((a - b).abs().max() / a.abs().max().clamp(min=1e-12)) for a, b in pairs)


def _fate(before: Mapping[str, Tensor], after: Mapping[str, Tensor], key: str) -> str:
    return "added" if key not in before else "lost" if key not in after else "changed"


def _class_line(subject: Subject, network: nn.Module, key: str) -> str | None:
    modules = dict(network.named_modules())
    path = key
    while path and (path := path.rpartition(".")[0]):
        found = line_of_object(subject.root, type(modules[path])) if path in modules else None
        if found:
            return found
    return None


def _builder_line(subject: Subject) -> str | None:
    return line_of_pattern(subject.root, rf"^\s*(def|class) {subject.spec.builder.rpartition(':')[2]}\b")


def _forward_line(subject: Subject) -> str | None:
    return line_of_object(subject.root, type(subject.network).forward) or _builder_line(subject)
