"""qzoo bench."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from qzoo.cli.options import allow_untrusted, as_json, complete_engines, plugin_dirs, which_targets
from qzoo.pipeline.bench import EngineTimes, bench


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchObject:
    """`qzoo bench --json`."""

    engines: tuple[EngineTimes, ...]


@click.command()
@click.argument("engines", nargs=-1, required=True, shell_complete=complete_engines)
@which_targets
@click.option("--batch-size", default=1, show_default=True, type=click.IntRange(min=1), help="Images per call.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads. Default: the runtime's own choice.")
@click.option("--duration", default=10.0, show_default=True, help="Seconds, for all engines together.")
@click.option("--layers", is_flag=True, help="Also each layer's time, where the runtime tells it (TensorRT).")
@allow_untrusted
@plugin_dirs
@as_json
def command(
    engines: tuple[str, ...],
    targets: tuple[str, ...],
    batch_size: int,
    threads: int | None,
    duration: float,
    layers: bool,  # noqa: FBT001 - click's flags
    allow_untrusted: bool,  # noqa: FBT001
    plugin_dirs: tuple[Path, ...],
    as_json: bool,  # noqa: FBT001
) -> None:
    """Measure the latency and throughput of ENGINES on random input.

    Several engines take turns, in an order drawn anew each round; each is then compared with the first.

    \b
    Examples:
      qzoo bench resnet20:int8 --batch-size 8
      qzoo bench resnet20:int8 --target onnxruntime --target openvino
      qzoo bench ./float/engine.onnx ./int8/engine.onnx --duration 30 --json
    """
    from qzoo.cli.progress import shown
    from qzoo.engine import load

    loaded = [
        load(engine, target=target, plugin_dirs=plugin_dirs, threads=threads, allow_untrusted=allow_untrusted)
        for engine in engines
        for target in targets or (None,)
    ]
    with shown() as progress:
        times = bench(
            loaded, batch_size=batch_size, threads=threads, seconds=duration, progress=progress, layers=layers
        )
    if as_json:
        from qzoo.records import encode

        click.echo(encode(BenchObject(engines=times)), nl=False)
        return
    click.echo("\n".join([*_lines(times), *(_layer_lines(times) if layers else [])]))


def _layer_lines(times: tuple[EngineTimes, ...]) -> list[str]:
    from qzoo.report import aligned

    lines = []
    for one in times:
        name = f"{one.model} {one.precision} {one.target}"
        if one.layers is None:
            lines += ["", f"{name}: its runtime tells no layer's time"]
            continue
        rows = [("layer", "median", "of all")]
        rows += [(layer.name, f"{layer.median_ms:.4f} ms", f"{layer.percentage:.1f} %") for layer in one.layers]
        lines += ["", f"{name}, layer by layer", *aligned(rows)]
    return lines


def _lines(times: tuple[EngineTimes, ...]) -> list[str]:
    from qzoo.report import aligned

    first = times[0]
    rows = [("engine", "median", "p90", "p99", "images/s", "of the first", "95 % interval")]
    for one in times:
        ratio = "1.000x" if one.ratio is None else f"{one.ratio:.3f}x"
        interval = "" if one.ratio_ci95 is None else f"{one.ratio_ci95[0]:.3f} to {one.ratio_ci95[1]:.3f}"
        name = f"{one.model} {one.precision} {one.target}"
        figures = (f"{one.median_ms:.3f} ms", f"{one.p90_ms:.3f} ms", f"{one.p99_ms:.3f} ms")
        rows.append((name, *figures, f"{one.images_per_second:.1f}", ratio, interval))
    return [f"batch {first.batch}, {first.threads} threads, {first.rounds} rounds", *aligned(rows)]
