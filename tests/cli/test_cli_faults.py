"""What `qzoo build` says of data, weights, plugins and targets that it can't use, and the exit code it ends with."""

from __future__ import annotations

import errno
import json
import os
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_builds import SMALL

from qzoo.store import Store
from qzoo.weights import shipped_dir

SHIPPED = shipped_dir() / "resnet20-digits.safetensors"
RESNET20 = ("build", "resnet20", "--target", "onnxruntime", "--calib-samples", "8")


@pytest.fixture
def photos(tmp_path) -> Path:
    """50 different images in ten classes: 40 to calibrate on, 10 held out."""
    generator = np.random.default_rng(0)
    for index in range(50):
        place = tmp_path / "photos" / str(index % 10)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (8, 8), np.uint8)).save(place / f"{index:02}.png")
    return tmp_path / "photos"


def damage(file: Path) -> None:
    """Cut an image off after its header, so that it can be opened but not decoded."""
    file.write_bytes(file.read_bytes()[:60])


def refused(ended, code: int, home: Path) -> str:
    """What a build that failed as it should said: one line on stderr, and nothing was stored."""
    assert (ended.code, ended.out) == (code, "")
    assert ended.err.startswith("qzoo: ")
    assert len(ended.err.splitlines()) == 1
    assert Store(home).list() == []
    return ended.err


@pytest.mark.parametrize("kept", [0, 4, 1000, -1], ids=["nothing", "half a length", "half a header", "a byte short"])
def test_truncated_safetensors_end_with_3_and_the_file_is_named(qzoo, home, tmp_path, kept):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(SHIPPED.read_bytes()[:kept])
    assert f"weights: {path} is not a whole safetensors file: " in refused(qzoo(*RESNET20, "--weights", path), 3, home)


def spoil(path: Path, name: str, value: float) -> Path:
    """resnet20's weights with one value of one tensor replaced."""
    from safetensors.torch import load_file, save_file

    state = load_file(SHIPPED)
    state[name].view(-1)[1] = value
    save_file(state, path)
    return path


@pytest.mark.parametrize("precision", ["int8", "fp32"])
@pytest.mark.parametrize(
    ("name", "value"),
    [("layer2.0.conv1.weight", float("nan")), ("layer3.2.bn2.running_var", float("inf")), ("fc.bias", float("nan"))],
    ids=["weight", "batchnorm", "bias"],
)
def test_weights_that_are_not_finite_end_with_3_and_the_layer_is_named(qzoo, home, tmp_path, name, value, precision):
    path = spoil(tmp_path / "spoilt.safetensors", name, value)
    said = refused(qzoo(*RESNET20, "--weights", path, "--precision", precision), 3, home)
    assert f"weights: {path}: 1 of " in said
    assert f" values of {name} are not finite, and the amax of its layer would not be either" in said


@pytest.fixture
def overflowing(tmp_path) -> Path:
    """A checkpoint of `small`, every value finite, whose BatchNorm multiplies by more than float32 can hold."""
    import torch
    from safetensors.torch import save_file

    state = {
        "conv.weight": torch.ones(8, 1, 3, 3),
        "bn.weight": torch.full((8,), 1e38),
        "bn.bias": torch.zeros(8),
        "bn.running_mean": torch.zeros(8),
        "bn.running_var": torch.ones(8),
        "bn.num_batches_tracked": torch.tensor(1),
        "fc.weight": torch.ones(10, 128),
        "fc.bias": torch.zeros(10),
    }
    save_file(state, tmp_path / "overflowing.safetensors")
    return tmp_path / "overflowing.safetensors"


def test_finite_weights_that_overflow_end_with_3_and_the_first_quantizer_is_named(qzoo, home, overflowing):
    said = refused(qzoo(*SMALL, "--weights", overflowing), 3, home)
    assert "fc.input_quantizer: it saw the value inf; check the weights and the preprocessing" in said


def test_a_float_network_that_overflows_ends_with_3_and_the_output_is_named(qzoo, home, overflowing):
    said = refused(qzoo(*SMALL, "--weights", overflowing, "--precision", "fp32"), 3, home)
    assert "small: output logits of the float network is not finite on held-out images" in said


def test_a_fusion_that_matches_nothing_ends_with_8_and_the_pattern_is_named(qzoo, home):
    said = refused(qzoo("build", "small-unfused", *SMALL[2:]), 8, home)
    assert "fusion pattern 'stage*.conv' matches no module; check the paths with `qzoo info MODEL`" in said


def test_no_calibration_samples_end_with_2(qzoo, home):
    said = refused(qzoo(*RESNET20[:-1], "0"), 2, home)
    assert "--calib-samples 0: calibration needs at least 8 samples" in said


def test_a_dataset_with_too_few_images_to_calibrate_ends_with_3_and_both_numbers_are_named(qzoo, home, photos):
    for file in sorted(photos.glob("*/*.png"))[9:]:
        file.unlink()
    said = refused(qzoo(*SMALL, "--data", photos), 3, home)
    assert "dataset 'photos' has 7 calibration images; at least 8 are needed" in said


def test_too_few_readable_images_end_with_3_and_the_first_damaged_one_is_named(qzoo, home, photos):
    for index, file in enumerate(sorted(photos.glob("*/*.png"))):
        file.write_bytes(b"no image %d" % index)
    said = refused(qzoo(*SMALL, "--data", photos), 3, home)
    assert "dataset 'photos': 8 of 8 images can't be read; " in said
    assert " can't be read as an image: cannot identify image file" in said


def test_an_empty_image_folder_ends_with_3_and_is_named(qzoo, home, tmp_path):
    (tmp_path / "empty").mkdir()
    said = refused(qzoo(*RESNET20, "--data", tmp_path / "empty"), 3, home)
    assert f"data: {tmp_path / 'empty'} holds no images (.bmp, " in said


def test_an_image_folder_that_can_not_be_read_ends_with_3_and_is_named(qzoo, home, photos, monkeypatch):
    def unreadable(folder: Path) -> None:  # root reads whatever its permissions are
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))

    monkeypatch.setattr(Path, "iterdir", unreadable)
    said = refused(qzoo(*RESNET20, "--data", photos), 3, home)
    assert f"data: {photos} can't be read: Permission denied; give a directory of images" in said


def test_an_image_list_that_names_a_missing_file_ends_with_3_and_the_file_is_named(qzoo, home, photos):
    (photos / "list.csv").write_text(
        "path\n" + "".join(f"{index % 10}/{index:02}.png\n" for index in range(40)) + "gone.png\n"
    )
    said = refused(qzoo(*SMALL, "--data", photos / "list.csv"), 3, home)
    assert f"{photos / 'gone.png'} can't be read: No such file or directory; fix or remove it" in said


def test_a_damaged_image_among_many_is_skipped_counted_and_named(qzoo, photos):
    damage(photos / "8" / "08.png")
    words = (*SMALL, "--precision", "fp32", "--calib-samples", "64", "--data", photos)
    text, found = qzoo(*words), qzoo(*words, "--json").json
    assert text.code == 0
    (skipped,) = found["skipped"]
    assert skipped["id"] == "8/08.png"
    assert f"{photos / '8' / '08.png'} can't be read as an image" in skipped["reason"]
    (note,) = [note for note in found["notes"] if "skipped" in note]
    assert note in text.out
    assert note.endswith(" images could not be read and were skipped: 8/08.png")
    assert note.startswith(("1 of 40 calibration", "1 of 10 held-out"))


def test_with_strict_a_damaged_image_ends_with_3_even_where_the_same_was_built_without(qzoo, home, photos):
    damage(photos / "8" / "08.png")
    words = (*SMALL, "--precision", "fp32", "--calib-samples", "64", "--data", photos)
    first = refused(qzoo(*words, "--strict"), 3, home)
    assert qzoo(*words).code == 0
    again = qzoo(*words, "--strict")
    assert (again.code, again.out, again.err) == (3, "", first)
    assert f" images can't be read; {photos / '8' / '08.png'} can't be read as an image: " in first


@pytest.fixture
def without_openvino(monkeypatch):
    real = metadata.version

    def version(name: str) -> str:
        if name == "openvino":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr("qzoo.backends.base.version", version)


def test_a_target_whose_sdk_is_not_installed_ends_with_4_and_says_what_to_install(qzoo, home, without_openvino):
    said = refused(qzoo("build", "resnet20", "--target", "openvino"), 4, home)
    assert "target openvino doesn't work here: openvino is not installed; pip install openvino" in said


def test_auto_passes_over_a_target_whose_sdk_is_not_installed_and_says_so(qzoo, without_openvino):
    found = qzoo("build", "resnet20", "--dry-run", "--json").json
    assert found["target"].startswith("onnxruntime/")
    assert found["reason"].startswith("auto: onnxruntime works here; ")
    assert found["reason"].endswith("; openvino: openvino is not installed; pip install openvino")


def test_an_edited_engine_ends_with_6_and_building_it_with_force_as_it_says_mends_it(qzoo, home, digits):
    engine = Path(qzoo(*SMALL, "--precision", "fp32", "--json").json["engine"])
    engine.write_bytes(engine.read_bytes() + b"edited")
    edited = qzoo("run", "small:fp32", digits[0])
    assert (edited.code, edited.out) == (6, "")
    assert f"{engine} was changed: expected sha256:" in edited.err
    assert "build it again with --force" in edited.err
    assert qzoo(*SMALL, "--precision", "fp32", "--force").code == 0
    assert qzoo("run", "small:fp32", digits[0]).code == 0
    assert list(Store(home).verify()) == []


def test_every_kind_of_data_builds_and_its_sample_list_is_in_the_manifest(qzoo, photos):
    listed = photos / "list.tsv"
    files = sorted(photos.glob("*/*.png"))
    listed.write_text("path\tlabel\n" + "".join(f"{file.relative_to(photos)}\t{file.parent.name}\n" for file in files))
    pixels = np.stack([np.asarray(Image.open(file)) for file in files])
    np.save(photos.parent / "arrays.npy", pixels)
    np.savez(photos.parent / "arrays.npz", images=pixels, labels=np.arange(50) // 5)
    lists = []
    for data in (photos, listed, photos.parent / "arrays.npy", photos.parent / "arrays.npz"):
        found = qzoo(*SMALL, "--precision", "fp32", "--data", data, "--workers", "2", "--json").json
        inputs = json.loads((Path(found["bundle"]) / "manifest.json").read_text())["inputs"]
        lists.append((inputs["sample_list_sha256"], inputs["held_out_list_sha256"]))
    assert lists[0] == lists[1]  # the same files under the same names, with the same labels
    assert len({digest for pair in lists for digest in pair}) == 6
