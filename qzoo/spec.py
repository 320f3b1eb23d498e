"""What a plugin declares about a model: values only, no torch, nothing that is loaded or run.

Every class is a frozen dataclass. `Recipe` and `Preprocess` travel in manifests, so they round-trip through JSON
(`qzoo.records.encode` / `decode`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import translate
from re import Match, escape, fullmatch
from typing import Any, Literal

from qzoo.errors import SpecError, UnknownName, UsageError

Role = Literal["input", "weight", "skip", "branch", "output"]
Precision = Literal["fp32", "bf16", "fp16", "int8", "int8+fp16"]
Placement = Literal["auto", "manual"]
FloatParts = Literal["auto", "fp32"]
Decision = Literal["argmax", "softmax-sum"]

ROLES: tuple[Role, ...] = ("input", "weight", "skip", "branch", "output")
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "fp16", "int8", "int8+fp16")
PLACEMENTS: tuple[Placement, ...] = ("auto", "manual")
FLOAT_PARTS: tuple[FloatParts, ...] = ("auto", "fp32")
TRAINED = "trained"
AUTO = "auto"
CALIBRATORS = ("max", "percentile", "mse", "entropy", AUTO, TRAINED)
COMPARED_CALIBRATORS = ("max", "percentile:99.9", "percentile:99.99", "percentile:99.999", "mse", "entropy")
"""What "auto" chooses among; of equally good ones the first here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess:
    """How an image becomes an input tensor: convert, resize the shorter side, centre-crop, scale to [0, 1], normalize.

    With `squash` both sides are resized to `resize`, whatever the image's shape. `mean` and `std` have one value per
    channel, in the units of a [0, 1] image. Applied by `qzoo.data.preprocess`.
    """

    mode: Literal["RGB", "L"] = "RGB"
    resize: int
    crop: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    squash: bool = False

    def __post_init__(self) -> None:
        channels = {"RGB": 3, "L": 1}[self.mode]
        if len(self.mean) != channels or len(self.std) != channels:
            raise SpecError(
                f"preprocess: mode {self.mode} needs {channels} means and stds, got {self.mean}, {self.std}"
            )
        if not 0 < self.crop <= self.resize:
            raise SpecError(f"preprocess: need 0 < crop <= resize, got crop {self.crop}, resize {self.resize}")
        if min(self.std) <= 0:
            raise SpecError(f"preprocess: every std must be > 0, got {self.std}")

    @property
    def resizing(self) -> str:
        """How it resizes, for people: "resize 256 bilinear"."""
        return f"{'squash' if self.squash else 'resize'} {self.resize} {self.interpolation}"


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSpec:
    """One input of a model. `shape` leaves out the batch: (C, H, W). The batch is symbolic, named N."""

    name: str = "input"
    shape: tuple[int, ...]
    dtype: Literal["float32"] = "float32"
    preprocess: Preprocess


@dataclass(frozen=True, slots=True)
class Fusion:
    """Modules that become one kernel: `conv`, its `bn`, and the activation that follows.

    The paths may hold `*`, which stands for one or more characters and binds the same text in every path:
    `Fusion("layer*.*.conv1", "layer*.*.bn1", "layer*.*.relu1")`. A pattern that matches nothing is an error.
    """

    conv: str
    bn: str
    act: str | None = None

    def bind(self, paths: Iterable[str]) -> list[tuple[str, str, str | None]]:
        """The concrete (conv, bn, act) paths among a network's module paths, in the network's order."""
        known = list(paths)
        found = []
        for path in known:
            match = match_path(self.conv, path)
            if match is None:
                continue
            bn, act = fill(self.bn, match), fill(self.act, match) if self.act else None
            missing = [p for p in (bn, act) if p is not None and p not in known]
            if missing:
                raise SpecError(f"fusion {self}: {path} matches, but there is no module {missing[0]}")
            found.append((path, bn, act))
        if not found:
            raise SpecError(f"fusion pattern {self.conv!r} matches no module; check the paths with `qzoo info MODEL`")
        return found


def match_path(pattern: str, path: str) -> Match[str] | None:
    """Match a module path against a pattern in which each `*` stands for characters other than a dot."""
    return fullmatch("([^.]+)".join(escape(part) for part in pattern.split("*")), path)


def fill(pattern: str, match: Match[str]) -> str:
    """Put what each `*` of another pattern matched into this one, left to right."""
    parts, groups = pattern.split("*"), match.groups()
    if len(parts) - 1 > len(groups):
        raise SpecError(f"pattern {pattern!r} has more '*' than the pattern of its conv")
    return "".join(part + (groups[i] if i < len(parts) - 1 else "") for i, part in enumerate(parts))


@dataclass(frozen=True, slots=True)
class QuantSwap:
    """Replace modules by quantized ones.

    Exactly one of `path` (a pattern as in `Fusion`) and `type` ("torch.nn.Conv2d") selects them. `to` names the
    quantized class, "qzoo.quant.modules:QuantAdd"; it is made by its `from_float(module, weight_axis)` class method.
    """

    to: str
    path: str | None = None
    type: str | None = None

    def __post_init__(self) -> None:
        if (self.path is None) == (self.type is None):
            raise SpecError(f"quant swap to {self.to}: give exactly one of path and type")


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightSource:
    """Where trained float weights come from.

    kind "shipped": `ref` is a name in weights/weights.toml. kind "torchvision": `ref` is a torchvision weights enum,
    "ResNet50_Weights.IMAGENET1K_V2". kind "url": `ref` is an https address of a .pth or .safetensors file, `sha256`
    (a prefix of at least 8 hex digits) its digest. kind "timm": `ref` is a pretrained network of timm's,
    "resnet18.a1_in1k", which timm itself fetches and converts.
    """

    kind: Literal["shipped", "torchvision", "url", "timm"]
    ref: str
    sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchProfile:
    """The batch sizes an engine accepts, and the one it is tuned for: min <= opt <= max."""

    min: int = 1
    opt: int = 1
    max: int = 64

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.opt <= self.max:
            raise UsageError(f"batch profile needs 1 <= min <= opt <= max, got {self.min}:{self.opt}:{self.max}")


@dataclass(frozen=True, slots=True, kw_only=True)
class BuilderSettings:
    """What a runtime's builder is told beside the graph; only TensorRT's have such settings.

    `workspace_mib`: the memory in MiB that a kernel may use. `optimization_level`: 0 (built fast) to 5 (runs fast).
    `version_compatible`: for later versions of the runtime too. `hardware_compatible`: for later GPUs too.
    """

    workspace_mib: int | None = None
    optimization_level: int | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False

    def __post_init__(self) -> None:
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise UsageError(f"builder: the workspace must be at least 1 MiB, got {self.workspace_mib}")
        if self.optimization_level is not None and not 0 <= self.optimization_level <= 5:
            raise UsageError(f"builder: the optimization level is 0 to 5, not {self.optimization_level}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerances:
    """What an engine may lose. `*_sqnr_db` are centred SQNRs in dB, `*_top1` fractions, `max_drop` accuracy points."""

    export_sqnr_db: float = 45.0  # portable graph against the fake-quantized network
    engine_sqnr_db: float = 35.0  # engine against its lowered graph
    engine_top1: float = 0.995
    lowering_sqnr_db: float = 0.5  # what lowering may cost, in dB of SQNR to the float model
    max_drop: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How a network is trained on images, and by default how its plugin's author trained it.

    The loss is the cross-entropy of every output, summed. `lr` is the peak learning rate; "one-cycle" is Smith and
    Topin 2018 (arXiv:1708.07120), "cosine" Loshchilov and Hutter 2017 (arXiv:1608.03983) without restarts. `shift` is
    the largest random shift of an image, as a fraction of its side, `rotate` the largest rotation in degrees, `zoom`
    the largest change of size, as a fraction; `flip` mirrors half of them. Weight decay is of weights only, not of
    biases, BatchNorms or ranges. `learn_amax` trains the quantizers' ranges too.
    """

    optimizer: Literal["adamw", "sgd"] = "adamw"
    schedule: Literal["one-cycle", "cosine"] = "one-cycle"
    lr: float = 1e-3
    batch_size: int = 64
    epochs: int = 30
    weight_decay: float = 0.01
    label_smoothing: float = 0.0
    shift: float = 0.0
    rotate: float = 0.0
    zoom: float = 0.0
    flip: bool = False
    learn_amax: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.lr < float("inf"):
            raise UsageError(f"training: the learning rate must be above 0, got {self.lr}")
        if min(self.batch_size, self.epochs) < 1:
            raise UsageError(f"training: needs 1 epoch and 1 image a batch, got {self.epochs} and {self.batch_size}")
        if not (self.weight_decay >= 0 and 0 <= self.label_smoothing < 1 and 0 <= self.shift < 1):
            raise UsageError(
                f"training: weight decay {self.weight_decay}, label smoothing {self.label_smoothing} and shift "
                f"{self.shift} must be at least 0, the last two below 1"
            )
        if not (0 <= self.rotate <= 180 and 0 <= self.zoom < 1):
            raise UsageError(
                f"training: rotate is {self.rotate} degrees, must be 0 to 180; zoom is {self.zoom}, must be at least 0 "
                "and below 1"
            )

    def for_qat(self, epochs: int | None = None) -> Training:
        """Fine-tuning with fake quantization: a tenth of the rate and of the epochs, cosine annealing.

        As pytorch-quantization's tutorial advises ("Quantizing Resnet50", section "Quantization Aware Training").
        """
        return replace(self, lr=self.lr / 10, schedule="cosine", epochs=epochs or max(1, round(self.epochs / 10)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a model is deployed on one target. Frozen, versioned (`schema`), round-trips through JSON.

    `keep_float` are globs of modules that get no quantizers; `float_modules` of modules that have some in the portable
    graph, but are computed in float on this target. `weight_bits` below 8 narrows the weights' integers, [-7, 7] for 4;
    they are still stored, and computed with, as int8. `float_parts` is what an INT8 engine computes in that isn't
    quantized: "auto" is bf16 where a runtime uses it on the machine, else fp32. `qat` is how the calibrated network is
    fine-tuned before it is exported; None: not at all.
    """

    target: str
    precision: Precision
    roles: tuple[Role, ...] = ("input", "weight", "skip", "branch")
    calibrator: str = "percentile:99.99"
    per_channel: bool = True
    weight_bits: int = 8
    placement: Placement = "manual"
    batch: BatchProfile = BatchProfile()
    builder: BuilderSettings = BuilderSettings()
    keep_float: tuple[str, ...] = ()
    float_modules: tuple[str, ...] = ()
    float_parts: FloatParts = "auto"
    qat: Training | None = None
    tolerances: Tolerances = Tolerances()
    schema: Literal[1] = 1

    def __post_init__(self) -> None:
        chosen = ((self.precision, PRECISIONS), (self.placement, PLACEMENTS), (self.float_parts, FLOAT_PARTS))
        for value, allowed in chosen:
            if value not in allowed:
                raise UsageError(f"recipe: {value!r} is not one of {', '.join(allowed)}")
        for role in self.roles:
            if role not in ROLES:
                raise UsageError(f"recipe: role {role!r} is not one of {', '.join(ROLES)}")
        if self.float_parts != "auto" and self.precision != "int8":
            raise UsageError(f"recipe: float_parts {self.float_parts!r} is of precision int8, not of {self.precision}")
        if not 2 <= self.weight_bits <= 8:
            raise UsageError(f"recipe: weights have 2 to 8 bits, not {self.weight_bits}")
        parse_calibrator(self.calibrator)

    @property
    def quantized(self) -> bool:
        return self.precision in ("int8", "int8+fp16")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One model of the zoo.

    `builder` is a string, "qzoo_resnet.model:resnet50", of a callable `(num_classes: int) -> torch.nn.Module`, so that
    listing a model imports no torch. `head` is the path of the module whose weight's first axis is the class count
    (it is how the count is read off a checkpoint). `data` is the dataset that calibrates and evaluates it where the
    caller names none. `--placement auto` ignores `swaps` and replaces modules by type only. `reference` is the
    ordinary network, "torchvision.models:resnet50", a callable `(*, num_classes: int)`: its state dict must load and
    give its outputs, which `qzoo plugin check` tests.
    """

    name: str
    summary: str
    builder: str
    version: str
    input: InputSpec
    num_classes: int
    head: str
    outputs: tuple[str, ...] = ("logits",)
    decision: Decision = "argmax"
    fusions: tuple[Fusion, ...] = ()
    swaps: tuple[QuantSwap, ...] = ()
    keep_float: tuple[str, ...] = ()
    weights: tuple[WeightSource, ...] = ()
    recipes: tuple[Recipe, ...] = ()
    training: Training = Training()
    data: str = "photos"
    placement: Literal["declared", "derived"] = "declared"
    builder_args: Mapping[str, Any] = field(default_factory=dict)
    reference: str | None = None

    def __post_init__(self) -> None:
        if not fullmatch(r"[a-z0-9][a-z0-9._/-]*", self.name):
            raise SpecError(f"model name {self.name!r}: use lowercase letters, digits and . _ - /")
        if ":" not in self.builder:
            raise SpecError(f"{self.name}: builder {self.builder!r} is not of the form 'package.module:callable'")
        pairs = [(r.target, r.precision) for r in self.recipes]
        if len(set(pairs)) != len(pairs):
            raise SpecError(f"{self.name}: two recipes for the same target and precision: {pairs}")

    def recipe(self, target: str, precision: Precision, roles: tuple[Role, ...]) -> Recipe:
        """The declared recipe for a target and precision, else a default one with the target's own `roles`."""
        for recipe in self.recipes:
            if (recipe.target, recipe.precision) == (target, precision):
                return recipe
        return Recipe(target=target, precision=precision, roles=roles)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFamily:
    """Many models of one library. `names` lists them cheaply; `resolve(name)` is called only for a chosen one.

    A family's models are called `<prefix>/<name>`.
    """

    prefix: str
    summary: str
    names: Callable[[], Iterable[str]]
    resolve: Callable[[str], ModelSpec]


def parse_calibrator(text: str) -> tuple[str, float | None]:
    """The method and argument of one of CALIBRATORS, as `--calib` takes it: "max", "percentile[:P]", ...

    0 < P <= 100, 99.99 where it isn't given; "auto" is the best of COMPARED_CALIBRATORS; "trained" takes the ranges
    that come with weights of `qzoo train --qat`.

    Raises UnknownName for another method, UsageError for a bad argument.
    """
    method, _, argument = text.partition(":")
    if method not in CALIBRATORS:
        raise UnknownName("calibrator", method, CALIBRATORS, "write it NAME or NAME:ARGUMENT")
    if method != "percentile":
        if argument:
            raise UsageError(f"calibrator {text!r}: {method} takes no argument")
        return method, None
    try:
        percentile = float(argument or 99.99)
    except ValueError:
        raise UsageError(f"calibrator {text!r}: {argument!r} is not a number; try percentile:99.99") from None
    if not 0 < percentile <= 100:
        raise UsageError(f"calibrator {text!r}: the percentile must be above 0 and at most 100")
    return method, percentile


def with_overrides(recipe: Recipe, **changes: object) -> Recipe:
    """A copy of the recipe with every change that is not None."""
    return replace(recipe, **{k: v for k, v in changes.items() if v is not None})  # type: ignore[arg-type]


def matches_any(path: str, globs: Iterable[str]) -> bool:
    """Whether a module path matches one of the globs (`*` crosses dots here: `layer4.*` is all of layer4)."""
    return any(fullmatch(translate(glob), path) for glob in globs)
