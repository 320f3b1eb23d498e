"""The engine that a reference names in a zoo: pulled, or rebuilt from what was pulled."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from qzoo.errors import NoMatchError, UntrustedEngine
from qzoo.store import Bundle, Reference
from qzoo.zoo.pull import Pulled, Puller, Selected
from qzoo.zoo.transfer import Transfers, Unseen

MayBuild = Callable[[NoMatchError | UntrustedEngine], bool]
"""Told why nothing published can be used as it is: whether to rebuild instead."""
Rebuild = Callable[[Bundle, Reference], Bundle]
"""Builds the engine of a bundle anew for this machine, and stores it by a reference: `qzoo.pipeline.rebuild`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Obtained:
    """A bundle in the store, and why this one. `pulled` is it, or what it was rebuilt from."""

    bundle: Bundle
    reason: str
    rebuilt: bool
    selected: Selected
    pulled: Pulled


def obtain(
    puller: Puller,
    reference: Reference,
    rebuild: Rebuild,
    *,
    target: str | None = None,
    may_build: MayBuild = lambda _: False,
    allow_untrusted: bool = False,
    transfers: Callable[[], AbstractContextManager[Transfers]] = lambda: nullcontext(Unseen()),
) -> Obtained:
    """Pull the engine of a reference for this machine, or for `target`; else rebuild it, where `may_build` says so.

    What is rebuilt comes from the portable graph of an engine for the same runtime, which need not be trusted, as it
    is data; it is verified, and held to the fidelity that was published with it. `transfers` shows what moves, and is
    over before anything is asked or built. See `Puller` for what is raised, and `rebuild`.
    """
    selected = puller.select(reference)
    try:
        choice = puller.choose(selected, target)
        with transfers() as shown:
            pulled = puller.pull(selected, choice.offer, allow_untrusted=allow_untrusted, transfers=shown)
    except (NoMatchError, UntrustedEngine) as error:
        if not may_build(error):
            raise
        source = puller.to_build_from(selected, target)
        with transfers() as shown:
            pulled = puller.pull(selected, source, allow_untrusted=True, transfers=shown)
        reason = f"rebuilt here from the portable graph that was published for {source}"
        bundle = rebuild(pulled.bundle, pulled.reference)
        return Obtained(bundle=bundle, reason=reason, rebuilt=True, selected=selected, pulled=pulled)
    return Obtained(bundle=pulled.bundle, reason=choice.reason, rebuilt=False, selected=selected, pulled=pulled)
