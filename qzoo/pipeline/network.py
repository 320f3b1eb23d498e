"""A spec's network: built, its weights loaded."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from qzoo import weights
from qzoo.errors import SpecError, WeightsMismatch
from qzoo.quant.derive import derive
from qzoo.quant.insert import resolve
from qzoo.quant.modules import quantizers, weight_of
from qzoo.spec import TRAINED, ModelSpec
from qzoo.weights import WeightsPlan


@dataclass(frozen=True, kw_only=True)
class LoadedNetwork:
    """A float network in eval mode; and each quantizer's range, where it was trained with fake quantization."""

    network: nn.Module
    ranges: dict[str, Tensor]


def make_network(spec: ModelSpec, num_classes: int) -> nn.Module:
    """What a spec's builder gives. Raises SpecError where that is no network."""
    builder = resolve(spec.builder)
    if not callable(builder):
        raise SpecError(f"{spec.name}: builder {spec.builder!r} is not callable")
    made = builder(num_classes, **spec.builder_args)
    if not isinstance(made, nn.Module):
        raise SpecError(f"{spec.name}: builder {spec.builder!r} gave a {type(made).__name__}, no network")
    return made


def load_network(spec: ModelSpec, plan: WeightsPlan, batch: Tensor) -> LoadedNetwork:
    """The float network with its weights; random ones get BatchNorm statistics from `batch` (N, C, H, W).

    Raises SpecError or WeightsMismatch.
    """
    classes = plan.record.num_classes
    if plan.path is None:
        network = weights.initialize_random(lambda: make_network(spec, classes), plan.seed, batch)
        return LoadedNetwork(network=network, ranges={})
    with torch.random.fork_rng(devices=[]):
        network = make_network(spec, classes)
    state, ranges = weights.split_ranges(weights.load_state(plan.path, spec.head))
    weights.apply(network, state, str(plan.path))
    return LoadedNetwork(network=network.eval(), ranges=ranges)


def load_ranges(quantized: nn.Module, ranges: dict[str, Tensor], plan: WeightsPlan) -> None:
    """Load ranges that were trained with the weights. Raises WeightsMismatch where they are of other quantizers."""
    found = quantizers(quantized)
    if not ranges:
        raise WeightsMismatch(
            f"--calib {TRAINED}: {plan.record.ref} holds no ranges; train some with `qzoo train --qat`"
        )
    missing = next((path for path in found if path not in ranges), None)
    if missing is not None:
        raise WeightsMismatch(
            f"weights: {plan.path} was trained with other quantizers, it has no range for {missing}; build with the "
            "--placement that it was trained with, or train it again"
        )
    for path, quantizer in found.items():
        expected = 1 if quantizer.axis is None else _channels(quantized, path, quantizer.axis)
        if ranges[path].numel() != expected:
            raise WeightsMismatch(f"weights: {plan.path}: {path} has {ranges[path].numel()} ranges, not {expected}")
        quantizer.load_amax(ranges[path])


def module_paths(spec: ModelSpec) -> list[tuple[str, str]]:
    """Every module of a model's network: its path, in which fusions and swaps are written, and its class.

    Where the placement is derived, the points that it makes of operators are among them.
    """
    network = make_network(spec, spec.num_classes)
    if spec.placement == "derived":
        network = derive(network.eval(), spec.input.shape, spec.name).network
    return [(path, type(module).__name__) for path, module in network.named_modules() if path]


def _channels(network: nn.Module, path: str, axis: int) -> int:
    return weight_of(network, path).shape[axis]
