"""qzoo export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

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

if TYPE_CHECKING:
    from qzoo.pipeline.ranges import ExportedRanges


@click.command()
@click.argument("model", shell_complete=complete_models)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The ONNX file.")
@click.option(
    "--form",
    type=click.Choice(("portable", "lowered", "ranges")),
    default="portable",
    show_default=True,
    help="The graph every target starts from, the one its runtime loads, or one without Q/DQ and the ranges beside it.",
)
@click.option(
    "--trt-version",
    metavar="NUMBER",
    type=click.IntRange(1000, 99999),
    default=7234,
    show_default=True,
    help="For 'ranges': the TensorRT that the calibration cache is for, 7234 for 7.2.3.4.",
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
    trt_version: int,
    plugin_dirs: tuple[Path, ...],
    **words: Unpack[BuildWords],
) -> None:
    """Write MODEL's calibrated ONNX graph, with QuantizeLinear and DequantizeLinear, to a file.

    \b
    Examples:
      qzoo export resnet20 -o resnet20.onnx
      qzoo export resnet20 -o resnet20-ov.onnx --form lowered --target openvino
      qzoo export resnet20 -o resnet20-float.onnx --form ranges
    """
    from qzoo.cli.progress import shown
    from qzoo.pipeline import export_graph, make_plan
    from qzoo.pipeline.ranges import export_ranges
    from qzoo.store import Store, write_file

    cache = Store.default().home / "cache"
    with shown() as progress:
        plan = make_plan(options_of(model, target, words), load_registry(plugin_dirs), cache, progress)
        files = (
            _files(output, export_ranges(plan, trt_version, progress))
            if form == "ranges"
            else {output: export_graph(plan, form, progress)}
        )
    for path, data in files.items():
        write_file(path, data)
    what = (
        f"{form} graph of {model}"
        if form != "ranges"
        else f"graph of {model} without quantizers, their ranges beside it"
    )
    click.echo(f"{output}: {what}, {plan.recipe.precision}, {len(files[output]) / 1e6:.3f} MB")


def _files(output: Path, exported: ExportedRanges) -> dict[Path, bytes]:
    """The graph's place, and those of its ranges and its calibration cache."""
    return {
        output: exported.graph,
        output.with_name(f"{output.stem}.ranges.json"): exported.ranges,
        output.with_name(f"{output.stem}.calib"): exported.cache,
    }
