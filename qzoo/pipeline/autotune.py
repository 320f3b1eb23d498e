"""--autotune: of several lowerings, on one runtime or on all that run here, the fastest engine that is good enough.

Candidates are judged on calibration images that no range was made from; the held-out images choose nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations, product
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qzoo.apart import WARM_S, Apart, turns
from qzoo.backends.cpu import cpu_name
from qzoo.errors import AccuracyGateError, TargetError, TargetUnsupported, UsageError
from qzoo.graph.groups import float_groups
from qzoo.measure import accuracy, decide, fidelity, timings
from qzoo.pipeline.assemble import Outputs, build_engine, engine_config, run_batched, run_reference, serialize
from qzoo.pipeline.build import build_one, facts_of, shared_key, stored
from qzoo.pipeline.gates import check_engine
from qzoo.pipeline.images import Images, read_compared
from qzoo.pipeline.plan import Options, Plan, make_plan
from qzoo.pipeline.prepare import Prepared, prepare
from qzoo.pipeline.progress import Progress, Silent
from qzoo.pipeline.timing_cache import TimingCache
from qzoo.records import Accuracy, Candidate, Fidelity, digest_of
from qzoo.registry import Registry
from qzoo.spec import AUTO, FloatParts, Precision, Recipe, Role
from qzoo.store import Bundle, Store

SAME = 1.01
"""Latencies within 1 % of the fastest count as equal: less can't be told apart on a machine that does other things."""
ROUNDS = {"quick": 10, "full": 20}
"""Of all candidates: heats."""
FINALS, FINAL_ROUNDS, NEAR = 3, 8, 1.3
"""Those within NEAR of the fastest run again, in new processes each time: where one's memory lies changes its speed."""
SECONDS = 30
"""Of one heat or final, at most; at least five rounds are run."""
PLAIN = "as the recipe says"
QUANTIZED = "quantized where the recipe says float"
EXACT = "float parts in fp32"


@dataclass(frozen=True)
class Tuned:
    """What --autotune came to: the plan of the engine that was kept, why, and its bundle."""

    plan: Plan
    bundle: Bundle
    cached: bool


@dataclass(frozen=True)
class _Variant:
    """One plan, and in words how its recipe differs from the model's."""

    plan: Plan
    name: str

    def of(self, graphs: Prepared) -> ir.Model:
        return graphs.portable if self.plan.recipe.quantized else graphs.float_graph


@dataclass(frozen=True)
class _Trial:
    """A variant's engine, to run apart from others; or `reason`: why it can't be had."""

    variant: _Variant
    key: str = ""
    engine: Apart | None = None
    fidelity: Fidelity | None = None
    accuracy: Accuracy | None = None
    latency_ms: float | None = None
    reason: str = ""


def autotune(
    options: Options, registry: Registry, store: Store, *, force: bool = False, progress: Progress | None = None
) -> Tuned:
    """Measure the candidates of `options.autotune`, "quick" or "full", and build a bundle of the one to keep.

    That is the fastest that passes the accuracy gate; of those as fast within 1 % an INT8 one, and of these the one
    with the largest SQNR. "quick" tries each runtime's recipe, one summand of an add or none quantized, each group of
    `float_groups` in float, the recipe's `float_modules` quantized, alone and with each group in float, both recipes
    with float parts in fp32, and the float precisions; "full" all combinations of these. Latencies in
    `options.timing_cache` are used, others are measured and kept there. Raises a QzooError.
    """
    shown, cache = progress or Silent(), TimingCache.read(options.timing_cache)
    plans = _plans(options, registry, store, shown)
    graphs = prepare(plans[0], shown)
    images = graphs.compared or read_compared(plans[0], shown)
    level = str(options.autotune)
    variants = _distinct([variant for plan in plans for variant in _variants(plan, graphs, level)], graphs)
    with TemporaryDirectory(prefix="qzoo-") as folder:
        trials = _measured(_run(variants, graphs, images, Path(folder), shown), options, cache, shown)
        chosen = _choose(trials, plans[0])
    records = tuple(_record(trial, trial is chosen) for trial in trials)
    plan = replace(
        chosen.variant.plan,
        reason=f"autotune: the best of {len(trials)} candidates",
        notes=(*chosen.variant.plan.notes, *_notes(chosen, trials)),
    )
    known = None if force else stored(plan, store)
    if known is not None and known.measurement.candidates == records:
        return Tuned(plan, known, cached=True)
    prepared = {shared_key(plans[0]): graphs}
    return Tuned(plan, build_one(plan, store, prepared, shown, candidates=records), cached=False)


def _plans(options: Options, registry: Registry, store: Store, progress: Progress) -> list[Plan]:
    """The INT8 plan of every runtime to try, then the float plans."""
    if options.precision != "int8":
        raise UsageError(
            f"--autotune weighs INT8 against the float precisions; it starts from --int8, not {options.precision}"
        )
    quantized = replace(options, calibrator=options.calibrator or AUTO, timing_cache=None)
    plain = replace(quantized, autotune=None, calibrator=None, qat_epochs=0, weight_bits=None, placement=None)
    make = partial(make_plan, registry=registry, cache=store.home / "cache", progress=progress)
    plans, floats = [], []
    for name in _runtimes(options.target, registry):
        plan = make(replace(quantized, target=name))
        if not plan.backend.runs(plan.target):
            raise TargetUnsupported(
                f"--autotune measures engines, and {plan.target} doesn't run here: {plan.backend.probe().reason}; "
                "build it without"
            )
        plans.append(plan)
        for precision in plan.backend.float_precisions:
            try:
                plan.backend.check_precision(precision)
            except TargetUnsupported:
                continue  # this machine lacks it: there is nothing to try
            floats.append(make(replace(plain, target=name, precision=precision)))
    return [*plans, *floats]


def _runtimes(target: str, registry: Registry) -> list[str]:
    if target != "auto":
        return [target]
    found = [backend.name for backend in registry.preferred() if backend.probe().works]
    return found or ["auto"]  # which says what is wrong


def _variants(plan: Plan, graphs: Prepared, level: str) -> Iterator[_Variant]:
    yield _Variant(plan, PLAIN if plan.recipe.quantized else plan.recipe.precision)
    if not plan.recipe.quantized:
        return
    recipe, groups = plan.recipe, float_groups(graphs.portable)
    roles = _role_sets(recipe)
    kept = {"": recipe.float_modules} | ({QUANTIZED: ()} if recipe.float_modules else {})
    parts = _float_parts(plan)
    if level == "quick":
        subsets = [(), *((name,) for name in groups), *([("depthwise", "gates")] if _both(groups) else [])]
        choices = [*product(subsets, [""], kept, [""]), *(((), name, "", "") for name in roles if name)]
        choices += [((), "", left, part) for left, part in product(kept, parts) if part]
    else:
        subsets = [chosen for size in range(len(groups) + 1) for chosen in combinations(groups, size)]
        choices = [*product(subsets, roles, kept, parts)]
    for subset, role, left, part in choices:
        words = [f"{' and '.join(subset)} in float"] * bool(subset) + [word for word in (role, left, part) if word]
        if not words:
            continue
        floats = (*kept[left], *(path for group in subset for path in groups[group]))
        own = replace(recipe, roles=roles[role], float_modules=floats, float_parts=parts[part])
        yield _Variant(_with_recipe(plan, own), ", ".join(words))


def _both(groups: Mapping[str, object]) -> bool:
    return {"depthwise", "gates"} <= groups.keys()


def _float_parts(plan: Plan) -> dict[str, FloatParts]:
    """The recipe's own, and fp32 where the runtime then computes otherwise."""
    exact = replace(plan.recipe, float_parts="fp32")
    differs = _config(plan) != _config(_with_recipe(plan, exact))
    return {"": plan.recipe.float_parts} | ({EXACT: exact.float_parts} if differs else {})


def _config(plan: Plan) -> dict[str, str]:
    return engine_config(plan.backend, plan.target, plan.recipe)


def _role_sets(recipe: Recipe) -> dict[str, tuple[Role, ...]]:
    without_branch = tuple(role for role in recipe.roles if role != "branch")
    without_adds = tuple(role for role in without_branch if role != "skip")
    return {"": recipe.roles, "one summand quantized": without_branch, "no summand quantized": without_adds}


def _with_recipe(plan: Plan, recipe: Recipe) -> Plan:
    return replace(plan, recipe=recipe, inputs=replace(plan.inputs, recipe=recipe))


def _distinct(variants: list[_Variant], graphs: Prepared) -> list[tuple[_Variant, ir.Model]]:
    """Each variant with its lowered graph, but those that come to the same engine on the same target only once."""
    found: dict[tuple[str, Precision, str], tuple[_Variant, ir.Model]] = {}
    for variant in variants:
        plan = variant.plan
        lowered = plan.backend.lower(variant.of(graphs), plan.recipe, plan.target)
        key = str(plan.target), plan.recipe.precision, digest_of((_config(plan), serialize(lowered)))
        found.setdefault(key, (variant, lowered))
    return list(found.values())


def _run(
    variants: list[tuple[_Variant, ir.Model]], graphs: Prepared, images: Images, folder: Path, progress: Progress
) -> list[_Trial]:
    """Build each engine, and hold its outputs to its lowered graph's and to the float network's."""
    reference = run_reference(serialize(graphs.float_graph), images.images)
    progress.stage("building candidates", len(variants))
    trials = []
    for number, (variant, lowered) in enumerate(variants):
        place = folder / str(number)
        place.mkdir()
        trials.append(_tried(variant, lowered, images, reference, place))
        progress.advance()
    return trials


def _tried(variant: _Variant, lowered: ir.Model, images: Images, reference: Outputs, folder: Path) -> _Trial:
    plan = variant.plan
    recipe, backend, decision = plan.recipe, plan.backend, plan.spec.decision
    try:
        made = build_engine(lowered, recipe, backend, plan.target, facts_of(plan), folder)
        engine = backend.load(made.path, made.record)
        outputs = run_batched(engine, images.images)
        graph = run_reference(serialize(lowered), images.images)
        to_float = fidelity(reference, graph, decision, trained=plan.trained)
        to_graph = fidelity(graph, outputs, decision, trained=plan.trained)
        check_engine(to_graph, to_float if recipe.quantized else None, recipe, backend.name)
    except (TargetError, AccuracyGateError) as error:
        return _Trial(variant, reason=str(error))
    labels = images.labels if plan.trained else None
    return _Trial(
        variant,
        key=_key(variant, lowered),
        engine=Apart.of(made.path, made.record, recipe.batch.opt, plan.plugin_dirs),
        fidelity=fidelity(reference, outputs, decision, trained=plan.trained),
        accuracy=None if labels is None else accuracy(decide(outputs, decision), labels),
    )


def _key(variant: _Variant, lowered: ir.Model) -> str:
    plan = variant.plan
    threads, batch = os.cpu_count() or 1, plan.recipe.batch
    timed = cpu_name(), threads, batch, WARM_S
    return digest_of((str(plan.target), plan.target.version, timed, _config(plan), serialize(lowered)))


def _measured(trials: list[_Trial], options: Options, cache: TimingCache, progress: Progress) -> list[_Trial]:
    """The trials with their latencies: those of the cache, and the others', measured side by side.

    Of those that may be the fastest it is the median of the finals. Of the others it is that of the heats, times what
    the fastest of the heats took longer in the finals, as a machine's speed changes with what else it does.
    """
    engines = {
        trial.key: trial.engine for trial in trials if trial.engine is not None and trial.key not in cache.median_ms
    }
    if engines:
        rounds = ROUNDS[str(options.autotune)]
        progress.stage("measuring candidates", rounds + FINALS * FINAL_ROUNDS)
        heats = _medians(engines, [rounds], progress)
        fastest = min(heats, key=heats.__getitem__)
        near = {key: engine for key, engine in engines.items() if heats[key] <= NEAR * heats[fastest]}
        finals = _medians(near, [FINAL_ROUNDS] * FINALS, progress)
        slower = finals[fastest] / heats[fastest]
        cache = cache.with_medians({key: round(slower * heat, 4) for key, heat in heats.items()} | finals)
        cache.write(options.timing_cache)
    return [replace(trial, latency_ms=cache.median_ms.get(trial.key)) for trial in trials]


def _medians(engines: Mapping[str, Apart], rounds: Sequence[int], progress: Progress) -> dict[str, float]:
    """Each engine's median latency in milliseconds over rounds that are taken in new processes each time.

    They are started in another order each time: one that is started later gets other memory.
    """
    found: dict[str, list[NDArray[np.float64]]] = {key: [] for key in engines}
    keys, order = list(engines), np.random.default_rng(0)
    for count in rounds:
        with turns({keys[index]: engines[keys[index]] for index in order.permutation(len(keys))}) as started:
            for key, times in timings(started, rounds=count, seconds=SECONDS, advance=progress.advance).items():
                found[key].append(times)
    return {key: round(float(np.median(np.concatenate(times))), 4) for key, times in found.items()}


def _choose(trials: list[_Trial], first: Plan) -> _Trial:
    """The trial to keep. Raises AccuracyGateError where none passes."""
    passing = [trial for trial in trials if trial.latency_ms is not None and not _lost_too_much(trial, trials)]
    if not passing:
        said = "; ".join(f"{trial.variant.plan.target}: {trial.reason}" for trial in trials if trial.reason)
        raise AccuracyGateError(f"--autotune: no engine of {first.spec.name} passes; {said or 'all lose too much'}")
    fastest = min(_latency(trial) for trial in passing)
    equal = [trial for trial in passing if _latency(trial) <= SAME * fastest]
    integer = [trial for trial in equal if trial.variant.plan.recipe.quantized]
    return max(integer or equal, key=lambda trial: trial.fidelity.sqnr_db if trial.fidelity else 0.0)


def _latency(trial: _Trial) -> float:
    return float("inf") if trial.latency_ms is None else trial.latency_ms


def _lost_too_much(trial: _Trial, trials: list[_Trial]) -> bool:
    """Whether it decides fewer images rightly than fp32, beyond --max-drop and one image, which may be chance."""
    fp32 = next((other.accuracy for other in trials if other.variant.plan.recipe.precision == "fp32"), None)
    if trial.accuracy is None or fp32 is None:
        return False
    allowed = max(1.0, trial.variant.plan.recipe.tolerances.max_drop / 100 * fp32.total)
    return fp32.correct - trial.accuracy.correct > allowed


def _record(trial: _Trial, chosen: bool) -> Candidate:  # noqa: FBT001
    plan = trial.variant.plan
    return Candidate(
        key=trial.key,
        target=str(plan.target),
        precision=plan.recipe.precision,
        variant=trial.variant.name,
        latency_ms=trial.latency_ms,
        fidelity=trial.fidelity,
        accuracy=trial.accuracy,
        chosen=chosen,
        reason=trial.reason,
    )


def _notes(chosen: _Trial, trials: list[_Trial]) -> list[str]:
    plan = chosen.variant.plan
    if plan.recipe.quantized:
        return []
    integer = [trial for trial in trials if trial.variant.plan.recipe.quantized and trial.latency_ms is not None]
    best = min(integer, key=_latency, default=None)
    beside = "" if best is None else f" ({_latency(chosen):.3f} ms; the fastest INT8 engine {_latency(best):.3f} ms)"
    return [f"autotune kept {plan.recipe.precision}: no INT8 engine is as fast here{beside}"]
