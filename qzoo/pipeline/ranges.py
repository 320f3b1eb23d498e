"""A model's graph without quantizers, and their ranges beside it, for runtimes that read no Q/DQ."""

from __future__ import annotations

from dataclasses import dataclass

from qzoo.errors import UsageError
from qzoo.graph.ranges import calibration_cache, ranges_of, without_quantizers
from qzoo.pipeline.assemble import serialize
from qzoo.pipeline.plan import COMPARE, Plan
from qzoo.pipeline.progress import Progress
from qzoo.records import RangesRecord, encode
from qzoo.spec import AUTO


@dataclass(frozen=True, slots=True)
class ExportedRanges:
    """The graph, serialized; the ranges as JSON (a RangesRecord); the calibration cache."""

    graph: bytes
    ranges: bytes
    cache: bytes


def export_ranges(plan: Plan, version: int, progress: Progress) -> ExportedRanges:
    """Of a plan; `version` as in `calibration_cache`. Raises UsageError for a float plan, or one that reports."""
    from qzoo.pipeline.prepare import prepare

    if not plan.recipe.quantized:
        raise UsageError(f"--form ranges needs an INT8 precision: {plan.recipe.precision} has no ranges")
    if plan.compared and plan.recipe.calibrator != AUTO:
        raise UsageError(f"--calib {COMPARE} reports on a build; to export ranges name one calibrator, or {AUTO}")
    portable = prepare(plan, progress).portable
    ranges = ranges_of(portable)
    record = RangesRecord(
        model=plan.spec.name,
        calibrator=plan.recipe.calibrator,
        ranges=dict(ranges.calibrated),
        derived=dict(ranges.derived),
        several=dict(ranges.several),
    )
    cache = calibration_cache(ranges, version)
    return ExportedRanges(serialize(without_quantizers(portable)), encode(record), cache.encode())
