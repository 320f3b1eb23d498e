"""qzoo build."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from qzoo.cli.options import (
    BuildWords,
    as_json,
    build_options,
    complete_models,
    complete_targets,
    load_registry,
    options_of,
    plugin_dirs,
)

if TYPE_CHECKING:
    from qzoo.pipeline.plan import Autotune, Options, Plan
    from qzoo.pipeline.progress import Progress
    from qzoo.registry import Registry
    from qzoo.report.objects import PlanObject
    from qzoo.store import Bundle, Store


@click.command()
@click.argument("models", metavar="MODEL...", nargs=-1, required=True, shell_complete=complete_models)
@click.option(
    "--target",
    "targets",
    multiple=True,
    default=("auto",),
    show_default=True,
    shell_complete=complete_targets,
    help="openvino, onnxruntime, tensorrt-rtx, tensorrt, or auto; repeatable.",
)
@build_options
@click.option(
    "--autotune",
    type=click.Choice(("quick", "full")),
    is_flag=False,
    flag_value="quick",
    help="Measure other lowerings, and under --target auto all runtimes, and keep the fastest that passes; 'full' "
    "tries all combinations. --timing-cache makes it repeatable.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Also copy the bundle into this directory.")
@click.option("--force", is_flag=True, help="Build even if the store has the same bundle.")
@click.option("--dry-run", is_flag=True, help="Say what would be built, and stop.")
@plugin_dirs
@as_json
def command(
    models: tuple[str, ...],
    targets: tuple[str, ...],
    autotune: Autotune | None,
    output: Path | None,
    force: bool,  # noqa: FBT001 - click's flags
    dry_run: bool,  # noqa: FBT001
    plugin_dirs: tuple[Path, ...],
    as_json: bool,  # noqa: FBT001
    **words: Unpack[BuildWords],
) -> None:
    """Build a calibrated, verified, measured engine of each MODEL for each --target.

    \b
    Examples:
      qzoo build resnet20 --int8
      qzoo build resnet18 resnet50 --target openvino --target onnxruntime
      qzoo build resnet50 --int8 --weights resnet50.pth --data ./photos
      qzoo build resnet50 --int8 --weights random --target onnxruntime --json
      qzoo build mobilenet_v2 --int8 --autotune --timing-cache timings.json
      qzoo build resnet50 --int8 --target tensorrt-rtx --gpu sm86,sm89 --batch 1:8:32
    """
    from dataclasses import replace

    from qzoo.cli.progress import shown
    from qzoo.pipeline import build_all, make_plan, stored
    from qzoo.store import Store, destination

    store, registry = Store.default(), load_registry(plugin_dirs)
    cache = store.home / "cache"
    wanted = [replace(options_of(model, target, words), autotune=autotune) for model in models for target in targets]
    with shown() as progress:
        plans = [make_plan(options, registry, cache, progress) for options in wanted]
    _refuse_repeats(plans)
    if dry_run:
        _show_plans(plans, as_json=as_json)
        return
    places = [] if output is None else [destination(output / _place(plan, models, targets)) for plan in plans]
    with shown() as progress:
        if autotune is None:
            cached = [not force and stored(plan, store) is not None for plan in plans]
            bundles = build_all(plans, store, force=force, progress=progress)
        else:
            plans, bundles, cached = _tuned(wanted, registry, store, progress, force=force)
    for bundle, place in zip(bundles, places, strict=False):
        store.export(bundle, place)
    _show(plans, bundles, cached, as_json=as_json)


def _tuned(
    wanted: list[Options], registry: Registry, store: Store, progress: Progress, *, force: bool
) -> tuple[list[Plan], list[Bundle], list[bool]]:
    from qzoo.pipeline.autotune import autotune

    tuned = [autotune(options, registry, store, force=force, progress=progress) for options in wanted]
    return [one.plan for one in tuned], [one.bundle for one in tuned], [one.cached for one in tuned]


def _refuse_repeats(plans: list[Plan]) -> None:
    from qzoo.errors import UsageError

    ids = [plan.inputs.bundle_id for plan in plans]
    for plan in plans:
        if ids.count(plan.inputs.bundle_id) > 1:
            raise UsageError(f"{plan.spec.name} for {plan.target} is asked for twice; name each model and target once")


def _place(plan: Plan, models: tuple[str, ...], targets: tuple[str, ...]) -> Path:
    """Below -o: nothing for a single bundle, else what tells several apart."""
    return Path(*[plan.spec.name] * (len(models) > 1), *[plan.backend.name] * (len(targets) > 1))


def _show(plans: list[Plan], bundles: list[Bundle], cached: list[bool], *, as_json: bool) -> None:
    from qzoo.records import encode
    from qzoo.report import build_object, build_summary, comparison
    from qzoo.report.objects import BuildsObject

    built = list(zip(plans, bundles, cached, strict=True))
    if as_json:
        objects = tuple(build_object(bundle, cached=was, reason=plan.reason) for plan, bundle, was in built)
        click.echo(encode(objects[0] if len(objects) == 1 else BuildsObject(builds=objects)), nl=False)
        return
    texts = [build_summary(bundle, cached=was, reason=plan.reason) for plan, bundle, was in built]
    for model in dict.fromkeys(bundle.record.model for bundle in bundles):
        same = [bundle for bundle in bundles if bundle.record.model == model]
        if len(same) > 1:
            texts.append(comparison(same))
    _say(texts)


def _show_plans(plans: list[Plan], *, as_json: bool) -> None:
    from qzoo.records import encode
    from qzoo.report.objects import PlansObject

    if as_json:
        objects = tuple(map(_planned, plans))
        click.echo(encode(objects[0] if len(objects) == 1 else PlansObject(builds=objects)), nl=False)
        return
    _say([_plan_lines(plan) for plan in plans])


def _say(texts: list[list[str]]) -> None:
    click.echo("\n\n".join("\n".join(lines) for lines in texts))


def _planned(plan: Plan) -> PlanObject:
    from qzoo.report.objects import PlanObject

    return PlanObject(
        model=plan.spec.name,
        target=str(plan.target),
        reason=plan.reason,
        id=plan.inputs.bundle_id,
        recipe=plan.recipe,
        weights=plan.weights.record,
        calibration_samples=len(plan.calibration),
        held_out_samples=len(plan.held_out),
    )


def _plan_lines(plan: Plan) -> list[str]:
    weights, recipe = plan.weights.record, plan.recipe
    return [
        f"would build {plan.spec.name} {recipe.precision} for {plan.target} ({plan.reason})",
        f"  weights      {weights.kind}: {weights.ref}, {weights.num_classes} classes",
        f"  calibration  {recipe.calibrator} on {len(plan.calibration)} images of {plan.dataset.name}",
        f"  evaluation   {len(plan.held_out)} held-out images",
        f"  placement    {recipe.placement}, roles {', '.join(recipe.roles)}",
        f"  bundle id    {plan.inputs.bundle_id}",
    ]
