"""What a library says of a network, as the Python text of a plugin's spec and model."""

from __future__ import annotations

from dataclasses import fields
from textwrap import indent

from qzoo.spec import Preprocess, WeightSource
from qzoo.testing.libraries import Described

_AUXILIARY = """

def network(num_classes: int) -> nn.Module:
    \"\"\"The same, giving logits alone in training, too; its other heads stay, as its checkpoint has them.\"\"\"
    made: nn.Module = ordinary(num_classes=num_classes)
    made.aux_logits = False
    return made
"""

_IMPORTS = {
    "timm": "import timm\nfrom qzoo.quant.modules import CLASSIFIER\nfrom torch import nn",
    "torchvision": "from qzoo.quant.modules import CLASSIFIER\nfrom torch import nn\nfrom torchvision import models",
}


def words_of(found: Described, module: str) -> dict[str, str]:
    """What the template's files for a library's network leave open; `module` is the plugin's package."""
    names = ["InputSpec", "ModelSpec", "Preprocess", "QuantSwap", *(["WeightSource"] if found.weights else [])]
    return {
        "library": found.library,
        "network": found.name,
        "library_imports": _IMPORTS[found.library].replace("CLASSIFIER", found.classifier),
        "builder": "ordinary" if found.auxiliary else "network",
        "star": "*, " if found.auxiliary else "",
        "build": found.build,
        "without_auxiliary": _AUXILIARY if found.auxiliary else "",
        "imports": ", ".join(names),
        "shape": repr(found.shape),
        **dict(zip(("channels", "height", "width"), map(str, found.shape), strict=True)),
        "preprocess": indent(_preprocess(found.preprocess), " " * 12),
        "num_classes": str(found.num_classes),
        "head": found.head,
        "classifier": found.classifier,
        "kind": found.classifier.removeprefix("Quant"),
        "keep_float": _keep_float(found.auxiliary),
        "weights": _weights(found.weights),
        "reference": found.reference or f"{module}.model:ordinary",
    }


def _preprocess(preprocess: Preprocess) -> str:
    given = {field.name: getattr(preprocess, field.name) for field in fields(Preprocess)}
    differing = [field.name for field in fields(Preprocess) if given[field.name] != field.default]
    return "\n".join(f"{name}={_literal(given[name])}," for name in differing)


def _keep_float(paths: tuple[str, ...]) -> str:
    globs = " ".join(f"{_literal(f'{path}*')}," for path in paths)
    return f"    keep_float=({globs}),\n" if paths else ""


def _weights(source: WeightSource | None) -> str:
    if source is None:
        return ""
    given = [(name, getattr(source, name)) for name in ("kind", "ref", "sha256")]
    words = ", ".join(f"{name}={_literal(value)}" for name, value in given if value is not None)
    return f"    weights=(WeightSource({words}),),\n"


def _literal(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)
