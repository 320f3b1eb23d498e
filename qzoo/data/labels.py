"""Class names."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from qzoo.errors import UsageError


@cache
def imagenet_labels() -> tuple[str, ...]:
    """The 1,000 class names of ImageNet-1k, as torchvision's weights carry them."""
    return tuple(Path(__file__).with_name("imagenet_classes.txt").read_text("utf-8").splitlines())


def read_labels(path: Path) -> tuple[str, ...]:
    """Class names from a UTF-8 text file, one per line. Raises UsageError where it can't be read or lacks a name."""
    try:
        names = tuple(line.strip() for line in path.read_text("utf-8").rstrip().splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"labels: {path} can't be read: {error}; give a UTF-8 text file, one name per line") from error
    if not names:
        raise UsageError(f"labels: {path} is empty; it needs one class name per line")
    if "" in names:
        raise UsageError(f"labels: line {names.index('') + 1} of {path} is empty; it needs one class name per line")
    return names
