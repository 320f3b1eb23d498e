"""The family `timm`: its names come from a file, and a spec is made of timm's own description of the chosen network."""

from __future__ import annotations

from collections.abc import Iterable
from math import floor
from pathlib import Path
from typing import Any, Literal

from qzoo.errors import SpecError
from qzoo.spec import InputSpec, ModelFamily, ModelSpec, Preprocess, WeightSource

VERSION = "1.0.0"

NAMES = Path(__file__).with_name("names.txt")
"""timm's architectures, and its pretrained networks as architecture.tag; one a line. Made by make_names.py."""


def names() -> Iterable[str]:
    """Every name of timm's, without importing it."""
    return NAMES.read_text("utf-8").splitlines()


def resolve(name: str) -> ModelSpec:
    """The spec of one network. Raises SpecError where timm's description holds what a spec can't express."""
    import timm

    try:
        described = timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError as error:
        raise SpecError(f"timm/{name}: timm {timm.__version__} has no such network: {error}") from error
    if described is None:
        raise SpecError(f"timm/{name}: timm {timm.__version__} doesn't describe it")
    if not described.num_classes:
        raise SpecError(
            f"timm/{name} has no classifier, its outputs are features, and qzoo builds classifiers; take a name with "
            f"a tag that ends with _in1k, or a plugin of your own with a head"
        )
    pretrained = described.hf_hub_id or described.url
    reference = f"{described.architecture}.{described.tag}" if described.tag else str(described.architecture)
    return ModelSpec(
        name=f"timm/{name}",
        summary=f"{described.architecture} of timm" + (f", weights {described.tag}" if described.tag else ""),
        builder="qzoo_timm.model:build",
        builder_args={"name": name},
        version=VERSION,
        input=InputSpec(shape=tuple(described.input_size), preprocess=_preprocess(name, described)),
        num_classes=described.num_classes,
        head=_head(name, described.classifier),
        weights=(WeightSource(kind="timm", ref=reference),) if pretrained else (),
        placement="derived",
    )


def _preprocess(name: str, described: Any) -> Preprocess:  # noqa: ANN401 - timm has no types
    """What timm.data.create_transform does with these settings.

    For "center" the shorter side becomes floor(size / crop_pct), for "squash" both sides do.
    """
    channels, height, width = described.input_size
    unlike = [
        text
        for text, wrong in (
            (f"an input of {height}x{width}, not square", height != width),
            (f"{channels} channels", channels not in (1, 3)),
            (f"a border (crop_pct {described.crop_pct})", described.crop_pct > 1),
            (f"crop mode {described.crop_mode!r}", described.crop_mode not in ("center", "squash")),
            (
                f"interpolation {described.interpolation!r}",
                described.interpolation not in ("bilinear", "bicubic"),
            ),
        )
        if wrong
    ]
    if unlike:
        raise SpecError(f"timm/{name} wants {' and '.join(unlike)}, which qzoo's preprocessing doesn't have")
    mode: Literal["RGB", "L"] = "RGB" if channels == 3 else "L"
    return Preprocess(
        mode=mode,
        resize=floor(height / described.crop_pct),
        crop=height,
        mean=tuple(described.mean),
        std=tuple(described.std),
        interpolation=described.interpolation,
        squash=described.crop_mode == "squash",
    )


def _head(name: str, classifier: object) -> str:
    """The module whose weight counts the classes; of several, as distilled networks have them, the first."""
    first = classifier[0] if isinstance(classifier, tuple | list) and classifier else classifier
    if not isinstance(first, str) or not first:
        raise SpecError(f"timm/{name}: timm names no classifier, so its classes can't be counted on a checkpoint")
    return first


FAMILY = ModelFamily(
    prefix="timm",
    summary="every network of timm, its placement derived from its graph; timm's weights",
    names=names,
    resolve=resolve,
)
