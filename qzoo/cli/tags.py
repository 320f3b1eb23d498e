"""qzoo tags."""

from __future__ import annotations

from dataclasses import dataclass

import click

from qzoo.cli import remotes
from qzoo.cli.options import as_json
from qzoo.cli.terminal import plain


@dataclass(frozen=True, slots=True, kw_only=True)
class TagsObject:
    """`qzoo tags --json`."""

    registry: str
    name: str
    tags: tuple[str, ...]


@click.command()
@click.argument("name")
@remotes.registry
@remotes.insecure
@as_json
def command(name: str, registry: str | None, insecure: bool, as_json: bool) -> None:  # noqa: FBT001 - click's flags
    """List the tags of NAME in a registry: its precisions.

    \b
    Examples:
      qzoo tags resnet50
      qzoo tags resnet50 --registry oci-layout:/srv/zoo --json
    """
    from qzoo.errors import NoMatchError, UsageError
    from qzoo.store import Reference, Store
    from qzoo.zoo.catalog import tags_of

    if Reference.parse(name) != Reference(name):
        raise UsageError(f"{name}: give the name alone, without a tag or digest")
    remote = remotes.connect(registry, Store.default(), insecure=insecure)
    tags = tuple(tags_of(remote, name))
    if not tags:
        raise NoMatchError(f"{remote.location} has nothing called {name}; qzoo catalog lists what there is")
    if as_json:
        from qzoo.records import encode

        click.echo(encode(TagsObject(registry=remote.location, name=name, tags=tags)), nl=False)
        return
    click.echo(plain("\n".join(f"{name}:{tag}" for tag in tags)))
