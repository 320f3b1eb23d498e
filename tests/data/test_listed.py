"""CSV files that list images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qzoo.data.listed import open_list
from qzoo.errors import DataUnavailable


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(20):
        pixels = np.random.default_rng(index).integers(0, 256, (6, 6, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    return tmp_path


def write(folder: Path, *lines: str, name: str = "list.csv") -> Path:
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return path


def test_names_become_sorted_classes(folder):
    lines = [f"{i}.png,{'dog' if i % 2 else 'cat'}" for i in range(20)]
    dataset = open_list(write(folder, "path,label", *lines))
    assert dataset.classes == ("cat", "dog")
    for split in ("calibration", "held-out"):
        for sample in dataset.samples(split):
            assert dataset.classes[sample.label] == ("dog" if int(sample.id.split(".")[0]) % 2 else "cat")


def test_whole_numbers_are_class_indices(folder):
    dataset = open_list(write(folder, "path,label", *(f"{i}.png,{i % 3 + 4}" for i in range(20))))
    assert dataset.classes is None
    assert {s.label for s in (*dataset.samples("calibration"), *dataset.samples("held-out"))} == {4, 5, 6}


def test_without_labels_samples_have_none(folder):
    dataset = open_list(write(folder, "path", *(f"{i}.png" for i in range(20))))
    assert {s.label for s in dataset.samples("calibration")} == {None}


def test_a_split_column_decides(folder):
    rows = [f"{i}.png,{'train' if i < 15 else 'val'}" for i in range(20)]
    dataset = open_list(write(folder, "path,split", *rows))
    assert [s.id for s in dataset.samples("calibration")] == [f"{i}.png" for i in range(15)]
    assert [s.id for s in dataset.samples("held-out")] == [f"{i}.png" for i in range(15, 20)]


def test_without_a_split_column_a_fifth_is_held_out(folder):
    dataset = open_list(write(folder, "path", *(f"{i}.png" for i in range(20))))
    calibration, held_out = ({s.id for s in dataset.samples(split)} for split in ("calibration", "held-out"))
    assert (len(calibration), len(held_out)) == (16, 4)
    assert not calibration & held_out


def test_paths_are_relative_to_the_file(folder):
    (folder / "lists").mkdir()
    dataset = open_list(write(folder / "lists", "path", *(f"../{i}.png" for i in range(20))))
    sample = dataset.samples("calibration")[0]
    np.testing.assert_array_equal(dataset.image(sample), Image.open(folder / Path(sample.id).name))


def test_a_tsv_file_is_separated_by_tabs(folder):
    path = write(folder, "label\tpath", *(f"a, b\t{i}.png" for i in range(20)), name="list.tsv")
    assert open_list(path).classes == ("a, b",)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (("file,label", "0.png,1"), "`path` among them.*'file'"),
        (("path,label",), "lists no images"),
        (("path,label", "0.png,1", ",2"), "line 3: no path"),
        (("path,split", "0.png,dev"), "unknown split 'dev'; known: calibration"),
    ],
)
def test_what_is_no_such_list_is_refused(folder, lines, words):
    with pytest.raises(DataUnavailable, match=words) as raised:
        open_list(write(folder, *lines))
    assert raised.value.exit_code == 3


def test_rows_of_which_only_some_have_a_split_are_refused(folder):
    dataset = open_list(write(folder, "path,split", "0.png,train", "1.png,", "2.png,val"))
    with pytest.raises(DataUnavailable, match="all of them one, or none"):
        dataset.samples("calibration")


def test_a_file_that_is_not_there_is_named(folder):
    dataset = open_list(write(folder, "path", "0.png", "gone.png"))
    with pytest.raises(DataUnavailable, match=r"gone\.png can't be read"):
        dataset.samples("calibration")


def test_bytes_that_are_no_text_are_refused(folder):
    (folder / "list.csv").write_bytes(b"\xff\xfe\x00path")
    with pytest.raises(DataUnavailable, match="can't be read as a CSV file"):
        open_list(folder / "list.csv")
