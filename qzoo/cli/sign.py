"""qzoo sign."""

from __future__ import annotations

from dataclasses import dataclass

import click

from qzoo.cli.options import allow_untrusted, as_json, complete_engines, complete_targets


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A signed engine; the digest is its image manifest's, as in a reference."""

    reference: str
    target: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SignObject:
    """`qzoo sign --json`: what was signed, and the id of the key."""

    key: str
    signed: tuple[Signed, ...]


@click.command()
@click.argument("references", metavar="REFERENCE...", nargs=-1, required=True, shell_complete=complete_engines)
@click.option("--key", "name", help="The key's name. Default: the one called default, or the only one.")
@click.option("--target", shell_complete=complete_targets, help="Only for this one. Default: for all.")
@allow_untrusted
@as_json
def command(
    references: tuple[str, ...],
    name: str | None,
    target: str | None,
    allow_untrusted: bool,  # noqa: FBT001 - click's flags
    as_json: bool,  # noqa: FBT001
) -> None:
    """Sign stored engines with one of your keys. The signatures stay beside them, and `qzoo push` takes them along.

    REFERENCE is name[:tag][@sha256:...]; the default tag is int8. `qzoo push` signs what it pushes by itself: this is
    for what goes another way, or for a second key.

    \b
    Examples:
      qzoo sign resnet20:int8
      qzoo sign resnet20 mfcnn --key release --target openvino
    """
    from qzoo.store import Reference, Store
    from qzoo.zoo.keys import KeyRing
    from qzoo.zoo.sign import sign_stored

    store = Store.default()
    key = KeyRing(store.home).get(name)
    entries = [
        entry
        for text in references
        for entry in sign_stored(Reference.parse(text), store, key, target, allow_untrusted=allow_untrusted)
    ]
    found = tuple(
        Signed(reference=entry.name, target=entry.target, digest=f"sha256:{entry.sha256}") for entry in entries
    )
    if as_json:
        from qzoo.records import encode

        click.echo(encode(SignObject(key=key.public.id, signed=found)), nl=False)
        return
    for one in found:
        click.echo(f"signed {one.reference} for {one.target}, {one.digest}")
