"""The datasets that need no download, as a plugin like any other. Importing this loads no dataset and no library."""

from __future__ import annotations

from collections.abc import Iterator

from qzoo.hookspecs import Dataset, DatasetSource, hookimpl


@hookimpl
def qzoo_datasets() -> Iterator[DatasetSource]:
    """`digits` and `photos`."""
    yield DatasetSource("digits", "scikit-learn's digits: 1,797 images in 10 classes, 360 of them held out", _digits)
    yield DatasetSource("photos", "crops of scikit-learn's two sample photographs, unlabelled", _photos)


def _digits() -> Dataset:
    from qzoo.data.digits import Digits

    return Digits()


def _photos() -> Dataset:
    from qzoo.data.photos import Photos

    return Photos()
