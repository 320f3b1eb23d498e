"""Which of a tag's engines is the one for this machine, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qzoo.errors import NoMatchError, TargetError
from qzoo.hookspecs import Backend
from qzoo.records import Target
from qzoo.store.describe import OS, operating_system, target_of
from qzoo.store.layout import SIGNS, Descriptor
from qzoo.zoo.remote import Document


@dataclass(frozen=True, slots=True)
class Offer:
    """A published engine, and why it doesn't run here: None where it does."""

    child: Descriptor
    target: Target
    misfit: str | None

    def __str__(self) -> str:
        return f"{self.target} with {self.target.runtime} {self.target.version}"


@dataclass(frozen=True, slots=True)
class Choice:
    """The engine to take, why, and whether it runs on this machine."""

    offer: Offer
    reason: str

    @property
    def fits(self) -> bool:
        return self.offer.misfit is None


def offers(index: Document, backends: Sequence[Backend]) -> list[Offer]:
    """A tag's engines, each looked at from this machine, whose backends come in order of preference."""
    known = {backend.name: backend for backend in backends}
    found = []
    for child in index.children():
        target = target_of(child)
        if SIGNS not in child.annotations and target is not None:
            found.append(Offer(child, target, _misfit(child, target, known.get(target.runtime))))
    order = {name: place for place, name in enumerate(known)}
    return sorted(found, key=lambda one: (order.get(one.target.runtime, len(order)), str(one.target), one.child.digest))


def choose(found: Sequence[Offer], reference: str, wanted: str | None) -> Choice:
    """The offer to take. `wanted`, a runtime or a whole target, overrides what fits here.

    Raises NoMatchError that lists what there is, and why none of it fits.
    """
    named = [one for one in found if wanted is None or wanted in (str(one.target), one.target.runtime)]
    fitting = [one for one in named if one.misfit is None]
    if fitting:
        others = ", ".join(sorted({str(one.target) for one in fitting[1:]}))
        reason = f"runs here{f', preferred to {others}' if others else ''}"
        return Choice(fitting[0], f"{reason}, asked for with --target" if wanted else reason)
    if wanted is not None and named:
        return Choice(named[0], f"asked for with --target, but doesn't run here: {named[0].misfit}")
    raise no_match(found, reference, wanted)


def no_match(found: Sequence[Offer], reference: str, wanted: str | None) -> NoMatchError:
    """What to say where nothing fits."""
    if not found:
        return NoMatchError(f"{reference} holds no engine; ask who publishes it, or `qzoo build` it")
    if wanted is not None:
        there = ", ".join(map(str, found))
        return NoMatchError(f"{reference} has no engine for {wanted}; there is {there}")
    why = "; ".join(f"{one}: {one.misfit}" for one in found)
    return NoMatchError(
        f"{reference} has no engine for this machine ({why}); --build makes one from its portable graph, --target "
        "takes one of these all the same"
    )


def buildable(found: Sequence[Offer], backends: Sequence[Backend], wanted: str | None) -> Offer | None:
    """The offer whose portable graph can be built for this machine, by the first backend that works here."""
    works = {backend.name for backend in backends if backend.probe().works}
    named = [one for one in found if wanted is None or wanted in (str(one.target), one.target.runtime)]
    return next((one for one in named if one.target.runtime in works), None)


def _misfit(child: Descriptor, target: Target, backend: Backend | None) -> str | None:
    if backend is None:
        return f"no plugin here knows {target.runtime}"
    probe = backend.probe()
    if not probe.works:
        return probe.reason
    system = child.annotations.get(OS, operating_system())
    if system != operating_system():
        return f"it is for {system}, this machine runs {operating_system()}"
    if backend.runs(target):
        return None
    try:
        here = backend.target()
    except TargetError as error:
        return str(error)
    return f"this machine is {here} with {here.runtime} {here.version}"
