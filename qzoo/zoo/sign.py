"""Signs stored bundles."""

from __future__ import annotations

from collections.abc import Sequence

from qzoo.store import EngineFile, Entry, Reference, Store
from qzoo.zoo.gate import admit
from qzoo.zoo.keys import PrivateKey
from qzoo.zoo.signature import EMPTY_BLOB, sign_child


def sign_stored(
    reference: Reference, store: Store, key: PrivateKey, target: str | None = None, *, allow_untrusted: bool = False
) -> Sequence[Entry]:
    """Sign each bundle that a reference names, for all targets or one, and keep the signature beside it in the store.

    Everything in it is compared with its digests first. Raises NoMatchError, IntegrityError, and UntrustedEngine for
    one that was neither built here nor signed by a trusted key: whoever signs it vouches for it.
    """
    named = store.named(reference, target)
    for entry, _ in named:
        bundle = store.open(entry)
        bundle.verify()
        file = EngineFile(bundle.engine, bundle.record, reference)
        admit(file, store, allow_untrusted=allow_untrusted)
    for entry, child in named:
        sibling = sign_child(child, key, name=reference.name)
        store.attach(entry, [(sibling.descriptor, sibling.manifest)], EMPTY_BLOB)
    return [entry for entry, _ in named]
