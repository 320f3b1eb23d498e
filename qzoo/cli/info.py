"""qzoo info."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from qzoo.cli.options import as_json, load_registry, plugin_dirs

if TYPE_CHECKING:
    from qzoo.registry import ModelEntry


@click.command()
@click.argument("model")
@click.option("--modules", is_flag=True, help="Also list the module paths that fusions and swaps are written in.")
@plugin_dirs
@as_json
def command(model: str, modules: bool, plugin_dirs: tuple[Path, ...], as_json: bool) -> None:  # noqa: FBT001 - click's flags
    """Show what MODEL declares: input, weights, fusions, quantized modules, recipes.

    \b
    Examples:
      qzoo info resnet50
      qzoo info resnet20 --modules
    """
    entry = load_registry(plugin_dirs).model(model)
    paths = _modules(entry) if modules else ()
    if as_json:
        from qzoo.records import encode

        click.echo(encode({"spec": entry.spec, "provenance": entry.provenance, "modules": paths}), nl=False)
        return
    click.echo("\n".join((*_lines(entry), *(f"  {path}  {kind}" for path, kind in paths))))


def _lines(entry: ModelEntry) -> list[str]:
    spec, source = entry.spec, entry.provenance
    pre = spec.input.preprocess
    lines = [
        f"{spec.name}: {spec.summary}",
        f"plugin      {source.plugin}, version {spec.version}, {source.origin}",
        f"input       {spec.input.name}: N x {' x '.join(map(str, spec.input.shape))} {spec.input.dtype}",
        f"preprocess  {pre.mode}, resize {pre.resize} {pre.interpolation}, crop {pre.crop}",
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
    return lines


def _modules(entry: ModelEntry) -> list[tuple[str, str]]:
    from qzoo.pipeline.prepare import module_paths

    return module_paths(entry.spec)
