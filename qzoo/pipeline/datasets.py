"""What `--data` means."""

from __future__ import annotations

from pathlib import Path

from qzoo.errors import DataUnavailable
from qzoo.hookspecs import Dataset
from qzoo.registry import Registry

TIMM = "timm:"


def open_dataset(name: str, registry: Registry, cache: Path) -> Dataset:
    """Open a directory of images, a .csv, .tsv, .npy or .npz file, `timm:NAME[@DIRECTORY]`, or a dataset by name.

    What timm downloads goes to `cache` unless a directory is given. Raises DataUnavailable or UnknownName.
    """
    if name.startswith(TIMM):
        from qzoo.data.timm_dataset import open_timm

        theirs, _, directory = name.removeprefix(TIMM).partition("@")
        return open_timm(theirs, Path(directory).expanduser() if directory else cache)
    path = Path(name).expanduser()
    if path.is_dir():
        from qzoo.data.folder import open_folder

        return open_folder(path)
    if path.suffix in {".csv", ".tsv"}:
        from qzoo.data.listed import open_list

        return open_list(path)
    if path.suffix in {".npy", ".npz"}:
        from qzoo.data.arrays import open_arrays

        return open_arrays(path)
    if path.exists() or "/" in name:
        raise DataUnavailable(f"--data {name}: neither a directory of images nor a .csv, .tsv, .npy or .npz file")
    return registry.dataset(name).open()
