"""MFCNN: a multi-feature-fusion network for small grey images, with two branches, two heads and attention."""

from __future__ import annotations

from collections.abc import Iterator

from qzoo.hookspecs import hookimpl
from qzoo.spec import ModelSpec
from qzoo_mfcnn.spec import MFCNN


@hookimpl
def qzoo_models() -> Iterator[ModelSpec]:
    """The one network."""
    yield MFCNN
