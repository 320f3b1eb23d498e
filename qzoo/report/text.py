"""Records -> text for people."""

from __future__ import annotations

from collections.abc import Sequence

from qzoo.records import INT8, Accuracy, EngineRecord, Latency, LayerTable, LayerTensor, Measurement, TensorInfo
from qzoo.spec import Recipe
from qzoo.store import Bundle

MB = 1e6


def build_summary(bundle: Bundle, *, cached: bool, reason: str) -> list[str]:
    """What `qzoo build` did, in at most 25 lines, and a table of the calibrators where they were compared."""
    manifest, measured = bundle.manifest, bundle.measurement
    inputs = manifest.inputs
    recipe, weights = inputs.recipe, inputs.weights
    lines = [
        f"{inputs.model} {recipe.precision} for {measured.target} ({reason})",
        f"  weights      {weights.kind}: {weights.ref}, {weights.num_classes} classes",
    ]
    if recipe.quantized:
        lines.append(f"  calibration  {_calibrator(bundle)} on {manifest.data}, placement {recipe.placement}")
    lines += _fine_tuning(recipe)
    if cached:
        lines.append("  served from the store: the same was built before (--force rebuilds)")
    lines.append(f"  verified     {_verified(measured)}")
    lines += _measured(measured, recipe.precision)
    lines += [f"  note         {note}" for note in _first(measured.notes, 4)]
    lines.append(f"  engine       {bundle.engine}")
    if measured.verified == "passed":
        lines.append(f"  run it       qzoo run {inputs.model}:{recipe.precision.replace('+', '-')} IMAGE")
    return lines


def engine_lines(record: EngineRecord) -> list[str]:
    """What an engine's sidecar says: what it is built for, and how it is fed and read."""
    pre, target = record.preprocess, record.target
    lines = [
        f"{record.model} {record.precision} for {target}, {target.runtime} {target.version}",
        f"  engine       {record.size_bytes / MB:.3f} MB, sha256:{record.sha256}",
        f"  config       {', '.join(f'{key}={value}' for key, value in sorted(record.config.items())) or 'none'}",
    ]
    lines += [f"  input        {_shape(info)}, batch 1 to {record.max_batch}" for info in record.inputs]
    lines += [f"  output       {_shape(info)}, decided by {record.decision}" for info in record.outputs]
    some = ", ".join(record.labels[:5]) + (", ..." if len(record.labels) > 5 else "")
    return [
        *lines,
        f"  preprocess   {pre.mode}, {pre.resizing}, crop {pre.crop}",
        f"               mean {pre.mean}, std {pre.std}",
        f"  labels       {len(record.labels)}: {some}",
    ]


def bundle_lines(bundle: Bundle) -> list[str]:
    """All that a bundle says of itself: its engine, what went into it, what was measured, its files."""
    manifest, measured = bundle.manifest, bundle.measurement
    inputs, source = manifest.inputs, manifest.provenance
    recipe, weights = inputs.recipe, inputs.weights
    package = f", {source.distribution} {source.version}" if source.distribution else ""
    lines = [
        *engine_lines(bundle.record),
        f"  bundle       {bundle.path}",
        f"  id           {manifest.id}",
        f"  plugin       {source.plugin} {inputs.plugin_version}{package}, sha256:{inputs.plugin_source_sha256}",
        f"  weights      {weights.kind}: {weights.ref}, {weights.num_classes} classes, sha256:{weights.sha256}",
        f"  data         {manifest.data}, seed {inputs.seed}, held-out list sha256:{inputs.held_out_list_sha256}",
    ]
    if recipe.quantized:
        lines += [
            f"  calibration  {_calibrator(bundle)}, sample list sha256:{inputs.sample_list_sha256}",
            f"  placement    {recipe.placement}, roles {', '.join(recipe.roles)}",
        ]
    lines += _fine_tuning(recipe)
    lines += [
        f"  made with    {', '.join(f'{name} {version}' for name, version in sorted(inputs.versions.items()))}",
        f"  verified     {_verified(measured)}",
        *_time(measured),
        *_measured(measured, recipe.precision),
        *(f"  note         {note}" for note in measured.notes),
    ]
    rows = [
        (name, f"{entry.size_bytes / MB:.3f} MB", f"sha256:{entry.sha256}")
        for name, entry in sorted(manifest.files.items())
    ]
    return [*lines, "", *aligned([("file", "size", "digest"), *rows])]


def layer_lines(table: LayerTable) -> list[str]:
    """An engine's layers: what each reads and writes and the ONNX nodes in it, and how much is computed in INT8."""
    lines = []
    for what, operators in _WEIGHTED:
        quantized, total = table.coverage(*operators)
        if total:
            lines.append(f"{what} in INT8: {quantized} of {total}")
    floats = [one for one in table.operators if one.dtype != INT8]
    lines += [f"  not in INT8: {one.node} ({one.operator}), {one.dtype or 'type not told'}" for one in floats]
    rows = [("layer", "kind", "reads", "writes", "ONNX nodes")]
    rows += [
        (one.name, one.kind, _types(one.inputs), _types(one.outputs), ", ".join(one.nodes)) for one in table.layers
    ]
    return [*lines, *aligned(rows)]


_WEIGHTED = (("convolutions", ("Conv", "ConvTranspose")), ("matrix products", ("Gemm", "MatMul")))


def _types(tensors: Sequence[LayerTensor]) -> str:
    return ", ".join(tensor.dtype for tensor in tensors) or "-"


def _fine_tuning(recipe: Recipe) -> list[str]:
    said = []
    if recipe.qat is not None:
        said.append(f"{recipe.qat.epochs} epochs with fake quantization, learning rate {recipe.qat.lr:g}")
    if recipe.weight_bits < 8:
        said.append(f"weights of {recipe.weight_bits} bits")
    return [f"  fine-tuning  {', '.join(said)}"] if said else []


def _first(notes: Sequence[str], count: int) -> list[str]:
    """At most `count` lines: all notes, or all but one line's worth and how many are left."""
    if len(notes) <= count:
        return list(notes)
    return [*notes[: count - 1], f"and {len(notes) - count + 1} more, which --json shows"]


def _shape(info: TensorInfo) -> str:
    return f"{info.name}: {' x '.join(('N', *map(str, info.shape)))} {info.dtype}"


def _calibrator(bundle: Bundle) -> str:
    named = bundle.manifest.inputs.recipe.calibrator
    chosen = next((trial.calibrator for trial in bundle.measurement.calibrators if trial.chosen), named)
    return named if chosen == named else f"{named}: {chosen}"


def _trials(measured: Measurement) -> list[str]:
    """Every calibrator's figures where they were compared, the best by SQNR marked."""
    trials = measured.calibrators
    if not trials:
        return []
    best = max(trials, key=lambda trial: trial.fidelity.sqnr_db)
    heading = f"  calibrators on {trials[0].fidelity.samples} other calibration images, to the float model"
    rows = [("", "SQNR", "top-1 agreement", "accuracy", "")]
    for trial in trials:
        agreement = trial.fidelity.top1_agreement
        words = ["best"] * (trial is best) + ["built with"] * trial.chosen
        rows.append(
            (
                trial.calibrator,
                f"{trial.fidelity.sqnr_db:.2f} dB",
                "-" if agreement is None else f"{agreement:.2%}",
                _correct(trial.accuracy),
                ", ".join(words),
            )
        )
    return ["", heading, *aligned(rows)]


def _time(measured: Measurement) -> list[str]:
    """How long the build took, and its five longest stages."""
    longest = sorted(measured.seconds.items(), key=lambda entry: -entry[1])[:5]
    total = sum(measured.seconds.values())
    stages = ", ".join(f"{name} {seconds:.1f}" for name, seconds in longest)
    return [f"  time         {total:.1f} s: {stages}"] if longest else []


def _measured(measured: Measurement, precision: str) -> list[str]:
    compared = [*_trials(measured), *_candidates(measured)]
    return [*compared, "", *_table(measured, precision), "", *_fidelity(measured)]


def _candidates(measured: Measurement) -> list[str]:
    """Every engine that --autotune measured, fastest first, the kept one marked; then those that could not be had."""
    found = measured.candidates
    if not found:
        return []
    kept = next(one.latency_ms for one in found if one.chosen)
    timed = sorted((one for one in found if one.latency_ms is not None), key=lambda one: one.latency_ms or 0.0)
    rows = [("", "", "latency", "of kept", "SQNR", "accuracy", "")]
    rows += [
        (
            f"{one.target} {one.precision}",
            "" if one.variant == one.precision else one.variant,
            f"{one.latency_ms:.3f} ms",
            _ratio(one.latency_ms, kept),
            "-" if one.fidelity is None else f"{one.fidelity.sqnr_db:.2f} dB",
            _correct(one.accuracy),
            "kept" * one.chosen,
        )
        for one in timed
    ]
    failed = [f"  failed       {one.target} {one.precision}: {one.reason}" for one in found if one.reason]
    return ["", "  candidates of --autotune, on other calibration images", *aligned(rows), *failed]


def _fidelity(measured: Measurement) -> list[str]:
    found = measured.fidelity
    if found is None:
        return []
    agreement = "" if found.top1_agreement is None else f", top-1 agreement {found.top1_agreement:.2%}"
    figures = f"cosine {found.cosine:.5f}, SQNR {found.sqnr_db:.1f} dB{agreement}"
    return [f"  fidelity     to the float model on {found.samples} held-out images: {figures}"]


def comparison(bundles: Sequence[Bundle]) -> list[str]:
    """Several bundles of one model side by side, each against its runtime's fp32 engine."""
    rows = [("target", "float", "engine", "size", "of fp32", "latency", "of fp32")]
    for bundle in bundles:
        measured = bundle.measurement
        precision = bundle.manifest.inputs.recipe.precision
        accuracy = measured.accuracy
        before, after = (None, None) if accuracy is None else (accuracy["float"], accuracy["engine"])
        own, fp32 = measured.latency.get(precision), measured.latency.get("fp32")
        size, full = measured.size_bytes["engine"], measured.size_bytes["float"]
        rows.append(
            (
                f"{measured.target} {precision}",
                _correct(before),
                _correct(after),
                "-" if size is None else f"{size / MB:.3f} MB",
                _ratio(size, full),
                "-" if own is None else f"{own.median_ms:.3f} ms",
                _ratio(_median(own), _median(fp32)),
            )
        )
    return aligned(rows)


def _verified(measured: Measurement) -> str:
    if measured.verified == "planned":
        return "planned: built, but not run here"
    if measured.engine_fidelity is None:
        return measured.verified
    cost = "" if measured.lowering_cost_db is None else f"; lowering cost {measured.lowering_cost_db:.2f} dB"
    return f"{measured.verified}: {measured.engine_fidelity.sqnr_db:.1f} dB from its lowered graph{cost}"


def _table(measured: Measurement, precision: str) -> list[str]:
    rows = [("", "size", "latency", "p95", "of fp32", "accuracy")]
    fp32 = measured.latency.get("fp32")
    sizes = {"fp32": measured.size_bytes["float"], precision: measured.size_bytes["engine"]}
    accuracy: dict[str, Accuracy] = {}
    if measured.accuracy is not None:
        accuracy = {"fp32": measured.accuracy["float"], precision: measured.accuracy["engine"]}
    names = [name for name in ("fp32", "bf16", "fp16", "int8", "int8+fp16") if name in {*measured.latency, *sizes}]
    for name in names:
        size, latency = sizes.get(name), measured.latency.get(name)
        rows.append(
            (
                name,
                "-" if size is None else f"{size / MB:.3f} MB",
                "-" if latency is None else f"{latency.median_ms:.3f} ms",
                "-" if latency is None else f"{latency.p95_ms:.3f} ms",
                _ratio(_median(latency), _median(fp32)),
                _correct(accuracy.get(name)),
            )
        )
    some = next(iter(measured.latency.values()), None)
    heading = [] if some is None else [f"  batch {some.batch}, {some.threads} threads, median of {some.rounds} rounds"]
    return heading + aligned(rows)


def _correct(accuracy: Accuracy | None) -> str:
    return "-" if accuracy is None else f"{accuracy.correct}/{accuracy.total} ({accuracy.fraction:.2%})"


def _median(latency: Latency | None) -> float | None:
    return None if latency is None else latency.median_ms


def _ratio(value: float | None, base: float | None) -> str:
    return f"{value / base:.2f}x" if value and base else "-"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines, each column as wide as its widest cell."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
