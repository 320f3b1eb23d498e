"""Copies bundles from the store to a zoo."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from qzoo.errors import UsageError
from qzoo.records import Manifest, decode
from qzoo.store import Entry, Reference, Store, verify_file
from qzoo.store.bundle import MANIFEST, sidecar
from qzoo.store.layout import Descriptor
from qzoo.zoo.blobs import in_parallel
from qzoo.zoo.catalog import announce
from qzoo.zoo.empty import put_empty
from qzoo.zoo.freshness import Tagged, list_referrer, referrers_tag, sign_index, stated_version
from qzoo.zoo.merge import publish
from qzoo.zoo.remote import Document, Remote
from qzoo.zoo.signature import EMPTY_BLOB, sign_child
from qzoo.zoo.transfer import Transfers, Unseen
from qzoo.zoo.trust import TrustStore

if TYPE_CHECKING:
    from qzoo.zoo.keys import PrivateKey


@dataclass(frozen=True, slots=True, kw_only=True)
class PushedEngine:
    """An engine of a push: its target, its manifest's digest, and how many signatures went with it."""

    target: str
    digest: str
    signatures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What a push did. `digest` is the tag's index, others' engines in it; blobs and bytes are those uploaded now."""

    reference: str
    registry: str
    digest: str
    engines: tuple[PushedEngine, ...]
    uploaded_blobs: int
    uploaded_bytes: int


@dataclass(frozen=True, slots=True)
class _Stored:
    """A bundle to push."""

    entry: Entry
    child: Descriptor
    manifest: Manifest
    files: dict[str, Descriptor]


def push(
    store: Store,
    remote: Remote,
    reference: Reference,
    *,
    target: str | None = None,
    key: PrivateKey | None,
    transfers: Transfers | None = None,
) -> Pushed:
    """Push what a reference names, for `target` (a runtime or a whole target) or all, into the tag of that name.

    What is there is not uploaded again; engines of other targets stay in the tag, also those pushed at the same time.
    With `key` are signed the engines that were built here, and what the tag means now; None: nothing. Signatures that
    stand beside an engine in the store go with it.

    Raises NoMatchError for what isn't stored, UsageError for random weights, IntegrityError where the store was
    changed, RemoteError, AuthenticationError.
    """
    name, tag = reference.tagged.split(":")
    bundles = [_read(store, entry, child) for entry, child in store.named(reference, target)]
    if key is not None:
        for bundle in bundles:
            _sign(store, bundle, key)
    sizes = _upload(store, remote, name, bundles, transfers or Unseen())
    put_empty(remote, name)
    parts = [_put_manifests(store, remote, name, bundle) for bundle in bundles]
    attest = (
        None
        if key is None
        else partial(_attest, remote, Tagged(registry=remote.registry, name=name, tag=tag), key, TrustStore(store.home))
    )
    index = publish(remote, name, tag, parts, attest)
    announce(remote, name, tag)
    return Pushed(
        reference=f"{name}:{tag}",
        registry=remote.location,
        digest=index.digest,
        engines=tuple(
            PushedEngine(target=bundle.entry.target, digest=part[0].digest, signatures=len(part) - 1)
            for bundle, part in zip(bundles, parts, strict=True)
        ),
        uploaded_blobs=len(sizes),
        uploaded_bytes=sum(sizes),
    )


def _read(store: Store, entry: Entry, child: Descriptor) -> _Stored:
    files = store.layout.files_of(child)
    manifest = decode(store.layout.read(files[MANIFEST]), Manifest, store.layout.blob_path(files[MANIFEST].sha256))
    if manifest.inputs.weights.kind == "random":
        raise UsageError(
            f"{entry.name} for {entry.target} has random weights, which only show latency and can't be pushed; build "
            "it with trained ones"
        )
    return _Stored(entry, child, manifest, files)


def _sign(store: Store, bundle: _Stored, key: PrivateKey) -> None:
    """Sign an engine that was built here: another's native code is for its builder to vouch for."""
    record = bundle.files.get(sidecar(Path(bundle.manifest.engine)).name)
    if record is not None and record.sha256 in store.origins:
        signed = sign_child(bundle.child, key, name=bundle.entry.name.rpartition(":")[0])
        store.attach(bundle.entry, [(signed.descriptor, signed.manifest)], EMPTY_BLOB)


def _upload(store: Store, remote: Remote, name: str, bundles: list[_Stored], transfers: Transfers) -> list[int]:
    """Upload the blobs that are missing; the size of each of them."""
    named = {
        file.digest: (what if len(bundles) == 1 else f"{bundle.entry.target} {what}", file)
        for bundle in bundles
        for what, file in bundle.files.items()
    }
    calls = [partial(_upload_one, store, remote, name, what, file, transfers) for what, file in named.values()]
    return [size for size in in_parallel(calls, Event()) if size is not None]


def _upload_one(
    store: Store, remote: Remote, name: str, what: str, blob: Descriptor, transfers: Transfers
) -> int | None:
    transfers.begin(what, blob.size)
    if remote.has(name, blob):
        transfers.moved(what, blob.size)
        transfers.done(what, "already there")
        return None
    path = store.layout.blob_path(blob.sha256)
    verify_file(path, blob.sha256)
    remote.put_blob(name, blob, path, partial(transfers.moved, what))
    transfers.done(what, "uploaded")
    return blob.size


def _put_manifests(store: Store, remote: Remote, name: str, bundle: _Stored) -> list[Descriptor]:
    """Publish a bundle's manifest and those of its signatures; their descriptors, as an index lists them."""
    part = [bundle.child, *store.siblings(bundle.entry)]
    for one in part:
        document = Document(store.layout.read(one))
        if remote.find(name, one.digest) is None:
            remote.put_document(name, one.digest, document)
    return part


def _attest(
    remote: Remote, tagged: Tagged, key: PrivateKey, trust: TrustStore, before: Document | None, index: Document
) -> None:
    """State, signed, that the tag means `index` from now on, and no longer `before`."""
    place = referrers_tag(index.digest)
    listed = remote.find(tagged.name, place)
    older = None if before is None else remote.find(tagged.name, referrers_tag(before.digest))
    above = max(stated_version(None if one is None else one.data, trust, key.public) for one in (listed, older))
    referrer = sign_index(index.descriptor, tagged, key, above=above)
    remote.put_document(tagged.name, referrer.descriptor.digest, Document(referrer.manifest))
    data = list_referrer(None if listed is None else listed.data, referrer)
    remote.put_document(tagged.name, place, Document(data))
