"""A calibrated network -> the portable graph; a float network -> a plain ONNX graph.

`exporter` calls PyTorch's exporter and qzoo's passes; `failure` says what in the network an export failed at.
"""

from __future__ import annotations

from qzoo.export.exporter import OPSET, export, export_with_float

__all__ = ["OPSET", "export", "export_with_float"]
