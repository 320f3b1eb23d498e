"""The labelled images of a dataset that a network is trained on, and those it is validated on meanwhile."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qzoo.data.decode import worker_count
from qzoo.data.sampler import labels_of
from qzoo.data.stratify import shares
from qzoo.errors import DataUnavailable, UsageError
from qzoo.hookspecs import Dataset, Split
from qzoo.pipeline.progress import Progress
from qzoo.spec import ModelSpec
from qzoo.train.images import LabelledImages, Selected, read_images

MAX_ENLARGEMENT = 16
"""An image that must be enlarged more than this shows nothing that such a network could learn."""


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """A dataset as a model's training reads it. `workers` None: as many processes as pay off."""

    dataset: Dataset
    spec: ModelSpec
    workers: int | None
    strict: bool
    cache: Path
    progress: Progress

    def to_train(self, validation: float, seed: int) -> tuple[LabelledImages, LabelledImages | None]:
        """The calibration split, less a share of each class to validate on (None for 0). Never a held-out image.

        Raises UsageError for a share that isn't in [0, 1), DataUnavailable for images without labels, or too small.
        """
        if not 0 <= validation < 1:
            raise UsageError(f"--validation {validation}: give a share of the images, at least 0 and below 1")
        labels = self._labels("calibration")
        self._check_enlargement()
        kept_back = _stratified(labels, round(validation * len(labels)), seed)
        trained = self._read("calibration", labels, np.flatnonzero(~kept_back), "training")
        if not kept_back.any():
            return trained, None
        return trained, self._read("calibration", labels, np.flatnonzero(kept_back), "validation")

    def held_out(self) -> LabelledImages:
        """The whole held-out split. Raises DataUnavailable for images without labels."""
        labels = self._labels("held-out")
        return self._read("held-out", labels, np.arange(len(labels)), "held-out")

    def classes(self) -> int:
        """How many classes there are to learn: those the dataset names, else up to its largest label."""
        named = self.dataset.classes
        return int(self._labels("calibration").max()) + 1 if named is None else len(named)

    def _labels(self, split: Split) -> NDArray[np.int64]:
        labels = [label for label in labels_of(self.dataset.samples(split)) if label is not None]
        if not labels or len(labels) < len(self.dataset.samples(split)):
            raise DataUnavailable(
                f"dataset {self.dataset.name!r} has {split} images without a label, and training needs one of each; "
                "give --data with one folder of images per class, or a CSV file with a label column"
            )
        return np.array(labels, np.int64)

    def _check_enlargement(self) -> None:
        width, height = self.dataset.image(self.dataset.samples("calibration")[0]).size
        crop = self.spec.input.preprocess.crop
        if crop > MAX_ENLARGEMENT * min(width, height):
            raise DataUnavailable(
                f"dataset {self.dataset.name!r} has images of {width}x{height} pixels, {self.spec.name} takes "
                f"{crop}x{crop}: more than {MAX_ENLARGEMENT} times enlarged they show nothing; give --data with larger "
                "images, or take another model"
            )

    def _read(self, split: Split, labels: NDArray[np.int64], chosen: NDArray[np.int64], what: str) -> LabelledImages:
        self.progress.stage(f"reading {what} images", len(chosen))
        samples, preprocess = Selected(self.dataset.samples(split), chosen), self.spec.input.preprocess
        return read_images(
            self.dataset,
            samples,
            labels[chosen],
            preprocess,
            workers=worker_count(self.dataset, samples, preprocess) if self.workers is None else self.workers,
            strict=self.strict,
            cache=self.cache,
            advance=self.progress.advance,
        )


def _stratified(labels: NDArray[np.int64], count: int, seed: int) -> NDArray[np.bool_]:
    """Which images are among `count` chosen in proportion to their classes."""
    quota = shares(dict(sorted(Counter(labels.tolist()).items())), count)
    chance, chosen = np.random.default_rng(seed), np.zeros(len(labels), np.bool_)
    for label, share in quota.items():
        chosen[chance.permutation(np.flatnonzero(labels == label))[:share]] = True
    return chosen
