"""A plan's images: calibration and held-out ones, decoded once and normalized. Loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qzoo.data.decode import Decoded, decode_samples, worker_count
from qzoo.data.preprocess import normalize
from qzoo.errors import DataUnavailable
from qzoo.hookspecs import Sample
from qzoo.pipeline.plan import MIN_CALIBRATION, Plan
from qzoo.pipeline.progress import Progress
from qzoo.records import Skipped


@dataclass(frozen=True, kw_only=True)
class Images:
    """Preprocessed images (N, C, H, W) float32; labels (N,) or None; and what could not be read."""

    images: NDArray[np.float32]
    labels: NDArray[np.int64] | None
    skipped: tuple[Skipped, ...]


def read_calibration(plan: Plan, progress: Progress) -> Images:
    """The calibration images. Raises DataUnavailable where too few can be read."""
    found = _read(plan, plan.calibration, "calibration", progress)
    if len(found.samples) < MIN_CALIBRATION:
        raise DataUnavailable(
            f"dataset {plan.dataset.name!r}: {len(found.samples)} of {len(plan.calibration)} calibration images can be "
            f"read; at least {MIN_CALIBRATION} are needed; {found.skipped[0].reason}"
        )
    return _normalized(plan, found)


def read_held_out(plan: Plan, progress: Progress) -> Images:
    """The held-out images. Raises DataUnavailable where none can be read."""
    return _normalized(plan, _read(plan, plan.held_out, "held-out", progress))


def read_compared(plan: Plan, progress: Progress) -> Images:
    """The calibration images that calibrators are compared on. Raises DataUnavailable where none can be read."""
    return _normalized(plan, _read(plan, plan.compared, "more calibration", progress))


def _read(plan: Plan, samples: Sequence[Sample], what: str, progress: Progress) -> Decoded:
    progress.stage(f"reading {what} images", len(samples))
    preprocess = plan.spec.input.preprocess
    return decode_samples(
        plan.dataset,
        samples,
        preprocess,
        workers=worker_count(plan.dataset, samples, preprocess) if plan.workers is None else plan.workers,
        strict=plan.strict,
        cache=plan.image_cache,
        advance=progress.advance,
    )


def _normalized(plan: Plan, found: Decoded) -> Images:
    images = normalize(plan.spec.input.preprocess, found.pixels)
    return Images(images=images, labels=found.labels, skipped=found.skipped)
