"""Accuracy of an engine, or of a float network, over a dataset of any size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from qzoo.data.decode import stream, worker_count
from qzoo.data.preprocess import normalize
from qzoo.data.sampler import choose, labels_of
from qzoo.engine import LoadedEngine
from qzoo.errors import DataUnavailable
from qzoo.hookspecs import Dataset, Sample
from qzoo.measure import decide
from qzoo.pipeline.plan import Plan
from qzoo.pipeline.progress import Progress
from qzoo.records import Accuracy, Skipped
from qzoo.spec import Preprocess

BATCH = 16
WORST = 5
TOP = 5

Scorer = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Images (N, C, H, W) to scores (N, classes)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassScore:
    """How often a class was recognized, and the class it was most often taken for."""

    label: str
    correct: int
    total: int
    mistaken_for: str | None
    mistaken: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What `qzoo eval` finds. `top5` is None for five classes or fewer; images per second leave out the decoding."""

    subject: str
    model: str
    precision: str
    target: str | None
    data: str
    top1: Accuracy
    top5: Accuracy | None
    worst_classes: tuple[ClassScore, ...]
    images_per_second: float
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Which held-out samples (None: all), and how they are decoded."""

    count: int | None = None
    seed: int = 0
    workers: int | None = None
    strict: bool = False


def evaluate_engine(engine: LoadedEngine, dataset: Dataset, sampling: Sampling, progress: Progress) -> Evaluation:
    """Run an engine over the held-out samples of a labelled dataset.

    The dataset's classes are matched with the engine's labels by name where the names are the same, else by index.
    Raises DataUnavailable where the dataset has no labels, or other classes than the engine.
    """
    record = engine.record

    def score(images: NDArray[np.float32]) -> NDArray[np.float32]:
        return decide(engine.run({record.inputs[0].name: images}), record.decision)

    found = _Evaluated(dataset, record.labels, record.preprocess, sampling, min(BATCH, record.max_batch), progress)
    found.run(score)
    return found.result(str(engine.path), record.model, record.precision, str(record.target))


def evaluate_network(plan: Plan, sampling: Sampling, progress: Progress) -> Evaluation:
    """Run a plan's float network in PyTorch over the held-out samples of its dataset. Raises as `evaluate_engine`."""
    import torch

    from qzoo.pipeline.forward import few
    from qzoo.pipeline.images import read_calibration
    from qzoo.pipeline.network import load_network

    calibration = read_calibration(plan, progress)
    network = load_network(plan.spec, plan.weights, few(calibration)).network

    def score(images: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            result = network(torch.from_numpy(images))
        outputs = result if isinstance(result, tuple) else (result,)
        return decide(dict(zip(plan.spec.outputs, (o.numpy() for o in outputs), strict=True)), plan.spec.decision)

    found = _Evaluated(plan.dataset, plan.inputs.labels, plan.spec.input.preprocess, sampling, BATCH, progress)
    found.run(score)
    return found.result(plan.spec.name, plan.spec.name, "float", None)


class _Evaluated:
    """The running counts of one evaluation."""

    def __init__(
        self,
        dataset: Dataset,
        labels: tuple[str, ...],
        preprocess: Preprocess,
        sampling: Sampling,
        batch: int,
        progress: Progress,
    ) -> None:
        self._dataset, self._labels, self._preprocess = dataset, labels, preprocess
        self._sampling, self._batch, self._progress = sampling, batch, progress
        self._samples = _chosen(dataset, sampling)
        self._class_of, self._notes = _matched(dataset, labels, self._samples)
        self._confusion = np.zeros((len(labels), len(labels)), np.int64)  # [truth, decision]
        self._within_top, self._seconds = 0, 0.0
        self._skipped: list[Skipped] = []

    def run(self, score: Scorer) -> None:
        self._progress.stage("evaluating", len(self._samples))
        for images, truth in self._batches():
            began = perf_counter()
            scores = score(images)
            self._seconds += perf_counter() - began
            np.add.at(self._confusion, (truth, scores.argmax(1)), 1)
            best = np.argsort(-scores, axis=1, kind="stable")[:, :TOP]
            self._within_top += int((best == truth[:, None]).any(1).sum())
            self._progress.advance(len(truth))

    def result(self, subject: str, model: str, precision: str, target: str | None) -> Evaluation:
        total, correct = int(self._confusion.sum()), int(np.trace(self._confusion))
        return Evaluation(
            subject=subject,
            model=model,
            precision=precision,
            target=target,
            data=self._dataset.name,
            top1=Accuracy(correct=correct, total=total),
            top5=Accuracy(correct=self._within_top, total=total) if len(self._labels) > TOP else None,
            worst_classes=self._worst(),
            images_per_second=round(total / self._seconds, 1),
            skipped=tuple(self._skipped),
            notes=self._notes,
        )

    def _batches(self) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        workers = self._sampling.workers
        if workers is None:
            workers = worker_count(self._dataset, self._samples, self._preprocess)
        read = self._read(stream(self._dataset, self._samples, self._preprocess, workers))
        empty = True
        while part := list(islice(read, self._batch)):
            empty = False
            images = normalize(self._preprocess, np.stack([pixels for pixels, _ in part]))
            yield images, np.array([label for _, label in part], np.int64)
        if empty:
            raise DataUnavailable(
                f"dataset {self._dataset.name!r}: none of {len(self._samples)} images can be read; "
                f"{self._skipped[0].reason}"
            )

    def _read(self, results: Iterator[NDArray[np.uint8] | Skipped]) -> Iterator[tuple[NDArray[np.uint8], int]]:
        for sample, result in zip(self._samples, results, strict=True):
            if not isinstance(result, Skipped):
                yield result, self._class_of[sample.label]  # type: ignore[index]
            elif self._sampling.strict:
                raise DataUnavailable(result.reason)
            else:
                self._skipped.append(result)

    def _worst(self) -> tuple[ClassScore, ...]:
        totals = self._confusion.sum(1)
        hits = self._confusion.diagonal()
        wrong = [index for index in range(len(self._labels)) if hits[index] < totals[index]]
        wrong.sort(key=lambda index: (hits[index] / totals[index], index))
        return tuple(self._class_score(index) for index in wrong[:WORST])

    def _class_score(self, index: int) -> ClassScore:
        row = self._confusion[index].copy()
        row[index] = 0
        taken_for = int(row.argmax())
        return ClassScore(
            label=self._labels[index],
            correct=int(self._confusion[index, index]),
            total=int(self._confusion[index].sum()),
            mistaken_for=self._labels[taken_for],
            mistaken=int(row[taken_for]),
        )


def _chosen(dataset: Dataset, sampling: Sampling) -> Sequence[Sample]:
    everything = dataset.samples("held-out")
    chosen = everything if sampling.count is None else choose(dataset, "held-out", sampling.count, sampling.seed)
    if not chosen or None in labels_of(chosen):
        raise DataUnavailable(
            f"dataset {dataset.name!r} has held-out images without a label, so there is no accuracy to measure; give "
            "--data with one folder of images per class, or a CSV file with a label column"
        )
    return chosen


def _matched(
    dataset: Dataset, labels: tuple[str, ...], samples: Sequence[Sample]
) -> tuple[dict[int, int], tuple[str, ...]]:
    """The engine's class index for each of the dataset's, and what the user should know about it."""
    classes, by_index = dataset.classes, {index: index for index in range(len(labels))}
    if classes is None:
        highest = max(label or 0 for label in labels_of(samples))
        found, fits = f"labels up to {highest}", highest < len(labels)
    else:
        found, fits = f"{len(classes)} classes", len(classes) == len(labels)
    if not fits:
        raise DataUnavailable(
            f"dataset {dataset.name!r} has {found}, the engine {len(labels)} classes; give --data with the same"
        )
    if classes is None or classes == labels:
        return by_index, ()
    if len(set(labels)) == len(labels) and set(classes) == set(labels):
        return {index: labels.index(name) for index, name in enumerate(classes)}, ()
    note = f"the dataset calls its classes otherwise than the engine ({classes[0]}, not {labels[0]}): matched by index"
    return by_index, (note,)
