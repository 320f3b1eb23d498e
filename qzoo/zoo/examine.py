"""What `qzoo verify` finds: files that differ from their digests, and whether engines would be loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qzoo.errors import IntegrityError
from qzoo.records import file_digest
from qzoo.store import Damage, EngineFile, Entry, Reference, Store, locate
from qzoo.zoo.gate import BUILT_HERE, judge
from qzoo.zoo.signature import Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """An engine: where it is, and why it would be loaded or not. `key` is the id of the key that decided.

    `digest` is its image manifest's, which is signed; None for one outside the store.
    """

    engine: str
    target: str | None
    digest: str | None
    trust: Literal[Status, "built here", "damaged"]
    key: str | None
    reason: str

    @property
    def loadable(self) -> bool:
        return self.trust in ("trusted", BUILT_HERE)


@dataclass(frozen=True, slots=True)
class Examination:
    """How many files are to be compared, and then which differ, and what is to be said of each engine."""

    files: int
    damage: Callable[[Callable[[], None]], Iterator[Damage]]
    engines: Callable[[], Iterator[Examined]]


def examine(words: Sequence[str], store: Store, target: str | None = None) -> Examination:
    """Look at engines: paths, and references in the store, for all targets or one; without words at all the store.

    Raises NoMatchError or UsageError for what isn't there; IntegrityError where the store's own list is damaged.
    """
    paths = [word for word in words if _is_path(word)]
    references = [Reference.parse(word) for word in words if word not in paths]
    files = [locate(word, store, target) for word in paths]
    expected = [pair for file in files for pair in _expected(file)]
    stored = store.verification(references, target) if references or not words else None
    named = [entry for one in references for entry, _ in store.named(one, target)]
    entries = named if words else store.entries()

    def damage(advance: Callable[[], None]) -> Iterator[Damage]:
        for path, digest in expected:
            found = _digest(path)
            advance()
            if found != digest:
                yield Damage(path, digest, found)
        if stored is not None:
            yield from stored.damage(advance)

    def engines() -> Iterator[Examined]:
        yield from (_judged(str(file.path), file, store) for file in files)
        yield from (_stored(entry, store) for entry in entries)

    return Examination(len(expected) + (0 if stored is None else stored.files), damage, engines)


def _is_path(word: str) -> bool:
    path = Path(word).expanduser()
    return word.startswith((".", "/", "~")) or path.is_file() or (path / "manifest.json").is_file()


def _expected(file: EngineFile) -> list[tuple[Path, str]]:
    bundle = file.bundle
    if bundle is None:
        return [(file.path, file.record.sha256)]
    return [(bundle.path / name, entry.sha256) for name, entry in sorted(bundle.manifest.files.items())]


def _digest(path: Path) -> str | None:
    try:
        return file_digest(path)
    except OSError:
        return None


def _stored(entry: Entry, store: Store) -> Examined:
    try:
        bundle = store.open(entry)
        file = EngineFile(bundle.engine, bundle.record, Reference.parse(entry.name))
        return _judged(entry.name, file, store, entry)
    except IntegrityError as error:
        digest = f"sha256:{entry.sha256}"
        return Examined(
            engine=entry.name, target=entry.target, digest=digest, trust="damaged", key=None, reason=str(error)
        )


def _judged(engine: str, file: EngineFile, store: Store, entry: Entry | None = None) -> Examined:
    found = judge(file, store)
    return Examined(
        engine=engine,
        target=str(file.record.target),
        digest=None if entry is None else f"sha256:{entry.sha256}",
        trust=BUILT_HERE if isinstance(found, str) else found.status,
        key=None if isinstance(found, str) else found.key,
        reason="it was built here" if isinstance(found, str) else found.reason,
    )
