"""Copies an engine from a zoo to the store: the one for this machine, if somebody whom this user trusts signed it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from qzoo.errors import IntegrityError, NoMatchError, RemoteError, UntrustedEngine
from qzoo.hookspecs import Backend
from qzoo.store import Bundle, Reference, Store
from qzoo.store.describe import PRECISION
from qzoo.store.layout import INDEX, SIGNS, Descriptor
from qzoo.zoo.blobs import in_parallel
from qzoo.zoo.catalog import tags_of
from qzoo.zoo.fetch import Fetch, Fetched
from qzoo.zoo.freshness import Freshness, Tagged, check_index, referrers_tag
from qzoo.zoo.remote import Document, Remote, index_of
from qzoo.zoo.resolve import Choice, Offer, buildable, choose, no_match, offers
from qzoo.zoo.signature import EMPTY, EMPTY_BLOB, Verdict, verdict
from qzoo.zoo.transfer import Transfers, Unseen
from qzoo.zoo.trust import TrustStore

GONE = 3
"""How often blobs are fetched again that a `qzoo store gc` beside the pull took away before they were in the index."""

SIGNATURES = 64
"""How many signatures of one engine are looked at: each is a request, and anybody who may push can add some."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """What a reference leads to in a zoo: the tag's index, its engines, and how fresh the tag is said to be."""

    reference: Reference
    index: Document
    offers: tuple[Offer, ...]
    freshness: Freshness | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PulledFile:
    """A file of a pulled bundle: how it came, and how many bytes were fetched now."""

    name: str
    digest: str
    size: int
    state: str
    moved_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """A bundle that a pull has put into the store, under `reference`, a name:tag."""

    reference: Reference
    bundle: Bundle
    child: Descriptor
    trust: Verdict
    files: tuple[PulledFile, ...]


class Puller:
    """Pulls from one zoo into one store."""

    def __init__(self, store: Store, remote: Remote, backends: Sequence[Backend]) -> None:
        """`backends` in order of preference."""
        self._store, self._remote, self._backends = store, remote, backends
        self._trust = TrustStore(store.home)

    def select(self, reference: Reference) -> Selected:
        """Look a reference up. Its digest, where it has one, is an index's or an engine's, and decides.

        Raises NoMatchError that lists the tags there are, SignatureError where the tag was rolled back or has expired,
        IntegrityError, RemoteError, AuthenticationError.
        """
        name, tag = reference.tagged.split(":")
        freshness = None
        if reference.digest is None:
            index = self._remote.find(name, tag)
            if index is not None:
                freshness = self._fresh(name, tag, index)
        else:
            index = self._by_digest(reference, f"sha256:{reference.digest}")
        if index is None:
            there = ", ".join(f"{name}:{one}" for one in tags_of(self._remote, name))
            raise NoMatchError(
                f"{reference} is not in {self._remote.location}; there is {there or f'nothing called {name}'}"
                f"{'' if there else ': qzoo catalog lists what there is'}"
            )
        found = tuple(offers(index, self._backends))
        return Selected(reference=reference, index=index, offers=found, freshness=freshness)

    def choose(self, selected: Selected, target: str | None) -> Choice:
        """The engine to take. Raises NoMatchError that lists what there is."""
        return choose(selected.offers, str(selected.reference), target)

    def to_build_from(self, selected: Selected, target: str | None) -> Offer:
        """The engine whose portable graph is to be built for this machine. Raises NoMatchError."""
        found = buildable(selected.offers, self._backends, target)
        if found is None:
            raise no_match(selected.offers, str(selected.reference), target)
        return found

    def trust_in(self, selected: Selected, offer: Offer) -> tuple[Verdict, list[tuple[Descriptor, Document]]]:
        """What the signatures of an engine say of it, and they themselves."""
        name = selected.reference.name
        beside = [one for one in selected.index.children() if one.annotations.get(SIGNS) == offer.child.digest]
        found = [(one, self._signature(name, one)) for one in beside[:SIGNATURES]]
        signatures = [(one, document) for one, document in found if document is not None]
        judged = verdict(offer.child.digest, [one.data for _, one in signatures], self._trust, name=name)
        return judged, signatures

    def pull(
        self,
        selected: Selected,
        offer: Offer,
        *,
        allow_untrusted: bool = False,
        transfers: Transfers | None = None,
    ) -> Pulled:
        """Fetch an engine's files, check each, and put the bundle into the store under the reference's name:tag.

        Raises UntrustedEngine, before anything is fetched, unless a trusted key signed it or `allow_untrusted`;
        IntegrityError where a byte is not what its digest says.
        """
        name = selected.reference.name
        judged, signatures = self.trust_in(selected, offer)
        if judged.status != "trusted" and not allow_untrusted:
            raise UntrustedEngine(
                f"{selected.reference} for {offer.target} is not pulled: {judged.reason}. Trust its key (qzoo key "
                "trust), rebuild it from its portable graph, which is data (--build), or take it as it is "
                "(--allow-untrusted)"
            )
        document = self._manifest(selected, offer)
        child = document.described()
        stored = _stored_as(selected.reference, child)
        fetch = Fetch(remote=self._remote, name=name, partial=self._store.cache / "pulls")
        for _ in range(GONE):
            for data in (document.data, *(one.data for _, one in signatures), EMPTY_BLOB):
                self._store.layout.add_blob(data, "application/octet-stream")
            files = self._fetched(fetch, child, transfers or Unseen())
            bundle = self._store.receive(stored.tagged, child, [one for one, _ in signatures])
            if bundle is not None:
                return Pulled(reference=stored, bundle=bundle, child=child, trust=judged, files=tuple(files))
        raise RemoteError(f"{selected.reference}: what was fetched was removed each time; is `qzoo store gc` running?")

    def _fresh(self, name: str, tag: str, index: Document) -> Freshness | None:
        referrers = self._remote.find(name, referrers_tag(index.digest))
        return check_index(
            None if referrers is None else referrers.data,
            Tagged(registry=self._remote.registry, name=name, tag=tag),
            index.digest,
            self._trust,
            origin=self._remote.location,
        )

    def _by_digest(self, reference: Reference, digest: str) -> Document | None:
        """The index of that digest; of an engine's digest, an index of it and of its signatures in the tag."""
        document = self._remote.find(reference.name, digest)
        if document is None or document.media_type == INDEX:
            return document
        _, tag = _stored_as(reference, document.described()).tagged.split(":")
        tagged = self._remote.find(reference.name, tag)
        listed = [] if tagged is None else tagged.children()
        own = [one for one in listed if digest in (one.digest, one.annotations.get(SIGNS))]
        if any(one.digest == digest for one in own):
            return index_of(own)
        return index_of([document.described()])

    def _signature(self, name: str, descriptor: Descriptor) -> Document | None:
        """A signature's manifest; None for what is none, as it has content: that would have to be kept too."""
        document = self._remote.find(name, descriptor.digest)
        if document is None or any(one.digest != EMPTY.digest for one in document.blobs()):
            return None
        return document

    def _manifest(self, selected: Selected, offer: Offer) -> Document:
        """An engine's manifest. Raises IntegrityError where it is not what the index says."""
        document = self._remote.find(selected.reference.name, offer.child.digest)
        if document is None:
            raise IntegrityError(
                f"{selected.reference}: its index lists {offer.child.digest}, which is not in {self._remote.location}; "
                "ask who publishes it to push it again"
            )
        document.blobs()  # each with a digest that may become a file's name
        if document.described() != offer.child:
            raise IntegrityError(
                f"{selected.reference}: its index says of {offer.child.digest} what that doesn't say of itself; don't "
                "use it"
            )
        return document

    def _fetched(self, fetch: Fetch, child: Descriptor, transfers: Transfers) -> list[PulledFile]:
        files = sorted(self._store.layout.files_of(child).items(), key=lambda one: -one[1].size)
        first = {blob.digest: what for what, blob in reversed(files)}  # one blob may be several files
        calls = [
            partial(self._fetch_one, fetch, what, blob, transfers) for what, blob in files if first[blob.digest] == what
        ]
        return in_parallel(calls, fetch.stop)

    def _fetch_one(self, fetch: Fetch, what: str, blob: Descriptor, transfers: Transfers) -> PulledFile:
        transfers.begin(what, blob.size)
        into = self._store.layout.blob_path(blob.sha256)
        found: Fetched = fetch.blob(blob, what, into, partial(transfers.moved, what))
        transfers.done(what, found.state)
        return PulledFile(
            name=what, digest=blob.digest, size=blob.size, state=found.state, moved_bytes=found.moved_bytes
        )


def _stored_as(reference: Reference, child: Descriptor) -> Reference:
    """The name and tag that an engine is stored under: the reference's; of a digest alone, the engine's precision."""
    if reference.tag is not None or reference.digest is None:
        return Reference(reference.name, reference.tag)
    return Reference.parse(f"{reference.name}:{child.annotations.get(PRECISION, 'int8').replace('+', '-')}")
