"""What torchvision and timm say of one of their networks, as a new plugin's spec states it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from qzoo.errors import UnknownName, UsageError
from qzoo.spec import Preprocess, WeightSource

if TYPE_CHECKING:
    from torch import nn
    from torchvision.models import WeightsEnum

BLANK = "blank"


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """A library's network.

    `build` is Python that makes it for `num_classes`, `classifier` the quantized class of its head. `reference` is the
    library's own function that makes it, None where `build` gives it other arguments than the class count. With
    `auxiliary` heads, their paths, it gives more than logits in training, which `aux_logits = False` ends.
    """

    library: str
    name: str
    build: str
    reference: str | None
    shape: tuple[int, ...]
    preprocess: Preprocess
    num_classes: int
    head: str
    classifier: str
    weights: WeightSource | None
    auxiliary: tuple[str, ...] = ()


def described(origin: str) -> Described | None:
    """The network that "torchvision:NAME" or "timm:NAME" names; None for "blank".

    Raises UsageError for another library, or for a network that can't be described so; UnknownName for a name that
    the library doesn't have.
    """
    library, colon, name = origin.partition(":")
    if origin == BLANK:
        return None
    if library not in _LIBRARIES or not colon:
        raise UsageError(f"--from {origin!r}: write torchvision:NAME, timm:NAME or blank")
    return _LIBRARIES[library](name)


def _torchvision(name: str) -> Described:
    import torchvision
    from torchvision.models import get_model_builder, get_model_weights, list_models

    known = list_models(module=torchvision.models)
    if name not in known:
        raise UnknownName("network of torchvision", name, known, "its classifiers are what a plugin begins from")
    auxiliary = _AUXILIARY.get(name, ())
    # as torchvision itself makes it where it loads weights into it
    options = {"init_weights": False, "transform_input": True} if auxiliary else {}
    make, extra = get_model_builder(name), "".join(f", {key}={value}" for key, value in options.items())
    network, wider = (_without_data(partial(make, num_classes=count, **options)) for count in (1000, 1001))
    chosen = _first_that_fits(name, network, list(get_model_weights(name)), get_model_weights(name).DEFAULT)
    preset = chosen.transforms()
    (size,), (resize,) = preset.crop_size, preset.resize_size
    head = [
        key.removesuffix(".weight")
        for (key, one), other in zip(network.state_dict().items(), wider.state_dict().values(), strict=True)
        if key.endswith(".weight") and one.shape != other.shape
    ][-1]
    digest = re.search(r"-([0-9a-f]{8,64})\.\w+$", chosen.url)
    return Described(
        library="torchvision",
        name=name,
        build=f"models.{name}(num_classes=num_classes{extra})",
        reference=None if options else f"torchvision.models:{name}",
        shape=(3, size, size),
        preprocess=Preprocess(
            resize=resize,
            crop=size,
            mean=tuple(preset.mean),
            std=tuple(preset.std),
            interpolation=preset.interpolation.value,
        ),
        num_classes=len(chosen.meta["categories"]),
        head=head,
        classifier=_twin(network, head, f"torchvision:{name}"),
        weights=WeightSource(kind="torchvision", ref=str(chosen), sha256=digest[1] if digest else None),
        auxiliary=auxiliary,
    )


_AUXILIARY = {"googlenet": ("aux1", "aux2"), "inception_v3": ("AuxLogits",)}
"""The networks with heads that are called in training only."""


def _without_data(make: Callable[[], nn.Module]) -> nn.Module:
    """The network on the "meta" device, where it costs no time, in eval mode."""
    import torch

    try:
        with torch.device("meta"):
            return make().eval()
    except NotImplementedError:  # a RegNet computes its widths by tensors
        with torch.random.fork_rng(devices=[]):
            return make().to("meta").eval()


def _first_that_fits(name: str, network: nn.Module, members: list[WeightsEnum], default: WeightsEnum) -> WeightsEnum:
    """The default weights, or else the first made for images of a size that the network takes as it is built."""
    import torch

    for one in (default, *members):
        (size,) = one.transforms().crop_size
        try:
            with torch.no_grad():
                network(torch.empty(1, 3, size, size, device="meta"))
        except (RuntimeError, ValueError, AssertionError):
            continue  # a transformer's position embeddings are of one size
        return one
    raise UsageError(f"--from torchvision:{name}: its weights are all for another image size; begin with blank")


def _timm(name: str) -> Described:
    import timm
    import torch

    from qzoo.registry import Registry

    spec = Registry.load(env={}).model(f"timm/{name}").spec
    with torch.random.fork_rng(devices=[]):
        network = timm.create_model(name, pretrained=False)
    return Described(
        library="timm",
        name=name,
        build=f'timm.create_model("{name}", pretrained=False, num_classes=num_classes)',
        reference=f"timm.models:{name.partition('.')[0]}",
        shape=spec.input.shape,
        preprocess=spec.input.preprocess,
        num_classes=spec.num_classes,
        head=spec.head,
        classifier=_twin(network, spec.head, f"timm:{name}"),
        weights=spec.weights[0] if spec.weights else None,
    )


def _twin(network: nn.Module, head: str, origin: str) -> str:
    from torch import nn

    kind = type(network.get_submodule(head))
    if kind not in (nn.Linear, nn.Conv2d):
        raise UsageError(
            f"--from {origin}: its head {head} is a {kind.__name__}, no Linear or Conv2d; begin with blank"
        )
    return f"Quant{kind.__name__}"


_LIBRARIES: dict[str, Callable[[str], Described]] = {"torchvision": _torchvision, "timm": _timm}
