"""qzoo: a model zoo of quantized networks. Importing it loads no torch and no runtime."""

from __future__ import annotations

from importlib import import_module

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
