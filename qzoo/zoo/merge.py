"""Publishes what one machine has to say of a tag so that several machines, at once too, lose nothing of each other's.

A registry has no conditional write: of two pushes that read a tag's index, add to it and write it back, one is lost.
So each part of a tag (the engine for one target, with its signatures) has its own tag, `<tag>--<12 hex digits>`, which
only pushes of that part write. The tag's index is the union of the parts. A push writes its part first, then the union
of all parts that it finds, and then looks again: were a part added or changed meanwhile, or did another write take the
place of its own, it does so once more. Whoever writes the tag last finds, when it looks again, every part that was
written before, so none is lost; and what a push that was killed in between has left out is added by the next one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence

from qzoo.errors import RemoteError, UsageError
from qzoo.store.describe import OS, VERSION
from qzoo.store.layout import SIGNS, TARGET, Descriptor
from qzoo.zoo.remote import Document, Remote, index_of

ATTEMPTS = 20
REFERENCE = "dev.qzoo.reference"
"""Of an entry of the catalog: the name:tag that it is about."""
Attest = Callable[[Document | None, Document], None]
Part = Sequence[Descriptor]
"""What one push says of a tag: an engine's manifest, and after it those of its signatures."""
_PART = re.compile(r"(?P<tag>.+)--[0-9a-f]{12}")
TAG_LIMIT = 128 - len("--") - 12
"""The longest tag of which there can be parts (distribution-spec 1.1: at most 128 characters)."""


def is_part(tag: str) -> bool:
    """Whether a tag is a part of another."""
    return _PART.fullmatch(tag) is not None


def slot(child: Descriptor) -> str:
    """What tells a part from the others of its tag: an engine's target, runtime version and system."""
    return " ".join(child.annotations.get(key, "") for key in (TARGET, VERSION, OS, REFERENCE)).strip()


def publish(remote: Remote, name: str, tag: str, parts: Sequence[Part], attest: Attest | None = None) -> Document:
    """Publish parts of a tag, whose manifests are there; returns the tag's index, with everybody's parts in it.

    `attest` is told what the tag means and what it will, each time before it does, and at least once. Raises UsageError
    for a tag that can have no parts, RemoteError where others write the tag again and again.
    """
    if is_part(tag) or len(tag) > TAG_LIMIT:
        raise UsageError(f"the tag {tag!r} is too long, or ends as the tags of parts do; take another")
    for part in parts:
        _publish_part(remote, name, _part_tag(tag, part[0]), part)
    attested: Document | None = None
    for _ in range(ATTEMPTS):
        found, now = _parts(remote, name, tag), remote.find(name, tag)
        union = index_of(_union(tag, found, [] if now is None else now.children()))
        if attest is not None and union != attested:
            attest(now, union)
            attested = union
        if now == union:
            return union
        remote.put_document(name, tag, union)
    raise RemoteError(f"{name}:{tag} in {remote.location} is written by others again and again; push again later")


def _publish_part(remote: Remote, name: str, tag: str, part: Part) -> None:
    before = remote.find(name, tag)
    digest, own = part[0].digest, {one.digest for one in part}
    others = [] if before is None else before.children()
    kept = [one for one in others if one.annotations.get(SIGNS) == digest and one.digest not in own]
    document = index_of(_ordered([*part, *kept]))
    if document != before:
        remote.put_document(name, tag, document)


def _parts(remote: Remote, name: str, tag: str) -> dict[str, list[Descriptor]]:
    tags = [one for one in remote.tags(name) if is_part(one) and one.rpartition("--")[0] == tag]
    found = {one: remote.find(name, one) for one in tags}
    return {one: document.children() for one, document in found.items() if document is not None}


def _union(tag: str, parts: Mapping[str, Sequence[Descriptor]], listed: Sequence[Descriptor]) -> list[Descriptor]:
    """All parts, and of what the index lists now that which no part replaces: a mirror has no parts."""
    replaced = {one.digest: one for one in listed if SIGNS in one.annotations or _part_tag(tag, one) not in parts}
    union = {**replaced, **{one.digest: one for children in parts.values() for one in children}}
    return _ordered([one for one in union.values() if one.annotations.get(SIGNS, one.digest) in union])


def _ordered(children: Sequence[Descriptor]) -> list[Descriptor]:
    return sorted(children, key=lambda one: (one.annotations.get(SIGNS, ""), slot(one), one.digest))


def _part_tag(tag: str, child: Descriptor) -> str:
    return f"{tag}--{hashlib.sha256(slot(child).encode()).hexdigest()[:12]}"
