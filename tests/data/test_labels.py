from __future__ import annotations

from pathlib import Path

import pytest
from torchvision.models import ResNet50_Weights

from qzoo.data.labels import imagenet_labels, read_labels
from qzoo.errors import UsageError


def test_imagenet_labels_are_torchvisions():
    assert list(imagenet_labels()) == ResNet50_Weights.IMAGENET1K_V2.meta["categories"]


def test_a_label_file_has_one_name_per_line(tmp_path: Path):
    (tmp_path / "names.txt").write_text("Käfer\r\nant lion\n\n", "utf-8")
    assert read_labels(tmp_path / "names.txt") == ("Käfer", "ant lion")


@pytest.mark.parametrize("content", [None, b"", b"\n\n", b"a\n\nb\n", b"\xff\xfe\x00"])
def test_a_useless_label_file_is_named(tmp_path: Path, content: bytes | None):
    path = tmp_path / "names.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=r"names\.txt"):
        read_labels(path)
