"""qzoo info."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from qzoo.cli.options import as_json, complete_subjects, load_registry, plugin_dirs, which_target

if TYPE_CHECKING:
    from qzoo.registry import ModelEntry, Registry
    from qzoo.report.objects import EngineObject, ModelObject


@click.command()
@click.argument("subject", metavar="MODEL|ENGINE", shell_complete=complete_subjects)
@click.option("--modules", is_flag=True, help="Also list the module paths that fusions and swaps are written in.")
@click.option("--layers", is_flag=True, help="Of an engine: also its layers, where its runtime tells them.")
@which_target
@plugin_dirs
@as_json
def command(
    subject: str,
    modules: bool,  # noqa: FBT001 - click's flags
    layers: bool,  # noqa: FBT001
    target: str | None,
    plugin_dirs: tuple[Path, ...],
    as_json: bool,  # noqa: FBT001
) -> None:
    """Show what a MODEL declares, or what an ENGINE holds.

    Of a model: its input, weights, fusions, quantized modules, recipes, training. Of an engine (a reference with its
    tag, a bundle's directory, or an engine file): what went into it, what was measured, its files with their digests.

    \b
    Examples:
      qzoo info resnet50
      qzoo info resnet20 --modules
      qzoo info resnet20:int8
      qzoo info resnet20:int8 --target tensorrt-rtx --layers
      qzoo info ./mybundle --json
    """
    from qzoo.errors import UsageError
    from qzoo.store import names_engine

    registry = load_registry(plugin_dirs)
    found: EngineObject | ModelObject
    if names_engine(subject):
        found, lines = _engine(subject, registry, target, modules=modules, layers=layers)
    elif layers:
        raise UsageError(f"--layers lists an engine's layers, and {subject} is a model; give its tag too")
    else:
        found, lines = _model(registry.model(subject), target, modules=modules)
    if as_json:
        from qzoo.records import encode

        click.echo(encode(found), nl=False)
        return
    click.echo("\n".join(lines))


def _engine(
    subject: str, registry: Registry, target: str | None, *, modules: bool, layers: bool
) -> tuple[EngineObject, list[str]]:
    from qzoo.engine import find
    from qzoo.errors import UsageError
    from qzoo.report import bundle_lines, engine_lines, engine_object, layer_lines
    from qzoo.store import Store

    if modules:
        raise UsageError(f"--modules lists a model's modules, and {subject} is an engine; give the model's name")
    file = find(subject, registry, Store.default(), target)
    bundle = file.bundle
    lines = engine_lines(file.record) if bundle is None else bundle_lines(bundle)
    if not layers:
        return engine_object(file), lines
    table = None if bundle is None else bundle.layers
    if table is None:
        runtime = file.record.target.runtime
        raise UsageError(f"--layers: {subject} comes without layers.json; {runtime} tells no layers, or it lies alone")
    return engine_object(file, table), [*lines, "", *layer_lines(table)]


def _model(entry: ModelEntry, target: str | None, *, modules: bool) -> tuple[ModelObject, list[str]]:
    from qzoo.errors import UsageError
    from qzoo.report.objects import ModelObject

    if target is not None:
        raise UsageError(f"--target picks one of an engine's, and {entry.spec.name} is a model; give its tag too")
    paths = _modules(entry) if modules else []
    found = ModelObject(spec=entry.spec, provenance=entry.provenance, modules=tuple(paths))
    return found, [*_lines(entry), *(f"  {path}  {kind}" for path, kind in paths)]


def _lines(entry: ModelEntry) -> list[str]:
    spec, source = entry.spec, entry.provenance
    pre = spec.input.preprocess
    lines = [
        f"{spec.name}: {spec.summary}",
        f"plugin      {source.plugin}, version {spec.version}, {source.origin}",
        f"input       {spec.input.name}: N x {' x '.join(map(str, spec.input.shape))} {spec.input.dtype}",
        f"preprocess  {pre.mode}, {pre.resizing}, crop {pre.crop}",
        f"            mean {pre.mean}, std {pre.std}",
        f"outputs     {', '.join(spec.outputs)}, decided by {spec.decision}",
        f"classes     {spec.num_classes} (read from {spec.head})",
        f"data        {spec.data}",
    ]
    lines += [f"weights     {source.kind}: {source.ref}" for source in spec.weights]
    lines += [f"fusion      {' + '.join(p for p in (f.conv, f.bn, f.act) if p)}" for f in spec.fusions]
    lines += [f"swap        {swap.path or swap.type} -> {swap.to}" for swap in spec.swaps]
    lines += [f"float       {glob}" for glob in spec.keep_float]
    lines += [f"recipe      {r.target} {r.precision}: {r.calibrator}, roles {', '.join(r.roles)}" for r in spec.recipes]
    t = spec.training
    return [*lines, f"training    {t.optimizer}, {t.schedule}, lr {t.lr:g}, batch {t.batch_size}, {t.epochs} epochs"]


def _modules(entry: ModelEntry) -> list[tuple[str, str]]:
    from qzoo.pipeline.network import module_paths

    return module_paths(entry.spec)
