"""qzoo export."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

import click

from qzoo.cli.options import (
    BuildWords,
    build_options,
    complete_models,
    complete_targets,
    load_registry,
    options_of,
    plugin_dirs,
)


@click.command()
@click.argument("model", shell_complete=complete_models)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The ONNX file.")
@click.option(
    "--form",
    type=click.Choice(("portable", "lowered")),
    default="portable",
    show_default=True,
    help="The graph every target starts from, or the one its runtime loads.",
)
@click.option(
    "--target",
    default="auto",
    show_default=True,
    shell_complete=complete_targets,
    help="Whose recipe, and for 'lowered' whose graph.",
)
@build_options
@plugin_dirs
def command(
    model: str,
    output: Path,
    form: str,
    target: str,
    plugin_dirs: tuple[Path, ...],
    **words: Unpack[BuildWords],
) -> None:
    """Write MODEL's calibrated ONNX graph, with QuantizeLinear and DequantizeLinear, to a file.

    \b
    Examples:
      qzoo export resnet20 -o resnet20.onnx
      qzoo export resnet20 -o resnet20-ov.onnx --form lowered --target openvino
    """
    from qzoo.cli.progress import shown
    from qzoo.pipeline import export_graph, make_plan
    from qzoo.store import Store, write_file

    cache = Store.default().home / "cache"
    with shown() as progress:
        plan = make_plan(options_of(model, target, words), load_registry(plugin_dirs), cache, progress)
        graph = export_graph(plan, form, progress)
    write_file(output, graph)
    click.echo(f"{output}: {form} graph of {model}, {plan.recipe.precision}, {len(graph) / 1e6:.3f} MB")
