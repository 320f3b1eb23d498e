from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qzoo.data.files import open_image
from qzoo.data.folder import open_folder
from qzoo.data.sampler import choose
from qzoo.errors import DataUnavailable


def write_images(folder: Path, count: int, first: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(first, first + count):
        pixels = np.random.default_rng(index).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    write_images(tmp_path / "data/cat", 20)
    write_images(tmp_path / "data/ant", 10, first=100)
    return tmp_path / "data"


def test_classes_are_the_sorted_subfolders(classes: Path):
    dataset = open_folder(classes)
    assert dataset.classes == ("ant", "cat")
    for sample in (*dataset.samples("calibration"), *dataset.samples("held-out")):
        assert dataset.classes[sample.label] == sample.id.split("/")[0]


def test_a_fifth_of_each_class_is_held_out(classes: Path):
    labels = [sample.label for sample in open_folder(classes).samples("held-out")]
    assert (labels.count(0), labels.count(1)) == (2, 4)


def test_the_split_does_not_depend_on_file_names(classes: Path):
    before = {sample.sha256 for sample in open_folder(classes).samples("held-out")}
    files = sorted((classes / "cat").iterdir())
    for index, file in enumerate(reversed(files)):
        file.rename(classes / "cat" / f"renamed-{index:02}.png")
    assert {sample.sha256 for sample in open_folder(classes).samples("held-out")} == before


def test_copies_of_an_image_are_never_split_up(classes: Path):
    for file in sorted((classes / "cat").iterdir()):
        shutil.copy(file, file.with_stem(f"copy-{file.stem}"))
        shutil.copy(file, classes / "ant" / f"mislabelled-{file.name}")
    dataset = open_folder(classes)
    held_out = {sample.sha256 for sample in dataset.samples("held-out")}
    assert held_out.isdisjoint(sample.sha256 for sample in dataset.samples("calibration"))


@pytest.mark.parametrize(("first", "second"), [("train", "val"), ("calibration", "held-out"), ("train", "test")])
def test_split_subfolders_are_the_splits(tmp_path: Path, first: str, second: str):
    write_images(tmp_path / first / "a", 3)
    write_images(tmp_path / second / "a", 2, first=10)
    write_images(tmp_path / second / "b", 1, first=20)
    dataset = open_folder(tmp_path)
    assert dataset.classes == ("a", "b")
    assert [sample.id for sample in dataset.samples("calibration")] == [f"{first}/a/{i}.png" for i in range(3)]
    assert [(s.id, s.label) for s in dataset.samples("held-out")] == [
        (f"{second}/a/10.png", 0),
        (f"{second}/a/11.png", 0),
        (f"{second}/b/20.png", 1),
    ]


def test_a_flat_directory_has_no_labels(tmp_path: Path):
    write_images(tmp_path, 10)
    (tmp_path / "notes.txt").write_text("not an image")
    dataset = open_folder(tmp_path)
    assert dataset.classes is None
    assert {sample.label for sample in dataset.samples("calibration")} == {None}
    assert len(dataset.samples("calibration")) == 8
    assert len(dataset.samples("held-out")) == 2


def test_image_is_the_files_pixels(classes: Path):
    dataset = open_folder(classes)
    sample = next(sample for sample in dataset.samples("calibration") if sample.id.startswith("cat/"))
    seed = int(Path(sample.id).stem)
    expected = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    np.testing.assert_array_equal(np.asarray(dataset.image(sample)), expected)


def test_choosing_from_split_folders_reads_only_the_chosen_files(tmp_path: Path):
    write_images(tmp_path / "train", 50)
    write_images(tmp_path / "val", 5, first=100)
    dataset = open_folder(tmp_path)
    chosen = {sample.id for sample in choose(open_folder(tmp_path), "calibration", 4, seed=0)}
    for file in (tmp_path / "train").iterdir():
        if f"train/{file.name}" not in chosen:
            file.unlink()
    assert {sample.id for sample in choose(dataset, "calibration", 4, seed=0)} == chosen


def test_a_file_that_has_gone_is_named(tmp_path: Path):
    write_images(tmp_path / "train", 2)
    write_images(tmp_path / "val", 2, first=10)
    samples = open_folder(tmp_path).samples("calibration")
    (tmp_path / "train/1.png").unlink()
    with pytest.raises(DataUnavailable, match=r"train/1\.png"):
        _ = samples[1]


@pytest.mark.parametrize("layout", ["missing", "empty", "no-images", "a-file", "one-image"])
def test_a_useless_directory_is_named(tmp_path: Path, layout: str):
    root = tmp_path / layout
    if layout == "a-file":
        root.write_text("x")
    elif layout != "missing":
        root.mkdir()
    if layout == "no-images":
        (root / "a.txt").write_text("x")
    if layout == "one-image":
        write_images(root, 1)
    with pytest.raises(DataUnavailable, match=layout):
        open_folder(root).samples("held-out")


def test_a_lone_train_folder_asks_for_the_other(tmp_path: Path):
    write_images(tmp_path / "train/a", 3)
    with pytest.raises(DataUnavailable, match="held-out or val or test"):
        open_folder(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not an image", b"truncated"])
def test_an_unreadable_image_is_named(tmp_path: Path, content: bytes):
    path = tmp_path / "broken.png"
    if content == b"truncated":
        write_images(tmp_path, 1)
        content = (tmp_path / "0.png").read_bytes()[:100]
    path.write_bytes(content)
    with pytest.raises(DataUnavailable, match=r"broken\.png"):
        open_image(path)


def test_a_missing_image_is_named(tmp_path: Path):
    with pytest.raises(DataUnavailable, match=r"gone\.png"):
        open_image(tmp_path / "gone.png")
