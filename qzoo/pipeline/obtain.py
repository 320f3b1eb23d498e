"""The engine that a reference names in a zoo, pulled, or rebuilt from what was pulled. Loads no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from qzoo.errors import NoMatchError, UntrustedEngine
from qzoo.pipeline.progress import Progress, Silent
from qzoo.pipeline.rebuild import rebuild
from qzoo.registry import Registry
from qzoo.store import Bundle, Reference, Store
from qzoo.zoo.pull import Pulled, Puller, Selected
from qzoo.zoo.remote import Remote
from qzoo.zoo.resolve import Offer
from qzoo.zoo.transfer import Transfers, Unseen

MayBuild = Callable[[NoMatchError | UntrustedEngine], bool]
"""Told why nothing published can be used as it is: whether to rebuild instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Obtained:
    """A bundle in the store, and why this one. `pulled` is it, or what it was rebuilt from."""

    bundle: Bundle
    reason: str
    rebuilt: bool
    selected: Selected
    pulled: Pulled


def obtain(
    remote: Remote,
    store: Store,
    registry: Registry,
    reference: Reference,
    *,
    target: str | None = None,
    may_build: MayBuild = lambda _: False,
    allow_untrusted: bool = False,
    transfers: Transfers | None = None,
    progress: Progress | None = None,
) -> Obtained:
    """Pull the engine of a reference for this machine, or for `target`; else rebuild it, where `may_build` says so.

    What is rebuilt comes from the portable graph of an engine for the same runtime, which need not be trusted, as it
    is data; it is verified, and held to the fidelity that was published with it. See `qzoo.zoo.pull` for what is
    raised, and `rebuild`.
    """
    puller, shown = Puller(store, remote, registry.preferred()), transfers or Unseen()
    selected = puller.select(reference)
    try:
        choice = puller.choose(selected, target)
        pulled = puller.pull(selected, choice.offer, allow_untrusted=allow_untrusted, transfers=shown)
    except (NoMatchError, UntrustedEngine) as error:
        if not may_build(error):
            raise
        source = puller.to_build_from(selected, target)
        pulled = puller.pull(selected, source, allow_untrusted=True, transfers=shown)
        bundle = rebuild(pulled.bundle, registry, store, progress or Silent(), reference.name)
        return Obtained(bundle=bundle, reason=_why(source), rebuilt=True, selected=selected, pulled=pulled)
    return Obtained(bundle=pulled.bundle, reason=choice.reason, rebuilt=False, selected=selected, pulled=pulled)


def _why(source: Offer) -> str:
    return f"rebuilt here from the portable graph that was published for {source}"
