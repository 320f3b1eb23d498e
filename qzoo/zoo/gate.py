"""Which engines may be loaded: those that were built here, and those that a trusted key signed.

Most engines are native code: to load one is to run it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from qzoo.errors import UntrustedEngine
from qzoo.records import file_digest
from qzoo.store import EngineFile, Entry, Store
from qzoo.store.bundle import sidecar
from qzoo.zoo.signature import Verdict, verdict
from qzoo.zoo.trust import TrustStore

BUILT_HERE: Literal["built here"] = "built here"


def judge(file: EngineFile, store: Store) -> Literal["built here"] | Verdict:
    """BUILT_HERE, or the best verdict of the signatures of those stored bundles that hold this engine.

    Of an engine that was asked for by name only the signatures under this name count. Its file is not compared with its
    record here. Raises IntegrityError where the store is damaged.
    """
    digest = file.record_sha256
    if digest in store.origins:
        return BUILT_HERE
    name = None if file.reference is None else file.reference.name
    entries = [entry for entry in store.holding(digest) if name in (None, entry.name.partition(":")[0])]
    found = [signatures_of(entry, store) for entry in entries]
    trusted = [one for one in found if one.status == "trusted"]
    alone = Verdict(status="unsigned", key=None, reason="it is no bundle's of the store, so no signature covers it")
    return (trusted or found or [alone])[0]


def signatures_of(entry: Entry, store: Store) -> Verdict:
    """What its signatures say of a stored bundle. Raises IntegrityError where the store is damaged."""
    name = entry.name.partition(":")[0]
    manifests = [store.layout.read(sibling) for sibling in store.siblings(entry)]
    return verdict(f"sha256:{entry.sha256}", manifests, TrustStore(store.home), name=name)


def answers(file: EngineFile, store: Store) -> bool:
    """Whether an engine with the id of a build may stand for that build.

    Anybody can publish a bundle with any id, and what was rebuilt from a portable graph is as good as that graph: so it
    was built here from its weights, or a trusted key signed it.
    """
    found = judge(file, store)
    return store.origins.from_weights(file.record_sha256) if isinstance(found, str) else found.status == "trusted"


def admit(file: EngineFile, store: Store, *, allow_untrusted: bool = False) -> bool:
    """Whether the engine was built here; raise UntrustedEngine unless it may be loaded, or `allow_untrusted`."""
    found = judge(file, store)
    if isinstance(found, str):
        return True
    if found.status != "trusted" and not allow_untrusted:
        ways = ["trust the key: qzoo key trust"] if found.status == "untrusted" else []
        ways += ["rebuild it here from its portable graph, which is data: --build with qzoo pull or qzoo run"]
        ways += ["load it all the same, as code that may do anything: --allow-untrusted"]
        raise UntrustedEngine(
            f"{file.path} is not loaded: it was not built here, and {found.reason}. Ways out: {'; '.join(ways)}"
        )
    return False


def admit_built(engine: Path, store: Store, *, allow_untrusted: bool = False) -> None:
    """Raise UntrustedEngine unless an engine that is in no bundle was built here, or `allow_untrusted`."""
    record = sidecar(engine)
    if not allow_untrusted and record.is_file() and file_digest(record) not in store.origins:
        raise UntrustedEngine(
            f"{engine} is not loaded: it was not built here, and it is in no bundle that could be signed. Build it "
            "here from its graph, or load it as code that may do anything: --allow-untrusted"
        )
