"""Labelled images as training batches: the one preprocessing, then random changes that the seed decides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from qzoo.data.decode import Advance, decode_samples, stream
from qzoo.data.preprocess import normalize
from qzoo.errors import DataUnavailable
from qzoo.hookspecs import Dataset, Sample
from qzoo.records import Skipped
from qzoo.spec import Preprocess, Training

MEMORY = 2 << 30
"""Bytes of decoded images, uint8, that are kept in memory; a larger set is decoded anew in every epoch."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """Images with a class each. `pixels` (N, crop, crop, C) uint8, or None where they are read as they are needed."""

    dataset: Dataset
    samples: Sequence[Sample]
    labels: NDArray[np.int64]
    preprocess: Preprocess
    pixels: Pixels | None
    skipped: tuple[Skipped, ...] = ()
    workers: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All images in order: float32 (n, C, H, W) and int64 labels (n,), n <= size."""
        for _, pixels, labels in self._read(np.arange(len(self)), size):
            yield _tensors(self.preprocess, pixels, labels)

    def epoch(
        self, training: Training, *, seed: int, epoch: int, rank: int = 0, processes: int = 1
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch of shuffled, augmented batches, of each the process's share. An incomplete last one is left out.

        The order depends on `seed` and `epoch` alone, not on how many processes share the batches.
        """
        size, share = training.batch_size, training.batch_size // processes
        order = np.random.default_rng([seed, epoch]).permutation(len(self))[: len(self) // size * size]
        own = order.reshape(-1, processes, share)[:, rank].reshape(-1)
        for step, pixels, labels in self._read(own, share):
            chance = np.random.default_rng([seed, epoch, step, rank])
            yield _tensors(self.preprocess, augmented(pixels, training, chance), labels)

    def _read(self, order: NDArray[np.int64], size: int) -> Iterator[tuple[int, Pixels, NDArray[np.int64]]]:
        if self.pixels is not None:
            for step, start in enumerate(range(0, len(order), size)):
                chosen = order[start : start + size]
                yield step, self.pixels[chosen], self.labels[chosen]
            return
        read = stream(self.dataset, Selected(self.samples, order), self.preprocess, self.workers)
        step = 0
        while part := list(islice(read, size)):
            chosen = order[step * size : step * size + len(part)]
            kept = [
                (pixels, label) for pixels, label in zip(part, chosen, strict=True) if not isinstance(pixels, Skipped)
            ]
            if not kept:
                raise DataUnavailable(f"dataset {self.dataset.name!r}: none of {len(part)} images can be read")
            yield step, np.stack([pixels for pixels, _ in kept]), self.labels[[index for _, index in kept]]
            step += 1


class Selected(Sequence[Sample]):
    """Some of a split's samples, in the order of their indices here; each is looked at only when it is its turn."""

    def __init__(self, samples: Sequence[Sample], order: NDArray[np.int64]) -> None:
        self._samples, self._order = samples, order

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN204 - Sequence's two overloads
        if isinstance(index, slice):
            return [self._samples[int(at)] for at in self._order[index]]
        return self._samples[int(self._order[index])]


def read_images(
    dataset: Dataset,
    samples: Sequence[Sample],
    labels: NDArray[np.int64],
    preprocess: Preprocess,
    *,
    workers: int,
    strict: bool,
    cache: Path,
    advance: Advance,
) -> LabelledImages:
    """Images that fit into MEMORY are decoded now, others as they are needed.

    Those that can't be read are left out and named in `skipped`; with `strict` they raise DataUnavailable.
    """
    channels = len(preprocess.mean)
    if len(samples) * preprocess.crop**2 * channels > MEMORY:
        return LabelledImages(
            dataset=dataset,
            samples=samples,
            labels=labels,
            preprocess=preprocess,
            pixels=None,
            workers=workers,
        )
    found = decode_samples(dataset, samples, preprocess, workers=workers, strict=strict, cache=cache, advance=advance)
    return LabelledImages(
        dataset=dataset,
        samples=found.samples,
        labels=np.array([sample.label for sample in found.samples], np.int64),
        preprocess=preprocess,
        pixels=found.pixels,
        skipped=found.skipped,
    )


def augmented(pixels: Pixels, training: Training, chance: np.random.Generator) -> Pixels:
    """Images (N, H, W, C), each turned, resized, moved and mirrored as `training` allows; edges are repeated."""
    count, height, width, _ = pixels.shape
    if training.rotate or training.zoom:
        pixels = _turned(pixels, training, chance)
    reach = round(training.shift * height)
    if reach:
        padded = np.pad(pixels, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
        tops, lefts = chance.integers(0, 2 * reach + 1, (2, count))
        moved = [padded[i, y : y + height, x : x + width] for i, (y, x) in enumerate(zip(tops, lefts, strict=True))]
        pixels = np.stack(moved)
    if training.flip:
        mirrored = chance.random((count, 1, 1, 1)) < 0.5
        pixels = np.where(mirrored, pixels[:, :, ::-1], pixels)
    return pixels


def _turned(pixels: Pixels, training: Training, chance: np.random.Generator) -> Pixels:
    angles = np.deg2rad(chance.uniform(-training.rotate, training.rotate, len(pixels)))
    sizes = 1 + chance.uniform(-training.zoom, training.zoom, len(pixels))
    cos, sin, zero = np.cos(angles) / sizes, np.sin(angles) / sizes, np.zeros(len(pixels))
    # where each pixel of the result comes from
    sources = torch.from_numpy(np.stack([cos, -sin, zero, sin, cos, zero], 1).reshape(-1, 2, 3).astype(np.float32))
    images = torch.from_numpy(np.moveaxis(pixels, -1, 1).astype(np.float32))
    grid = F.affine_grid(sources, list(images.shape), align_corners=False)
    turned = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return np.ascontiguousarray(np.moveaxis(turned.round().to(torch.uint8).numpy(), 1, -1))


def _tensors(preprocess: Preprocess, pixels: Pixels, labels: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(normalize(preprocess, pixels)), torch.from_numpy(labels)
