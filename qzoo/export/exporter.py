"""A calibrated network -> the portable graph; a float network -> a plain ONNX graph."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import onnx_ir as ir
import torch
from onnxscript.optimizer import fold_constants
from torch import nn

from qzoo.errors import ExportError
from qzoo.export.failure import export_error
from qzoo.graph.canonicalize import canonicalize

OPSET = 18
"""The exporter's native opset; per-channel Q/DQ needs at least 13."""

_TRACE_BATCH = 2  # torch.export specializes a batch of 1


def export(model: nn.Module, input_name: str, shape: Sequence[int], outputs: Sequence[str]) -> ir.Model:
    """Export a network to its portable graph, with a symbolic batch N.

    `shape` is the input's without the batch, (C, H, W); float32. The network is left in the mode it was in. A network
    without quantizers gives a graph without Q/DQ. Raises ExportError or GraphError.
    """
    return canonicalize(_traced(model, input_name, shape, outputs))


def export_with_float(
    model: nn.Module, input_name: str, shape: Sequence[int], outputs: Sequence[str]
) -> tuple[ir.Model, ir.Model]:
    """The portable graph as `export` makes it, and the graph of the same network in float, without its quantizers."""
    traced = _traced(model, input_name, shape, outputs)
    floating = canonicalize(traced, quantized=False)
    with _quiet_exporter():
        fold_constants(floating)  # the exporter left what lay behind a quantizer: a linear layer's transposition
    return canonicalize(traced), floating


def _traced(model: nn.Module, input_name: str, shape: Sequence[int], outputs: Sequence[str]) -> ir.Model:
    training = model.training
    try:
        return _trace(model.eval(), input_name, shape, outputs)
    finally:
        model.train(training)


def _trace(model: nn.Module, input_name: str, shape: Sequence[int], outputs: Sequence[str]) -> ir.Model:
    example = torch.zeros(_TRACE_BATCH, *shape)
    with _quiet_exporter(), _no_garbage_collection():
        try:
            program = torch.onnx.export(
                model,
                (example,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("N")},),
                input_names=[input_name],
                output_names=list(outputs),
                opset_version=OPSET,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise export_error(model, error) from error
    if program is None:
        raise ExportError(f"torch.onnx gave no program for {type(model).__name__}")
    return program.model


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Tracing makes millions of objects that live until its end; looking through them again and again took 1 s of 7."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
