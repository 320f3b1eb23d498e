"""Options that several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, TypeVar

import click
from click.shell_completion import CompletionItem

from qzoo.cli.logs import remark
from qzoo.errors import UsageError

if TYPE_CHECKING:
    from qzoo.pipeline.plan import Options
    from qzoo.registry import Registry
    from qzoo.spec import BatchProfile, Placement, Precision

F = TypeVar("F", bound=Callable[..., object])

plugin_dirs = click.option(
    "--plugin-dir",
    "plugin_dirs",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A folder with a plugin that isn't installed; repeatable. QZOO_PLUGINS does the same.",
)
allow_untrusted = click.option(
    "--allow-untrusted",
    is_flag=True,
    help="Load an engine that was neither built here nor signed by a trusted key. It may do whatever you may.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")


def complete_models(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """The models whose names begin so; a family's prefix, and its models once that is written."""
    from qzoo.registry import Registry

    registry = Registry.load()
    names = [entry.spec.name for entry in registry.models()]
    for family in (entry.family for entry in registry.families()):
        prefix = f"{family.prefix}/"
        names += [prefix + name for name in family.names()] if incomplete.startswith(prefix) else [prefix]
    return [name for name in names if name.startswith(incomplete)]


def complete_targets(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """The targets whose names begin so."""
    from qzoo.registry import Registry

    return [name for name in ("auto", *(b.name for b in Registry.load().backends())) if name.startswith(incomplete)]


def complete_engines(_: click.Context, __: click.Parameter, incomplete: str) -> list[str | CompletionItem]:
    """The references in the store that begin so, else files: an engine may be one."""
    from qzoo.store import Store

    if incomplete.startswith((".", "/", "~")):
        return [CompletionItem(incomplete, type="file")]
    return sorted({entry.name for entry in Store.default().entries() if entry.name.startswith(incomplete)})


def complete_subjects(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[str | CompletionItem]:
    """The models and the references that begin so, else files."""
    engines = complete_engines(context, parameter, incomplete)
    return [*complete_models(context, parameter, incomplete), *engines]


which_target = click.option(
    "--target",
    shell_complete=complete_targets,
    help="Which one, where a reference is stored for several. Default: the best that works here.",
)


which_targets = click.option(
    "--target",
    "targets",
    multiple=True,
    shell_complete=complete_targets,
    help="Which one, where a reference is stored for several; repeatable. Default: the best that works here.",
)


class BuildWords(TypedDict):
    """The values of `build_options`, as click passes them."""

    precision: Precision | None
    int8: bool
    fp16: bool
    weights: str
    data: str | None
    labels: Path | None
    calibrator: str | None
    calib_samples: int
    placement: Placement | None
    weight_bits: int | None
    qat_epochs: int
    batch_size: int
    batch: str | None
    gpu: str | None
    workspace: int | None
    builder_optimization_level: int | None
    timing_cache: Path | None
    version_compatible: bool
    hardware_compatible: bool
    max_drop: float | None
    seed: int
    workers: int | None
    strict: bool


def options_of(model: str, target: str, words: BuildWords) -> Options:
    """The options of one build. Raises UsageError where some contradict each other."""
    from qzoo.pipeline.plan import Options
    from qzoo.spec import BuilderSettings

    return Options(
        model=model,
        target=_on_gpus(target, words["gpu"]),
        precision=_precision(words),
        weights=words["weights"],
        data=words["data"],
        labels=words["labels"],
        calibrator=words["calibrator"],
        calib_samples=words["calib_samples"],
        placement=words["placement"],
        weight_bits=words["weight_bits"],
        qat_epochs=words["qat_epochs"],
        batch_size=words["batch_size"],
        batch=_batch(words),
        builder=BuilderSettings(
            workspace_mib=words["workspace"],
            optimization_level=words["builder_optimization_level"],
            version_compatible=words["version_compatible"],
            hardware_compatible=words["hardware_compatible"],
        ),
        timing_cache=words["timing_cache"],
        max_drop=words["max_drop"],
        seed=words["seed"],
        workers=words["workers"],
        strict=words["strict"],
    )


def _precision(words: BuildWords) -> Precision:
    named, int8, fp16 = words["precision"], words["int8"], words["fp16"]
    sugar: Precision | None = "int8+fp16" if int8 and fp16 else "int8" if int8 else "fp16" if fp16 else None
    if named is not None and sugar is not None and named != sugar:
        raise UsageError(f"--precision {named} contradicts --{sugar.replace('+', ' --')}; give one of them")
    return named or sugar or "int8"


def _on_gpus(target: str, gpus: str | None) -> str:
    if gpus is None:
        return target
    if target == "auto" or "/" in target:
        raise UsageError(f"--gpu {gpus} needs a --target that builds ahead of time, not {target}; tensorrt-rtx does")
    return f"{target}/{'+'.join(part.strip() for part in gpus.split(','))}"


def _batch(words: BuildWords) -> BatchProfile | None:
    from qzoo.spec import BatchProfile

    text = words["batch"]
    if text is None:
        return None
    parts = text.split(":")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        raise UsageError(f"--batch {text}: give three batch sizes, MIN:OPT:MAX, such as 1:8:32")
    low, opt, high = map(int, parts)
    if words["batch_size"] not in (1, opt):
        raise UsageError(f"--batch {text} contradicts --batch-size {words['batch_size']}; give one of them")
    return BatchProfile(min=low, opt=opt, max=high)


def build_options(command: F) -> F:
    """What decides a build: precision, target, weights, data, calibration."""
    for option in reversed(
        (
            click.option("--int8", is_flag=True, help="Same as --precision int8 (the default)."),
            click.option("--fp16", is_flag=True, help="Same as --precision fp16; with --int8, int8+fp16."),
            click.option(
                "--precision",
                type=click.Choice(("fp32", "bf16", "fp16", "int8", "int8+fp16")),
                help="What the engine computes in.",
            ),
            click.option(
                "--weights",
                default="auto",
                show_default=True,
                help="'auto' (shipped, cached, or the hub's), 'random' (latency only), or a .safetensors or .pth file.",
            ),
            click.option(
                "--data",
                help="A dataset's name, a directory, or a .csv, .tsv, .npy or .npz file. Default: the model's own.",
            ),
            click.option(
                "--labels", type=click.Path(path_type=Path), help="A file with one class name a line, in order."
            ),
            click.option(
                "--calib",
                "calibrator",
                metavar="NAME[:ARG]",
                help="How activations' amax is found: max, percentile:99.99, mse, entropy; 'auto': the best of them; "
                "'all': a report on them. Default: the recipe's.",
            ),
            click.option("--calib-samples", default=64, show_default=True, help="Images to calibrate on."),
            click.option(
                "--placement",
                type=click.Choice(("auto", "manual")),
                help="Q/DQ placement: 'manual' is the plugin's own, 'auto' plain module replacement.",
            ),
            click.option(
                "--weight-bits", type=click.IntRange(2, 8), help="Bits of the weights' integers. Default: the recipe's."
            ),
            click.option(
                "--qat-epochs",
                default=0,
                show_default=True,
                help="Fine-tune with fake quantization first, so many epochs; `qzoo train --qat` has all options.",
            ),
            click.option("--batch-size", default=1, show_default=True, help="The batch that latency is measured at."),
            click.option(
                "--batch",
                metavar="MIN:OPT:MAX",
                help="The batches that the engine takes, and the one it is tuned for. Default: the recipe's.",
            ),
            click.option(
                "--gpu",
                metavar="SM,...",
                help="The GPUs to build for ahead of time, sm86,sm89; for --target tensorrt-rtx.",
            ),
            click.option(
                "--workspace", metavar="MIB", type=click.IntRange(min=1), help="TensorRT: memory that a kernel may use."
            ),
            click.option(
                "--builder-optimization-level",
                type=click.IntRange(0, 5),
                help="TensorRT: 0 builds fast, 5 runs fast. Default: the SDK's own.",
            ),
            click.option(
                "--timing-cache",
                type=click.Path(path_type=Path, dir_okay=False),
                help="Timings of TensorRT's kernels, or with --autotune of candidates: read if there, written after.",
            ),
            click.option("--version-compatible", is_flag=True, help="TensorRT: an engine for later versions too."),
            click.option("--hardware-compatible", is_flag=True, help="TensorRT: an engine for later GPUs too."),
            click.option(
                "--max-drop", type=float, help="Accuracy points the engine may lose (exit 5 beyond). Default 1.0."
            ),
            click.option("--seed", default=0, show_default=True, help="Decides samples and random weights."),
            click.option("--workers", type=int, help="Processes that decode images. Default: as many as pay off."),
            click.option("--strict", is_flag=True, help="Fail where an image can't be read, instead of skipping it."),
        )
    ):
        command = option(command)
    return command


def load_registry(dirs: tuple[Path, ...], *, builtins: bool = True) -> Registry:
    """The registry; what could not be loaded is said on stderr. Without `builtins` it has models only, and sooner."""
    from qzoo.registry import BUILTINS, Registry

    registry = Registry.load(dirs, builtins=BUILTINS if builtins else {})
    for problem in registry.problems:
        remark(f"plugin {problem.plugin} ({problem.origin}) was left out: {problem.message}")
    return registry
