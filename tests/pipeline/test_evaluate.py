"""qzoo eval's counts, on the real digits and on directories made from them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix, top_k_accuracy_score

import qzoo
from qzoo.data.digits import Digits
from qzoo.data.folder import open_folder
from qzoo.data.photos import Photos
from qzoo.data.preprocess import apply
from qzoo.errors import DataUnavailable
from qzoo.pipeline import Options, make_plan
from qzoo.pipeline.evaluate import Sampling, evaluate_engine, evaluate_network
from qzoo.pipeline.progress import Silent
from qzoo.store import Store

COUNT = 60


@pytest.fixture(scope="module")
def engine(built_home, bundles):
    return qzoo.load(bundles["onnxruntime"].path, store=Store(built_home))


@pytest.fixture(scope="module")
def noisy(tmp_path_factory) -> Path:
    """Held-out digits under so much noise that many are mistaken: train/ and val/ by class name."""
    root, digits, generator = tmp_path_factory.mktemp("noisy"), Digits(), np.random.default_rng(0)
    for split, samples in (("train", digits.samples("calibration")[:20]), ("val", digits.samples("held-out")[:COUNT])):
        for index, sample in enumerate(samples):
            pixels = np.asarray(digits.image(sample)).astype(np.float64) + generator.normal(0, 70, (8, 8))
            place = root / split / digits.classes[sample.label]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place / f"{index:03}.png")
        for name in digits.classes:
            (root / split / name).mkdir(exist_ok=True)
    return root


def predicted(engine, dataset) -> tuple[np.ndarray, np.ndarray]:
    samples = dataset.samples("held-out")
    logits = np.concatenate([engine(apply(engine.record.preprocess, dataset.image(s))[None]) for s in samples])
    return logits, np.array([int(dataset.classes[s.label]) for s in samples])


def test_top1_top5_and_confusions_are_scikit_learns(engine, noisy):
    dataset = open_folder(noisy)
    logits, truth = predicted(engine, dataset)
    found = evaluate_engine(engine, dataset, Sampling(), Silent())
    assert (found.top1.correct, found.top1.total) == (int((logits.argmax(1) == truth).sum()), COUNT)
    assert found.top5.correct == top_k_accuracy_score(truth, logits, k=5, normalize=False, labels=range(10))
    matrix = confusion_matrix(truth, logits.argmax(1), labels=range(10))
    rates = np.where(matrix.sum(1) > 0, matrix.diagonal() / np.maximum(matrix.sum(1), 1), 1)
    assert found.top1.correct < COUNT
    assert [one.correct / one.total for one in found.worst_classes] == sorted(rates)[: len(found.worst_classes)]
    for one in found.worst_classes:
        row = matrix[int(one.label)].copy()
        assert (one.correct, one.total) == (row[int(one.label)], row.sum())
        row[int(one.label)] = 0
        assert (one.mistaken, row[int(one.mistaken_for)]) == (row.max(), row.max())


def test_the_whole_held_out_split_agrees_with_the_build(engine, bundles):
    found = evaluate_engine(engine, Digits(), Sampling(), Silent())
    assert found.top1 == bundles["onnxruntime"].measurement.accuracy["engine"]
    assert found.images_per_second > 0


def test_the_float_network_agrees_with_the_build(bundles, registry, tmp_path):
    plan = make_plan(Options(model="resnet20", precision="fp32"), registry, tmp_path)
    found = evaluate_network(plan, Sampling(), Silent())
    assert found.top1 == bundles["onnxruntime"].measurement.accuracy["float"]
    assert found.target is None


def test_classes_in_another_order_are_matched_by_name(engine):
    straight, turned = (evaluate_engine(engine, data, Sampling(), Silent()) for data in (Digits(), _Reversed(Digits())))
    assert turned.top1 == straight.top1
    assert turned.worst_classes == straight.worst_classes
    assert turned.notes == ()


class _Reversed:
    """The digits, their classes numbered from the last to the first."""

    name, classes = "reversed", tuple(reversed("0123456789"))

    def __init__(self, digits: Digits) -> None:
        self._digits = digits

    def samples(self, split):
        return [qzoo.Sample(s.id, s.sha256, 9 - s.label) for s in self._digits.samples(split)]

    def image(self, sample):
        return self._digits.image(sample)


def test_classes_called_otherwise_are_matched_by_index_and_that_is_said(engine):
    digits = Digits()
    digits.classes = tuple("abcdefghij")
    found = evaluate_engine(engine, digits, Sampling(), Silent())
    assert found.top1.correct >= 354
    assert found.notes == ("the dataset calls its classes otherwise than the engine (a, not 0): matched by index",)


def test_a_sampled_evaluation_is_the_same_for_the_same_seed(engine):
    some = [evaluate_engine(engine, Digits(), Sampling(count=40, seed=3), Silent()) for _ in range(2)]
    assert some[0].top1 == some[1].top1
    assert some[0].top1.total == 40


def test_unlabelled_data_is_refused(engine):
    with pytest.raises(DataUnavailable, match="without a label"):
        evaluate_engine(engine, Photos(), Sampling(), Silent())


def test_data_of_other_classes_is_refused_and_both_counts_are_named(engine, noisy, tmp_path):
    for split in ("train", "val"):
        for name in "01":
            (tmp_path / split / name).mkdir(parents=True)
            for file in (noisy / "train" / name).iterdir():
                (tmp_path / split / name / file.name).write_bytes(file.read_bytes())
    with pytest.raises(DataUnavailable, match="2 classes, the engine 10"):
        evaluate_engine(engine, open_folder(tmp_path), Sampling(), Silent())


def test_a_damaged_image_is_left_out_and_named(engine, noisy, tmp_path):
    root = shutil.copytree(noisy, tmp_path / "copy")
    damaged = sorted((root / "val").rglob("*.png"))[7]
    damaged.write_bytes(damaged.read_bytes()[:40])
    found = evaluate_engine(engine, open_folder(root), Sampling(), Silent())
    assert found.top1.total == COUNT - 1
    assert [one.id for one in found.skipped] == [damaged.relative_to(root).as_posix()]
    with pytest.raises(DataUnavailable, match=damaged.name):
        evaluate_engine(engine, open_folder(root), Sampling(strict=True), Silent())
