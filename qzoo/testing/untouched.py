"""A program: builds, quantizes and runs a plugin's network, and says what that changed of what others share.

On stdin a JSON object {module, spec, path}; on stdout's last line [[what, pattern of the line to look at], ...].
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from importlib import import_module

import msgspec
import numpy as np
import torch
from torch import nn

from qzoo.errors import SpecError
from qzoo.pipeline.network import make_network
from qzoo.quant.insert import insert_quantizers
from qzoo.spec import ModelSpec, Recipe

SETTINGS: dict[str, Callable[[], object]] = {
    "default_dtype": torch.get_default_dtype,
    "default_device": torch.get_default_device,
    "num_threads": torch.get_num_threads,
    "grad_enabled": torch.is_grad_enabled,
    "deterministic_algorithms": torch.are_deterministic_algorithms_enabled,
}
"""What `torch.set_...` sets."""


def main() -> None:
    """Answer the question on stdin."""
    given = json.load(sys.stdin)
    sys.path.append(given["path"])
    spec = msgspec.convert(given["spec"], ModelSpec)
    shared, settings = _shared(), {name: read() for name, read in SETTINGS.items()}
    python, numpy = random.getstate(), repr(np.random.get_state())  # noqa: NPY002 - the global state is what is checked
    import_module(given["module"])
    states = [_use(spec, seed) for seed in (1, 2)]
    found = _changed(shared, _shared())
    found += [
        (
            f"torch's {name} is {read()} instead of {settings[name]}; set it in a context manager, or not at all",
            f"set_{name}",
        )
        for name, read in SETTINGS.items()
        if read() != settings[name]
    ]
    if torch.equal(*states):
        found.append(("building seeds torch, so --seed decides nothing; leave seeds to qzoo", r"manual_seed|\bseed\("))
    if random.getstate() != python:
        found.append(("Python's random state is changed; use a random.Random of your own", r"\brandom\.\w+\("))
    if repr(np.random.get_state()) != numpy:  # noqa: NPY002
        found.append(("NumPy's global random state is changed; use numpy.random.default_rng", r"\brandom\.\w+\("))
    sys.stdout.write("\n" + json.dumps(found) + "\n")


def _use(spec: ModelSpec, seed: int) -> torch.Tensor:
    """torch's random state after the network was built under a seed; it is quantized and run, too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = make_network(spec, spec.num_classes).eval()
        state = torch.get_rng_state()
        with torch.no_grad():
            network(torch.zeros(2, *spec.input.shape))
        try:
            insert_quantizers(network, spec, Recipe(target="onnxruntime", precision="int8"))
        except SpecError:
            return state  # that is for other checks to say
    return state


def _shared() -> dict[str, object]:
    """Everything in torch.nn, torch.nn.functional and torch.nn's classes, by its name."""
    found: dict[str, object] = {}
    for module in (nn, nn.functional, nn.init):
        for name, thing in vars(module).items():
            found[f"{module.__name__}.{name}"] = thing
            if isinstance(thing, type):
                found.update({f"{module.__name__}.{name}.{key}": value for key, value in vars(thing).items()})
    return found


def _changed(before: dict[str, object], after: dict[str, object]) -> list[tuple[str, str]]:
    names = [name for name, thing in before.items() if after.get(name) is not thing]
    roots = [name for name in names if name.rpartition(".")[0] not in names]
    return [
        (
            f"{name} is replaced, for everybody in the process; swap modules of the one network by QuantSwap",
            rf"{name.rpartition('.')[2]}\s*=[^=]|setattr\(|initialize\(",
        )
        for name in roots
    ]


if __name__ == "__main__":
    main()
