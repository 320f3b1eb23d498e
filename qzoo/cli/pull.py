"""qzoo pull."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from qzoo.cli import remotes
from qzoo.cli.options import as_json, complete_targets, load_registry, plugin_dirs
from qzoo.cli.terminal import plain

if TYPE_CHECKING:
    from qzoo.errors import QzooError
    from qzoo.registry import Registry
    from qzoo.store import Bundle, Reference, Store
    from qzoo.zoo.obtain import Obtained


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferredFile:
    """A file of the bundle: fetched, resumed, or already there; and the bytes that were fetched now."""

    name: str
    digest: str
    size: int
    state: str
    moved_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """What the engine's signatures say: trusted, untrusted, revoked, invalid or unsigned, and by which key."""

    status: str
    key: str | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PullObject:
    """`qzoo pull --json`.

    `digest` names the bundle in the store and, unless it was rebuilt, in the registry; `index` is what the tag means
    there. With --offline `registry`, `index` and `trust` are null.
    """

    reference: str
    registry: str | None
    target: str
    version: str
    reason: str
    digest: str
    index: str | None
    trust: Signer | None
    rebuilt: bool
    bundle: str
    engine: str
    files: tuple[TransferredFile, ...]
    moved_bytes: int


@click.command()
@click.argument("reference")
@remotes.registry
@click.option(
    "--target", shell_complete=complete_targets, help="A runtime or a whole target. Default: the best that runs here."
)
@click.option(
    "--build",
    is_flag=True,
    help="Where no engine fits or is trusted, build one from the portable graph, and verify it.",
)
@click.option("--offline", is_flag=True, help="Only look into the store, and check what is there.")
@click.option("--allow-untrusted", is_flag=True, help="Also take an engine that no trusted key signed.")
@remotes.insecure
@plugin_dirs
@as_json
def command(
    reference: str,
    registry: str | None,
    target: str | None,
    build: bool,  # noqa: FBT001 - click's flags
    offline: bool,  # noqa: FBT001
    allow_untrusted: bool,  # noqa: FBT001
    insecure: bool,  # noqa: FBT001
    plugin_dirs: tuple[Path, ...],
    as_json: bool,  # noqa: FBT001
) -> None:
    """Fetch the engine of REFERENCE, name[:tag][@sha256:...], that runs on this machine, and check every byte of it.

    The default tag is int8. A cut or killed pull goes on where it was. The last line printed is the engine's digest.

    \b
    Examples:
      qzoo pull resnet50:int8 --registry registry.example.com/zoo
      qzoo pull resnet20 --registry oci-layout:/srv/zoo --target onnxruntime
      qzoo pull resnet20:int8 --build --json
    """
    from qzoo.store import Reference, Store

    store, wanted, plugins = Store.default(), Reference.parse(reference), load_registry(plugin_dirs)
    if offline:
        found = _stored(store, wanted, target, plugins)
    else:
        from qzoo.cli.transfers import transfers
        from qzoo.zoo.obtain import obtain
        from qzoo.zoo.pull import Puller

        remote = remotes.connect(registry, store, insecure=insecure)
        obtained = obtain(
            Puller(store, remote, plugins.preferred()),
            wanted,
            lambda bundle, name: _rebuilt(bundle, plugins, store, name),
            target=target,
            may_build=lambda error: build or _asked(error),
            allow_untrusted=allow_untrusted,
            transfers=transfers,
        )
        found = _object(store, remote.location, obtained)
    if as_json:
        from qzoo.records import encode

        click.echo(encode(found), nl=False)
        return
    click.echo("\n".join(_lines(found)))


def _rebuilt(bundle: Bundle, plugins: Registry, store: Store, under: Reference) -> Bundle:
    from qzoo.cli.progress import shown
    from qzoo.pipeline import rebuild

    with shown() as progress:
        return rebuild(bundle, plugins, store, progress, under)


def _asked(error: QzooError) -> bool:
    """Whether the user, where one is there, wants an engine built."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    click.echo(f"qzoo: {plain(str(error))}", err=True)
    return click.confirm("Build one from the portable graph?", default=True, err=True)


def _stored(store: Store, reference: Reference, target: str | None, plugins: Registry) -> PullObject:
    from qzoo.engine import working

    bundle = store.resolve(reference, target, working(plugins))
    bundle.verify()
    return PullObject(
        reference=reference.tagged,
        registry=None,
        target=str(bundle.record.target),
        version=bundle.record.target.version,
        reason="in the store",
        digest=_digest(store, reference, bundle),
        index=None,
        trust=None,
        rebuilt=False,
        bundle=str(bundle.path),
        engine=str(bundle.engine),
        files=(),
        moved_bytes=0,
    )


def _object(store: Store, location: str, obtained: Obtained) -> PullObject:
    bundle, pulled = obtained.bundle, obtained.pulled
    reference = pulled.reference
    files = tuple(
        TransferredFile(name=one.name, digest=one.digest, size=one.size, state=one.state, moved_bytes=one.moved_bytes)
        for one in pulled.files
    )
    return PullObject(
        reference=reference.tagged,
        registry=location,
        target=str(bundle.record.target),
        version=bundle.record.target.version,
        reason=obtained.reason,
        digest=_digest(store, reference, bundle) if obtained.rebuilt else pulled.child.digest,
        index=obtained.selected.index.digest,
        trust=Signer(status=pulled.trust.status, key=pulled.trust.key, reason=pulled.trust.reason),
        rebuilt=obtained.rebuilt,
        bundle=str(bundle.path),
        engine=str(bundle.engine),
        files=files,
        moved_bytes=sum(one.moved_bytes for one in files),
    )


def _digest(store: Store, reference: Reference, bundle: Bundle) -> str:
    """The digest of a stored bundle's image manifest."""
    entries = [entry for entry in store.entries() if entry.id == bundle.id]
    named = [entry for entry in entries if entry.name == reference.tagged]
    return f"sha256:{(named or entries)[0].sha256}"


def _lines(found: PullObject) -> list[str]:
    from qzoo.report.text import MB

    lines = [f"{found.reference} for {found.target} {found.version}: {found.reason}"]
    lines += [f"  {one.name:<20} {one.size / MB:9.3f} MB  {one.state}" for one in found.files]
    if found.trust is not None:
        lines.append(f"  {found.trust.reason}")
    lines += [f"  engine  {found.engine}", f"  run it  qzoo run {found.reference} IMAGE", f"Digest: {found.digest}"]
    return lines
