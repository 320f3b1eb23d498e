"""What a bundle must hold to before it is one of the store's."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from qzoo.errors import IntegrityError
from qzoo.records import Manifest, decode, digest_of
from qzoo.store.bundle import MANIFEST, MEASUREMENT, check_names
from qzoo.store.layout import BUNDLE_ID, TARGET, Descriptor, Layout

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def check_put(manifest: Manifest, files: Mapping[str, bytes]) -> None:
    """Check the files of a bundle that was built against its manifest. Raises IntegrityError."""
    check_names(manifest, f"bundle {manifest.id[:12]}")
    unlisted = set(files) ^ {*manifest.files, MEASUREMENT}
    if unlisted:
        raise IntegrityError(f"bundle {manifest.id[:12]}: {min(unlisted)} is in only one of manifest and files")
    for name, entry in manifest.files.items():
        found = digest_of(files[name])
        if found != entry.sha256:
            raise IntegrityError(
                f"bundle {manifest.id[:12]}: {name} has sha256:{found}, expected sha256:{entry.sha256}"
            )


def check_received(layout: Layout, child: Descriptor, files: Mapping[str, Descriptor]) -> None:
    """Check that a bundle's image manifest, its own manifest.json and its files agree.

    Raises IntegrityError, naming what doesn't, with the expected and the found digest.
    """
    source = layout.blob_path(files[MANIFEST].sha256)
    data = layout.read(files[MANIFEST])
    manifest = decode(data, Manifest, source)
    check_names(manifest, source)
    for name, file in files.items():
        if name.endswith(".json"):
            _check_printable(layout, name, file)
    # of the inputs as they are written: another version of qzoo may know more or fewer of them
    bundle_id = digest_of(decode(data, dict[str, Any], source)["inputs"])
    expected = {"id": bundle_id, BUNDLE_ID: bundle_id, TARGET: str(manifest.inputs.target)}
    stated = {"id": manifest.id, **{key: child.annotations.get(key) for key in (BUNDLE_ID, TARGET)}}
    if stated != expected:
        raise IntegrityError(f"{child.digest} says that it is {stated}, expected {expected}; don't use it")
    listed = {name: entry.sha256 for name, entry in manifest.files.items()}
    found = {name: file.sha256 for name, file in files.items() if name not in (MANIFEST, MEASUREMENT)}
    for name in sorted({*listed, *found}):
        if listed.get(name) != found.get(name):
            raise IntegrityError(
                f"{child.digest}: {name} is expected with sha256:{listed.get(name)}, found sha256:{found.get(name)}; "
                "don't use it"
            )
    if MEASUREMENT not in files:
        raise IntegrityError(f"{child.digest} has no {MEASUREMENT}; ask who publishes it to push it again")


def _check_printable(layout: Layout, name: str, file: Descriptor) -> None:
    """What is shown of a bundle is shown on terminals, which take control characters for orders."""
    path = layout.blob_path(file.sha256)
    odd = next((text for text in _texts(decode(layout.read(file), Any, path)) if _CONTROL.search(text)), None)
    if odd is not None:
        raise IntegrityError(f"{name}, {path}, has control characters in {odd[:80]!r}; don't use it")


def _texts(value: object) -> Iterator[str]:
    """Every string of a JSON value, the keys too."""
    queue = [value]
    while queue:
        one = queue.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            queue += [*one.keys(), *one.values()]
        elif isinstance(one, list):
            queue += one
