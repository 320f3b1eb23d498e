"""Decoding a set of samples: skipping, worker processes, the cache on disk."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qzoo.data.decode import decode_samples, stream, worker_count
from qzoo.data.folder import open_folder
from qzoo.data.preprocess import cropped
from qzoo.errors import DataUnavailable, StoreError
from qzoo.records import Skipped
from qzoo.spec import Preprocess

SMALL = Preprocess(resize=9, crop=8, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    for split in ("train", "val"):
        for index in range(40):
            folder = root / split / f"class{index % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(index + 1000 * (split == "val")).integers(0, 256, (12, 15, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{index:02}.png")
    return root


def damage(image: Path) -> None:
    image.write_bytes(image.read_bytes()[:60])


def test_pixels_and_labels_are_those_of_each_sample_in_order(images):
    dataset = open_folder(images)
    samples = dataset.samples("calibration")
    found = decode_samples(dataset, samples, SMALL)
    np.testing.assert_array_equal(found.pixels, [cropped(SMALL, dataset.image(sample)) for sample in samples])
    assert found.labels.tolist() == [sample.label for sample in samples]
    assert found.skipped == ()


def test_worker_processes_give_what_this_process_gives(images):
    damage(images / "train/class1/07.png")
    dataset = open_folder(images)
    samples = dataset.samples("calibration")
    here, there = decode_samples(dataset, samples, SMALL), decode_samples(dataset, samples, SMALL, workers=2)
    np.testing.assert_array_equal(here.pixels, there.pixels)
    assert (here.samples, here.skipped) == (there.samples, there.skipped)


def test_a_damaged_image_is_skipped_and_named(images):
    damage(images / "train/class0/04.png")
    dataset = open_folder(images)
    found = decode_samples(dataset, dataset.samples("calibration"), SMALL)
    assert [one.id for one in found.skipped] == ["train/class0/04.png"]
    assert "04.png can't be read as an image" in found.skipped[0].reason
    assert len(found.samples) == len(found.pixels) == len(found.labels) == 39


def test_strict_refuses_a_damaged_image(images):
    damage(images / "train/class0/04.png")
    dataset = open_folder(images)
    with pytest.raises(DataUnavailable, match=r"1 of 40 images can't be read; .*04\.png") as raised:
        decode_samples(dataset, dataset.samples("calibration"), SMALL, strict=True)
    assert raised.value.exit_code == 3


def test_a_set_of_damaged_images_only_is_refused(images):
    for image in (images / "train").rglob("*.png"):
        damage(image)
    dataset = open_folder(images)
    with pytest.raises(DataUnavailable, match="40 of 40 images can't be read"):
        decode_samples(dataset, dataset.samples("calibration"), SMALL)


def test_a_second_time_nothing_is_decoded(images, tmp_path):
    damage(images / "train/class0/04.png")
    dataset = open_folder(images)
    samples = tuple(dataset.samples("calibration"))
    first = decode_samples(dataset, samples, SMALL, cache=tmp_path / "cache")
    for image in (images / "train").rglob("*.png"):
        image.unlink()
    again = decode_samples(dataset, samples, SMALL, cache=tmp_path / "cache")
    np.testing.assert_array_equal(again.pixels, first.pixels)
    assert (again.samples, again.skipped) == (first.samples, first.skipped)


def test_another_crop_is_not_taken_from_the_cache(images, tmp_path):
    dataset = open_folder(images)
    samples = dataset.samples("calibration")
    decode_samples(dataset, samples, SMALL, cache=tmp_path)
    larger = Preprocess(resize=11, crop=10, mean=SMALL.mean, std=SMALL.std)
    assert decode_samples(dataset, samples, larger, cache=tmp_path).pixels.shape[1:] == (10, 10, 3)


@pytest.mark.parametrize("how", ["truncated", "flipped", "emptied"])
def test_a_damaged_cache_is_decoded_anew_and_healed(images, tmp_path, how):
    dataset = open_folder(images)
    samples = dataset.samples("calibration")
    right = decode_samples(dataset, samples, SMALL, cache=tmp_path / "cache").pixels
    (kept,) = (tmp_path / "cache").iterdir()
    whole = kept.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    kept.write_bytes({"truncated": whole[:middle], "flipped": flipped, "emptied": b""}[how])
    np.testing.assert_array_equal(decode_samples(dataset, samples, SMALL, cache=tmp_path / "cache").pixels, right)
    assert kept.read_bytes() == whole


def test_a_cache_that_can_not_be_written_is_an_error_with_a_way_out(images, tmp_path):
    (tmp_path / "file").write_text("not a directory")
    dataset = open_folder(images)
    with pytest.raises(StoreError, match="QZOO_HOME"):
        decode_samples(dataset, dataset.samples("calibration"), SMALL, cache=tmp_path / "file" / "cache")


def test_every_sample_counts_as_progress(images):
    damage(images / "train/class0/04.png")
    dataset, steps = open_folder(images), []
    decode_samples(dataset, dataset.samples("calibration"), SMALL, advance=steps.append)
    assert sum(steps) == 40


def test_a_stream_decodes_no_further_than_it_is_read(images):
    dataset = open_folder(images)
    results = stream(dataset, tuple(dataset.samples("calibration")), SMALL)
    first = next(results)
    for image in (images / "train").rglob("*.png"):
        image.unlink()
    assert first.shape == (8, 8, 3)
    assert isinstance(next(results), Skipped)


def test_few_or_small_images_are_not_worth_a_process(images):
    dataset = open_folder(images)
    assert worker_count(dataset, dataset.samples("calibration"), SMALL) == 0


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core")
def test_a_day_of_decoding_is_worth_processes(images):
    dataset = open_folder(images)
    assert worker_count(dataset, Endless(dataset.samples("calibration")), SMALL) > 1


class Endless(Sequence):
    """The same few samples a thousand million times."""

    def __init__(self, samples):
        self._samples = samples

    def __len__(self):
        return 10**9

    def __getitem__(self, index):
        return self._samples[index]
