"""qzoo store show."""

from __future__ import annotations

from pathlib import Path

import click

from qzoo.cli.options import as_json, complete_engines, load_registry, plugin_dirs, which_target


@click.command()
@click.argument("reference", shell_complete=complete_engines)
@which_target
@plugin_dirs
@as_json
def command(reference: str, target: str | None, plugin_dirs: tuple[Path, ...], as_json: bool) -> None:  # noqa: FBT001
    """Show what a stored engine holds: what went into it, what was measured, and its files with their digests.

    REFERENCE is name[:tag][@sha256:...]; the default tag is int8. Prints what `qzoo info` prints of an engine.

    \b
    Examples:
      qzoo store show resnet20
      qzoo store show resnet20:int8 --target onnxruntime --json
    """
    from qzoo.engine import working
    from qzoo.report import bundle_lines, engine_object
    from qzoo.store import EngineFile, Reference, Store

    wanted = Reference.parse(reference)
    bundle = Store.default().resolve(wanted, target, working(load_registry(plugin_dirs)))
    if as_json:
        from qzoo.records import encode

        click.echo(encode(engine_object(EngineFile(bundle.engine, bundle.record))), nl=False)
        return
    click.echo("\n".join(bundle_lines(bundle)))
