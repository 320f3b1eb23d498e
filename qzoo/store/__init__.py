"""The local store: an OCI image layout under QZOO_HOME, and beside it each bundle as a directory of plain files.

$QZOO_HOME/store/            the layout; its index.json, written last, decides what is there
$QZOO_HOME/bundles/<id>/     hard links to the blobs, under their own names
$QZOO_HOME/built/<sha256>    which engines were built here (`qzoo.store.origin`)
$QZOO_HOME/cache/            downloads; may be deleted
$QZOO_HOME/store.lock        held by whoever writes to the first two, from the first byte to the last
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from qzoo.errors import IntegrityError, NoMatchError, UsageError
from qzoo.records import Manifest, Measurement, decode, digest_of, encode, file_digest
from qzoo.store.bundle import LAYERS, MANIFEST, MEASUREMENT, Bundle, sidecar
from qzoo.store.checks import check_put, check_received
from qzoo.store.describe import describe
from qzoo.store.engine_file import EngineFile, locate, names_engine
from qzoo.store.files import is_sha256, link_or_copy, new_directory, verify_file
from qzoo.store.gc import GcReport, collect, freed_by, remove
from qzoo.store.layout import BUNDLE_ID, REF_NAME, SIGNS, TARGET, Descriptor, Layout
from qzoo.store.origin import Origins
from qzoo.store.reference import Reference, tag_for
from qzoo.store.verify import Damage, Verification
from qzoo.writing import write_file, writing

__all__ = [
    "LAYERS",
    "MEASUREMENT",
    "Bundle",
    "Damage",
    "EngineFile",
    "Entry",
    "GcReport",
    "Reference",
    "Store",
    "Verification",
    "destination",
    "locate",
    "names_engine",
    "tag_for",
    "verify_file",
    "write_file",
]

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """What the index says of one bundle: its name:tag, target and id, and the digest that a reference may give."""

    name: str
    target: str
    id: str
    sha256: str


class Store:
    """The bundles of one home directory."""

    def __init__(self, home: Path) -> None:
        self.home = home.expanduser().absolute()
        self.layout = Layout(self.home / "store")
        self.origins = Origins(self.home / "built")

    @classmethod
    def default(cls, env: Mapping[str, str] = os.environ) -> Store:
        """The store under QZOO_HOME, else under the platform's directory for user data."""
        if env.get("QZOO_HOME"):
            return cls(Path(env["QZOO_HOME"]))
        from platformdirs import user_data_path

        return cls(user_data_path("qzoo", appauthor=False))

    def find(self, bundle_id: str) -> Bundle | None:
        """The bundle of that id, or None. Reads no large file; one whose directory is gone is checked out again."""
        for _, descriptor in self._children():
            if descriptor.annotations.get(BUNDLE_ID) == bundle_id:
                return self._checked_out(bundle_id, descriptor)
        return None

    def put(
        self, name: str, tag: str, manifest: Manifest, files: Mapping[str, bytes], *, rebuilt: bool = False
    ) -> Bundle:
        """Store a bundle under `name:tag`; the one there for the same target is replaced, others stay.

        `files` are all but manifest.json, measurement.json among them. Only what this process built may be put: it
        counts as built here, from its weights or, `rebuilt`, from a bundle's graph. What was edited in the store since
        it was written is written anew; where that is a tag's list of targets, the others are forgotten, with a warning.
        Raises IntegrityError where the files are not what the manifest says, StoreError where the store can't be
        written: then nothing of it is visible.
        """
        check_put(manifest, files)
        target = str(manifest.inputs.target)
        with self._lock():
            measurement = decode(files[MEASUREMENT], Measurement, MEASUREMENT)
            annotations = describe(manifest, measurement)
            descriptor = self.layout.add_bundle(encode(manifest), files, annotations)
            self._check_out(manifest.id, {MANIFEST: encode(manifest), **files})
            record = digest_of(files[sidecar(Path(manifest.engine)).name])
            self.origins.add(record, f"{name}:{tag} for {target}", from_weights=not rebuilt)
            others, siblings = self._readable(f"{name}:{tag}")
            others = [child for child in others if child.annotations[TARGET] != target]
            self._tag(f"{name}:{tag}", [*others, descriptor], siblings)
        return Bundle.open(self._place(manifest.id))

    def attach(self, entry: Entry, siblings: Sequence[tuple[Descriptor, bytes]], blob: bytes) -> None:
        """Put image manifests into a tag's index beside the bundle that they name (SIGNS), `blob` being their content.

        Raises NoMatchError where that bundle is gone, StoreError.
        """
        with self._lock():
            children, others = self._children_of(entry.name), self._siblings_of(entry.name)
            if all(child.sha256 != entry.sha256 for child in children):
                raise NoMatchError(f"{entry.name}@sha256:{entry.sha256} is no longer in the store")
            self.layout.add_blob(blob, "application/octet-stream")
            for descriptor, manifest in siblings:
                self.layout.add_blob(manifest, descriptor.mediaType)
            new = {descriptor.digest: descriptor for descriptor, _ in siblings}
            self._tag(entry.name, children, [*(one for one in others if one.digest not in new), *new.values()])

    def receive(self, name: str, child: Descriptor, siblings: Sequence[Descriptor]) -> Bundle | None:
        """Take a bundle from elsewhere, whose blobs are in the layout, under `name:tag`, as `put` does one built here.

        The caller has compared the blobs with their digests. Returns None where blobs of it are gone: nothing named
        them, and `gc` may have run. Raises IntegrityError where they don't make a bundle, StoreError.
        """
        with self._lock():
            if not self._are_there([child, *siblings]):
                return None
            files = self.layout.files_of(child)
            if not self._are_there(files.values()):
                return None
            check_received(self.layout, child, files)
            place = self._place(child.annotations[BUNDLE_ID])
            if not all(_is_file(place / name_, file.sha256) for name_, file in files.items()):
                self._link(place, files)
            children, beside = self._readable(name)
            others = [one for one in children if one.annotations[TARGET] != child.annotations[TARGET]]
            new = {one.digest: one for one in (*beside, *siblings)}
            self._tag(name, [*others, child], list(new.values()))
        return Bundle.open(place)

    def named(self, reference: Reference, target: str | None = None) -> Sequence[tuple[Entry, Descriptor]]:
        """The entries that a reference names, for `target` where given, and their image manifests' descriptors.

        Raises NoMatchError that lists what there is.
        """
        found = self._matching(reference, target)
        if not found:
            raise self._no_match(reference, target)
        return [(_entry(reference.tagged, child), child) for child in found]

    def siblings(self, entry: Entry) -> Sequence[Descriptor]:
        """What stands in a tag's index beside a bundle and names it, as its signatures do."""
        return [one for one in self._siblings_of(entry.name) if one.annotations[SIGNS] == f"sha256:{entry.sha256}"]

    def holding(self, sha256: str) -> Sequence[Entry]:
        """The entries that hold a file with this digest; a damaged one is passed over, with a warning."""
        return [_entry(name, child) for name, child in self._children() if self._holds(child, sha256)]

    def remove(self, *references: Reference, target: str | None = None) -> Sequence[Entry]:
        """Forget the bundles that references (default tag int8) name, for `target` where given; all or none of them.

        Their files stay until `gc`. A tag whose list of targets is damaged can be forgotten only as a whole, and what
        was in it can't be returned. Raises NoMatchError that lists what there is.
        """
        named: dict[str, list[Descriptor]] = {}
        with self._lock():
            for reference in references:
                gone = named.setdefault(reference.tagged, [])
                gone += [child for child in self._removable(reference, target) if child not in gone]
            for name, gone in named.items():
                children, siblings = self._readable(name)
                self._tag(name, [child for child in children if child not in gone], siblings)
        return [_entry(name, child) for name, gone in named.items() for child in gone]

    def gc(self, *, dry_run: bool = False) -> GcReport:
        """Remove blobs and bundle directories that no tag reaches, and what killed processes left half-written.

        Safe beside processes that write: they and this wait for each other. A process that still reads a bundle which
        was replaced or removed must have its files open. Whole files in the cache are not touched. With `dry_run`
        nothing is removed, and the report is what would be.
        """
        with self._lock(), writing(self.home):
            bundles, origins = self.home / "bundles", self.origins.folder
            return collect(self.layout, bundles, origins, self.cache, dry_run=dry_run)

    @property
    def cache(self) -> Path:
        """Where downloads and decoded images are kept. All of it can be made again, given a network."""
        return self.home / "cache"

    def cache_bytes(self) -> int:
        """What `empty_cache` would free."""
        return freed_by(self._cached())

    def empty_cache(self) -> None:
        """Remove all that is in the cache. A process that downloads into it meanwhile fails and can be repeated."""
        with writing(self.cache):
            remove(self._cached())

    def disk_bytes(self) -> int:
        """What all blobs take, reached or not; bundles are links to them."""
        return sum(path.stat().st_size for path in self.layout.stored())

    def verification(self, references: Sequence[Reference] = (), target: str | None = None) -> Verification:
        """The digests to compare: of what these references name, or of everything, leftovers too.

        Raises NoMatchError that lists what there is; IntegrityError where the list of what is there isn't valid.
        """
        roots: list[Descriptor] = []
        for reference in references:
            found = self._matching(reference, target)
            if not found:
                raise self._no_match(reference, target)
            roots += found
        if not references:
            roots = self.layout.read_index().manifests
        return Verification(self.layout, self.home / "bundles", roots, unreached=not references)

    def verify(self) -> Iterator[Damage]:
        """Every blob and bundle file that isn't what its digest says; reads all of them (`qzoo.store.verify`)."""
        return self.verification().damage()

    def entries(self) -> Sequence[Entry]:
        """What the index lists, by name and target. Opens no bundle."""
        return [_entry(name, child) for name, child in self._children()]

    def open(self, entry: Entry) -> Bundle:
        """The bundle of an entry. Raises IntegrityError where it is damaged, NoMatchError where it is gone since."""
        bundle = self.find(entry.id)
        if bundle is None:
            raise NoMatchError(
                f"{entry.name} for {entry.target} is no longer in the store; `qzoo store ls` shows what is"
            )
        return bundle

    def list(self) -> list[tuple[str, Bundle]]:
        """Every (name:tag, bundle), by name and target."""
        return [
            (name, self._checked_out(descriptor.annotations[BUNDLE_ID], descriptor))
            for name, descriptor in self._children()
        ]

    def resolve(self, reference: Reference, target: str | None = None, prefer: Sequence[str] = ()) -> Bundle:
        """The bundle that a reference (default tag int8) names, for `target` where that is given.

        `target` is a runtime or a whole target, as those in `prefer` are: where several fit, the first of these that
        fits one decides. Raises NoMatchError that lists what there is.
        """
        found = self._matching(reference, target)
        if not found:
            raise self._no_match(reference, target)
        fitting = (child for preferred in prefer for child in found if _is_for(child, preferred))
        chosen = found[0] if len(found) == 1 else next(fitting, None)
        if chosen is None:
            names = ", ".join(child.annotations[TARGET] for child in found)
            raise NoMatchError(f"{reference} is stored for several targets ({names}); say which with --target")
        return self._checked_out(chosen.annotations[BUNDLE_ID], chosen)

    def export(self, bundle: Bundle, directory: Path) -> None:
        """Copy a bundle to a directory, whole or not at all. Raises UsageError rather than replace anything else."""
        with new_directory(destination(directory)) as temporary:
            for file in sorted(bundle.path.iterdir()):
                shutil.copyfile(file, temporary / file.name)

    def _cached(self) -> Sequence[Path]:
        return sorted(self.cache.iterdir()) if self.cache.is_dir() else ()

    def _children(self) -> Iterator[tuple[str, Descriptor]]:
        for name, index in sorted(self._tags().items()):
            for child in self._listed(index):
                yield name, child

    def _holds(self, child: Descriptor, sha256: str) -> bool:
        try:
            return any(file.sha256 == sha256 for file in self.layout.files_of(child).values())
        except IntegrityError as error:
            LOGGER.warning("%s", error)
            return False

    def _listed(self, index: Descriptor) -> Sequence[Descriptor]:
        children = [one for one in self._manifests(index) if SIGNS not in one.annotations]
        for child in children:
            if not {TARGET, BUNDLE_ID} <= child.annotations.keys():
                raise IntegrityError(f"{self.layout.root}: {child.digest} is no bundle; remove it from {index.digest}")
        return children

    def _siblings_of(self, name: str) -> Sequence[Descriptor]:
        index = self._tags().get(name)
        return [] if index is None else [one for one in self._manifests(index) if SIGNS in one.annotations]

    def _manifests(self, index: Descriptor) -> Sequence[Descriptor]:
        try:
            return self.layout.read_index(index).manifests
        except IntegrityError as error:
            name = index.annotations[REF_NAME]
            raise IntegrityError(f"{name}: {error}, or forget it: qzoo store rm {name}") from error

    def _children_of(self, name: str) -> Sequence[Descriptor]:
        tags = self._tags()
        return self._listed(tags[name]) if name in tags else ()

    def _readable(self, name: str) -> tuple[Sequence[Descriptor], Sequence[Descriptor]]:
        """A tag's bundles, and what stands beside them; neither, with a warning, where its list is damaged."""
        try:
            return self._children_of(name), self._siblings_of(name)
        except IntegrityError as error:
            LOGGER.warning("%s: its other targets are forgotten: %s", name, error)
            return (), ()

    def _matching(self, reference: Reference, target: str | None) -> Sequence[Descriptor]:
        return [
            child
            for child in self._children_of(reference.tagged)
            if reference.digest in (None, child.sha256) and (target is None or _is_for(child, target))
        ]

    def _removable(self, reference: Reference, target: str | None) -> Sequence[Descriptor]:
        try:
            found = self._matching(reference, target)
        except IntegrityError:
            if target is not None or reference.digest is not None:
                raise
            return ()
        if not found:
            raise self._no_match(reference, target)
        return found

    def _no_match(self, reference: Reference, target: str | None) -> NoMatchError:
        there = ", ".join(sorted({f"{name} ({child.annotations[TARGET]})" for name, child in self._children()}))
        what = f"{reference} for {target}" if target else str(reference)
        return NoMatchError(f"{what} is not in the store; there is {there or 'nothing yet: see `qzoo build --help`'}")

    def _tag(self, name: str, children: Sequence[Descriptor], siblings: Sequence[Descriptor]) -> None:
        """Make a tag name these bundles, one a target, and what stands beside them; with none it is gone.

        The caller holds the lock.
        """
        tags = self._tags()
        tags.pop(name, None)
        if children:
            ordered = sorted(children, key=lambda child: child.annotations[TARGET])
            kept = {child.digest for child in children}
            beside = [one for one in siblings if one.annotations[SIGNS] in kept]
            tags[name] = self.layout.add_index([*ordered, *sorted(beside, key=_signing)], {REF_NAME: name})
        self.layout.write_top(tags[key] for key in sorted(tags))

    def _tags(self) -> dict[str, Descriptor]:
        return {
            one.annotations[REF_NAME]: one for one in self.layout.read_index().manifests if REF_NAME in one.annotations
        }

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with writing(self.home):
            self.layout.root.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.home / "store.lock")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _are_there(self, blobs: Iterable[Descriptor]) -> bool:
        return all(self.layout.blob_path(one.sha256).is_file() for one in blobs)

    def _check_out(self, bundle_id: str, files: Mapping[str, bytes]) -> None:
        with new_directory(self._place(bundle_id)) as temporary:
            for name, data in files.items():
                link_or_copy(self.layout.blob_path(digest_of(data)), temporary / name)

    def _checked_out(self, bundle_id: str, descriptor: Descriptor) -> Bundle:
        place = self._place(bundle_id)
        if not self._is_of(place, descriptor):
            with self._lock():
                self._restore(place, descriptor)
        return Bundle.open(place)

    def _is_of(self, place: Path, descriptor: Descriptor) -> bool:
        """Whether a bundle's directory is this one's: others may have its id, with other measurements or engines.

        What is missing beside the manifest is damage, for whoever reads it to tell.
        """
        if not (place / MANIFEST).is_file():
            return False
        files = self.layout.files_of(descriptor)
        there = [name for name in (MANIFEST, MEASUREMENT) if name in files and (place / name).exists()]
        return all(_is_file(place / name, files[name].sha256) for name in there)

    def _place(self, bundle_id: str) -> Path:
        if not is_sha256(bundle_id):
            raise IntegrityError(f"{self.layout.root} names {bundle_id!r}, which is no bundle id; fetch it again")
        return self.home / "bundles" / bundle_id

    def _restore(self, place: Path, descriptor: Descriptor) -> None:
        files = self.layout.files_of(descriptor)
        for layer in files.values():
            verify_file(self.layout.blob_path(layer.sha256), layer.sha256)
        self._link(place, files)

    def _link(self, place: Path, files: Mapping[str, Descriptor]) -> None:
        with new_directory(place) as temporary:
            for name, layer in files.items():
                link_or_copy(self.layout.blob_path(layer.sha256), temporary / name)


def _entry(name: str, child: Descriptor) -> Entry:
    return Entry(name=name, target=child.annotations[TARGET], id=child.annotations[BUNDLE_ID], sha256=child.sha256)


def _is_file(path: Path, sha256: str) -> bool:
    return path.is_file() and file_digest(path) == sha256


def _signing(sibling: Descriptor) -> tuple[str, str]:
    return sibling.annotations[SIGNS], sibling.digest


def _is_for(child: Descriptor, target: str) -> bool:
    """Whether a stored bundle is for a target, given whole or as its runtime."""
    return target in (child.annotations[TARGET], child.annotations[TARGET].partition("/")[0])


def destination(directory: Path) -> Path:
    """The absolute path a bundle may be exported to. Raises UsageError where anything but a bundle is there."""
    directory = directory.expanduser().absolute()
    empty = not directory.exists() or (directory.is_dir() and not any(directory.iterdir()))
    if not empty and not (directory / MANIFEST).is_file():
        raise UsageError(f"{directory} exists and is not a bundle; give -o another directory")
    return directory
