"""Checks of what a plugin declares and what it touches, each in a process of its own where imports matter."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields
from typing import TypeVar

import msgspec

from qzoo.errors import IntegrityError
from qzoo.records import decode, encode
from qzoo.spec import ModelSpec
from qzoo.testing.evidence import Evidence, Fault
from qzoo.testing.subject import Subject
from qzoo.testing.where import line_of_pattern, line_of_text

T = TypeVar("T")

HEAVY = ("torch", "torchvision", "timm", "pytorch_quantization", "onnxruntime", "openvino", "onnxscript")
"""What listing models must not import."""
TIMEOUT = 300
"""Seconds that a process of a check may take."""


def spec_round_trips(subject: Subject) -> Evidence:
    """The spec, its recipes and preprocessing with it, is the same after JSON: that is how it travels in records."""
    spec = subject.spec
    try:
        back = decode(encode(spec), ModelSpec, f"the spec of {spec.name}")
    except (TypeError, IntegrityError) as error:
        where = line_of_text(subject.root, "builder_args")
        return Evidence("", (Fault(f"the spec can't be written as JSON and read back: {error}", where),))
    faults = tuple(
        Fault(
            f"{field.name} {getattr(spec, field.name)!r} comes back from JSON as {getattr(back, field.name)!r}",
            line_of_pattern(subject.root, rf"\b{field.name}\s*=[^=]"),
        )
        for field in fields(ModelSpec)
        if getattr(back, field.name) != getattr(spec, field.name)
    )
    return Evidence(f"{len(fields(ModelSpec))} fields, {len(spec.recipes)} recipes", faults)


def listing_imports_no_torch(subject: Subject) -> Evidence:
    """Importing the plugin and asking its hook for models loads nothing of HEAVY, in a new process."""
    provenance = subject.entry.provenance
    found = _in_new_process(
        "qzoo.testing.listing", subject, {"module": provenance.module, "heavy": HEAVY}, list[tuple[str, str | None]]
    )
    faults = tuple(
        Fault(f"listing the models imports {name}; import it inside the function that needs it", where)
        for name, where in found[:1]  # whatever comes after, the first brings
    )
    return Evidence(f"none of {', '.join(HEAVY)}", faults)


def no_global_state_is_touched(subject: Subject) -> Evidence:
    """Importing, building, quantizing and running the network changes nothing that others share.

    torch.nn and its classes, torch's settings, and the random states of torch, NumPy and Python; in a new process.
    """
    given = {"module": subject.entry.provenance.module, "spec": msgspec.to_builtins(subject.spec)}
    found = _in_new_process("qzoo.testing.untouched", subject, given, list[tuple[str, str]])
    faults = tuple(Fault(text, line_of_pattern(subject.root, pattern)) for text, pattern in found)
    return Evidence("torch.nn, torch's settings and three random states are as they were", faults)


def _in_new_process(program: str, subject: Subject, given: dict[str, object], kind: type[T]) -> T:
    base = subject.root.parent
    for _ in range(subject.entry.provenance.module.count(".")):
        base = base.parent
    question = msgspec.json.encode({**given, "path": str(base), "root": str(subject.root)})
    done = subprocess.run(
        [sys.executable, "-m", program],
        input=question,
        capture_output=True,
        check=False,
        timeout=TIMEOUT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr.decode(errors="replace").strip().splitlines()[-1])
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=kind)
