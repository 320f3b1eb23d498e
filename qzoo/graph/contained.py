"""An ONNX file from elsewhere must be all there is to it: no tensor in another file, no operator from a library.

External data may lead out of its folder (CVE-2025-51480, CVE-2026-27489), and custom operators are native code.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from qzoo.errors import IntegrityError

if TYPE_CHECKING:
    import onnx
    from google.protobuf.message import Message

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Operators that ONNX defines, and those that onnxruntime brings along."""


def check_contained(data: bytes, source: Path) -> onnx.ModelProto:
    """Read a model. Raises IntegrityError that names `source` where it is none, or isn't all in these bytes.

    Nothing else is opened.
    """
    import onnx
    from google.protobuf.message import DecodeError

    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise IntegrityError(f"{source} is no ONNX model: {error}; fetch it again") from error
    own = DOMAINS | {function.domain for function in model.functions}
    for message in _messages(model):
        if isinstance(message, onnx.TensorProto) and (message.external_data or message.data_location != 0):
            places = ", ".join(entry.value for entry in message.external_data if entry.key == "location")
            raise IntegrityError(
                f"{source} keeps the tensor {message.name!r} in another file ({places or 'not named'}); none outside "
                "a bundle's own files is read. Ask who published it for one with all tensors inside"
            )
        if isinstance(message, onnx.NodeProto) and message.domain not in own:
            raise IntegrityError(
                f"{source} uses {message.op_type} of {message.domain!r}, an operator from a library that isn't loaded "
                "for a graph from elsewhere; build the model from its plugin"
            )
    return model


def _messages(root: Message) -> Iterator[Message]:
    """A message and all in it, whatever fields they stand in: subgraphs, functions and attributes too."""
    queue = [root]
    while queue:
        message = queue.pop()
        yield message
        for field, value in message.ListFields():
            if field.message_type is not None:
                queue += value if field.is_repeated else [value]
