"""qzoo: a model zoo of quantized networks. Importing it loads no torch and no runtime."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what _PUBLIC loads lazily, for type checkers and editors
    from qzoo.engine import load as load
    from qzoo.errors import QzooError as QzooError
    from qzoo.hookspecs import Backend as Backend
    from qzoo.hookspecs import Dataset as Dataset
    from qzoo.hookspecs import DatasetSource as DatasetSource
    from qzoo.hookspecs import Sample as Sample
    from qzoo.hookspecs import hookimpl as hookimpl
    from qzoo.pipeline import build as build
    from qzoo.spec import BatchProfile as BatchProfile
    from qzoo.spec import Fusion as Fusion
    from qzoo.spec import InputSpec as InputSpec
    from qzoo.spec import ModelFamily as ModelFamily
    from qzoo.spec import ModelSpec as ModelSpec
    from qzoo.spec import Preprocess as Preprocess
    from qzoo.spec import QuantSwap as QuantSwap
    from qzoo.spec import Recipe as Recipe
    from qzoo.spec import Tolerances as Tolerances
    from qzoo.spec import Training as Training
    from qzoo.spec import WeightSource as WeightSource
    from qzoo.store import Bundle as Bundle

_PUBLIC = {
    "Backend": "hookspecs",
    "BatchProfile": "spec",
    "Bundle": "store",
    "Dataset": "hookspecs",
    "DatasetSource": "hookspecs",
    "Fusion": "spec",
    "InputSpec": "spec",
    "ModelFamily": "spec",
    "ModelSpec": "spec",
    "Preprocess": "spec",
    "QuantSwap": "spec",
    "QzooError": "errors",
    "Recipe": "spec",
    "Sample": "hookspecs",
    "Tolerances": "spec",
    "Training": "spec",
    "WeightSource": "spec",
    "build": "pipeline",
    "hookimpl": "hookspecs",
    "load": "engine",
}

__all__ = sorted(_PUBLIC)  # noqa: PLE0605 - one table serves both the list and the lazy loading


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'qzoo' has no attribute {name!r}")
    return getattr(import_module(f"qzoo.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return __all__
