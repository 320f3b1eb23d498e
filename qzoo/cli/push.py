"""qzoo push."""

from __future__ import annotations

import click

from qzoo.cli import remotes
from qzoo.cli.options import as_json, complete_engines, complete_targets


@click.command()
@click.argument("reference", shell_complete=complete_engines)
@remotes.registry
@click.option("--target", shell_complete=complete_targets, help="Only for this one. Default: all that are stored.")
@click.option("--key", "key_name", metavar="NAME", help="Sign with this key. Default: the default key.")
@click.option("--unsigned", is_flag=True, help="Don't sign. Who pulls it must then ask for that.")
@remotes.insecure
@as_json
def command(
    reference: str,
    registry: str | None,
    target: str | None,
    key_name: str | None,
    unsigned: bool,  # noqa: FBT001 - click's flags
    insecure: bool,  # noqa: FBT001
    as_json: bool,  # noqa: FBT001
) -> None:
    """Publish what REFERENCE, name[:tag][@sha256:...], names in the store, under the same name and tag.

    Engines of other targets that are there stay. Those that were built here are signed; `qzoo key new` makes a key.

    \b
    Examples:
      qzoo push resnet20:int8 --registry registry.example.com/zoo
      qzoo push resnet20 --registry oci-layout:/srv/zoo --target openvino
    """
    from qzoo.cli.transfers import transfers
    from qzoo.errors import UsageError
    from qzoo.store import Reference, Store
    from qzoo.zoo.keys import KeyRing
    from qzoo.zoo.push import push

    if unsigned and key_name is not None:
        raise UsageError(f"--key {key_name} contradicts --unsigned; give one of them")
    store = Store.default()
    wanted, remote = Reference.parse(reference), remotes.connect(registry, store, insecure=insecure)
    store.named(wanted, target)
    key = None if unsigned else KeyRing(store.home).get(key_name)
    with transfers() as shown:
        done = push(store, remote, wanted, target=target, key=key, transfers=shown)
    if as_json:
        from qzoo.records import encode

        click.echo(encode(done), nl=False)
        return
    from qzoo.report.text import MB

    click.echo(f"pushed {done.reference} to {done.registry}")
    for engine in done.engines:
        click.echo(f"  {engine.target}  {engine.digest}, signatures {engine.signatures}")
    click.echo(f"  uploaded {done.uploaded_blobs} files, {done.uploaded_bytes / MB:.3f} MB")
    click.echo(f"Digest: {done.digest}")
