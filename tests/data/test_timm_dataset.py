"""Datasets through timm's create_dataset, on files in the datasets' own formats, made from scikit-learn's digits."""

from __future__ import annotations

import hashlib
import pickle
import shutil
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from qzoo.data.timm_dataset import open_timm
from qzoo.errors import DataUnavailable

BUNCH = load_digits()
PIXELS = np.rint(np.kron(BUNCH.images[:200] * (255 / 16), np.ones((3, 3)))).astype(np.uint8)


@pytest.fixture(scope="module")
def mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MNIST's own idx files (LeCun's page: magic 2051 and 2049, big-endian), 120 to train on and 80 to test."""
    root = tmp_path_factory.mktemp("mnist")
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, part in (("train", slice(0, 120)), ("t10k", slice(120, 200))):
        images, labels = PIXELS[part], BUNCH.target[part].astype(np.uint8)
        header = struct.pack(">IIII", 2051, *images.shape)
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, len(labels)) + labels.tobytes())
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split, part in (("train", range(120)), ("validation", range(120, 200))):
        for index in part:
            place = tmp_path / split / str(BUNCH.target[index])
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(PIXELS[index]).save(place / f"{index:03}.png")
    return tmp_path


def test_torchvisions_mnist_opens_with_its_own_splits(mnist):
    dataset = open_timm("torch/mnist", mnist)
    assert [sample.label for sample in dataset.samples("calibration")] == BUNCH.target[:120].tolist()
    held_out = dataset.samples("held-out")
    assert [sample.label for sample in held_out] == BUNCH.target[120:200].tolist()
    np.testing.assert_array_equal(dataset.image(held_out[3]), PIXELS[123])
    assert len(dataset.classes) == 10


def test_timms_folder_opens_with_its_own_splits(folder):
    dataset = open_timm("folder", folder)
    assert dataset.classes == tuple("0123456789")
    for split, count in (("calibration", 120), ("held-out", 80)):
        samples = dataset.samples(split)
        assert len(samples) == count
        for sample in samples:
            matches = [i for i in range(200) if np.array_equal(dataset.image(sample), PIXELS[i])]
            assert sample.label in {BUNCH.target[i] for i in matches}


def test_a_damaged_image_is_named_and_no_neighbour_takes_its_place(folder):
    damaged = next((folder / "validation" / "3").iterdir())
    damaged.write_bytes(damaged.read_bytes()[:50])
    dataset = open_timm("folder", folder)
    failed = []
    for sample in dataset.samples("held-out"):
        try:
            dataset.image(sample)
        except DataUnavailable as error:
            failed.append((sample.label, str(error)))
    ((label, message),) = failed
    assert label == 3
    assert "validation/" in message


def test_a_digest_is_that_of_the_files_content(folder):
    found = {sample.sha256 for sample in open_timm("folder", folder).samples("calibration")}
    assert found == {hashlib.sha256(file.read_bytes()).hexdigest() for file in (folder / "train").rglob("*.png")}


def test_splits_of_other_classes_are_refused(folder):
    shutil.rmtree(folder / "validation" / "4")
    with pytest.raises(DataUnavailable, match="class '4' is in only one of train and validation"):
        open_timm("folder", folder)


def test_a_worker_opens_the_dataset_itself(mnist):
    dataset = open_timm("torch/mnist", mnist)
    sample = dataset.samples("held-out")[0]
    sent = pickle.dumps(dataset)
    assert len(sent) < 1000
    np.testing.assert_array_equal(pickle.loads(sent).image(sample), dataset.image(sample))


@pytest.mark.parametrize("name", ["torch/nosuch", "folder"])
def test_what_timm_can_not_open_is_refused_with_the_syntax(tmp_path, name):
    with pytest.raises(DataUnavailable, match=rf"timm can't open '{name}'.*timm:{name}@DIRECTORY") as raised:
        open_timm(name, tmp_path / "nothing")
    assert raised.value.exit_code == 3


def test_a_package_that_timm_needs_and_that_is_not_installed_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataUnavailable, match=r"timm can't open 'hfds/mnist': datasets is not installed; pip install"):
        open_timm("hfds/mnist", tmp_path)
    assert capsys.readouterr().out == ""


def test_what_a_library_prints_while_it_opens_a_dataset_stays_off_stdout(mnist, capsys, monkeypatch):
    import timm.data

    opened = timm.data.create_dataset

    def talkative(*args, **kwargs):
        sys.stdout.write("Files already downloaded and verified\n")
        return opened(*args, **kwargs)

    monkeypatch.setattr(timm.data, "create_dataset", talkative)
    shutil.copytree(mnist, mnist / "again")  # another directory, so that it is opened anew
    assert len(open_timm("torch/mnist", mnist / "again").samples("calibration")) == 120
    assert capsys.readouterr().out == ""
