"""Images in .npy and .npz files."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from sklearn.datasets import load_digits

from qzoo.data.arrays import open_arrays
from qzoo.errors import DataUnavailable

IMAGES = np.random.default_rng(0).integers(0, 256, (30, 5, 7, 3), np.uint8)


def test_an_npz_has_images_and_labels(tmp_path):
    labels = np.arange(30) % 3
    np.savez(tmp_path / "set.npz", images=IMAGES, labels=labels)
    dataset = open_arrays(tmp_path / "set.npz")
    samples = (*dataset.samples("calibration"), *dataset.samples("held-out"))
    assert len(samples) == 30
    for sample in samples:
        index = int(sample.id.removeprefix("set/"))
        np.testing.assert_array_equal(dataset.image(sample), IMAGES[index])
        assert sample.label == labels[index]


@pytest.mark.parametrize("shape", [(30, 5, 7), (30, 5, 7, 1)])
def test_grey_images_have_mode_l(tmp_path, shape):
    np.save(tmp_path / "grey.npy", IMAGES[..., 0].reshape(shape))
    dataset = open_arrays(tmp_path / "grey.npy")
    sample = dataset.samples("held-out")[0]
    assert dataset.image(sample).mode == "L"
    np.testing.assert_array_equal(dataset.image(sample), IMAGES[int(sample.id.removeprefix("grey/")), ..., 0])


def test_an_npy_has_no_labels(tmp_path):
    np.save(tmp_path / "set.npy", IMAGES)
    assert {sample.label for sample in open_arrays(tmp_path / "set.npy").samples("calibration")} == {None}


def test_a_fifth_of_each_class_is_held_out_and_never_a_copy(tmp_path):
    digits = load_digits()
    images = np.concatenate([digits.images, digits.images[:50]]).astype(np.uint8)
    labels = np.concatenate([digits.target, digits.target[:50]])
    np.savez(tmp_path / "digits.npz", images=images, labels=labels)
    dataset = open_arrays(tmp_path / "digits.npz")
    calibration, held_out = ({s.sha256 for s in dataset.samples(split)} for split in ("calibration", "held-out"))
    assert not calibration & held_out
    assert len(held_out) == round(0.2 * len(calibration | held_out))


def test_a_worker_is_sent_the_path_and_not_the_arrays(tmp_path):
    np.save(tmp_path / "set.npy", np.tile(IMAGES, (20, 1, 1, 1)) + np.arange(600, dtype=np.uint8)[:, None, None, None])
    dataset = open_arrays(tmp_path / "set.npy")
    sample = dataset.samples("calibration")[0]
    sent = pickle.dumps(dataset)
    assert len(sent) < 1000
    np.testing.assert_array_equal(pickle.loads(sent).image(sample), dataset.image(sample))


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": IMAGES}, "holds x; it must hold images"),
        ({"images": IMAGES.astype(np.float32)}, "images float32"),
        ({"images": IMAGES[..., :2]}, r"\(30, 5, 7, 2\)"),
        ({"images": IMAGES, "labels": np.zeros(29, np.int64)}, r"labels int64 \(29,\)"),
        ({"images": IMAGES, "labels": np.zeros(30)}, "labels float64"),
        ({"images": IMAGES, "labels": np.array([None] * 30)}, "Object arrays cannot be loaded"),
    ],
)
def test_other_arrays_are_refused_with_what_was_found(tmp_path, arrays, words):
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.raises(DataUnavailable, match=words) as raised:
        open_arrays(tmp_path / "set.npz")
    assert raised.value.exit_code == 3


@pytest.mark.parametrize("name", ["set.npy", "set.npz"])
def test_what_is_no_array_file_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"no arrays")
    with pytest.raises(DataUnavailable, match="can't be read as arrays"):
        open_arrays(tmp_path / name)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataUnavailable, match=r"gone\.npz"):
        open_arrays(tmp_path / "gone.npz")
