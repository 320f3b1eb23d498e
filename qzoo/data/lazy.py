"""Samples whose content is read, and hashed, only when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import overload

from qzoo.hookspecs import Sample


class LazySamples(Sequence[Sample]):
    """So that 512 samples of a million images don't cost reading all of them.

    `digest(index)` gives the SHA-256 of a sample's content; `labels` needs no reading, and is what a stratified choice
    goes by (see `qzoo.data.sampler.Labelled`).
    """

    def __init__(self, ids: Sequence[str], labels: Sequence[int | None], digest: Callable[[int], str]) -> None:
        self.labels = labels
        self._ids, self._digest = ids, digest
        self._made: dict[int, Sample] = {}

    def __len__(self) -> int:
        return len(self._ids)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | Sequence[Sample]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        at = range(len(self))[index]
        if at not in self._made:
            self._made[at] = Sample(self._ids[at], self._digest(at), self.labels[at])
        return self._made[at]
