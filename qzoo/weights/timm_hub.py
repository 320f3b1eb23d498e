"""timm's pretrained weights: fetched and converted by timm itself, kept in the cache as one safetensors file."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from qzoo.errors import IntegrityError, SpecError, WeightsMismatch, WeightsUnavailable
from qzoo.records import file_digest
from qzoo.weights.sources import reach
from qzoo.writing import writing

_DIGITS = 16
"""Hex digits of a file's SHA-256 that its name carries."""


def kept(ref: str, cache: Path) -> Path | None:
    """The converted file of a pretrained network, "resnet18.a1_in1k", if it was fetched before.

    Raises IntegrityError where its bytes were changed.
    """
    found = next(iter(sorted(cache.glob(f"timm-{ref}-*.safetensors"))), None)
    if found is not None and not file_digest(found).startswith(found.stem.rpartition("-")[2]):
        raise IntegrityError(f"weights: {found} isn't what was put there; delete it to fetch it again")
    return found


def fetch(ref: str, cache: Path, ways_out: str) -> Path:
    """Let timm load a pretrained network, and keep its state dict in `cache`.

    timm's loading applies the network's own filter to the checkpoint, and whatever else it needs. An unreachable hub is
    given up on well within 15 s. Raises WeightsUnavailable, WeightsMismatch, SpecError for a network timm doesn't have.
    """
    with writing(cache):
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".timm-") as folder:
            return _fetched(ref, cache, Path(folder), ways_out)


def _fetched(ref: str, cache: Path, folder: Path, ways_out: str) -> Path:
    import timm
    import torch
    from safetensors.torch import save_file

    try:
        described = timm.get_pretrained_cfg(ref, allow_unregistered=False)
    except RuntimeError as error:
        raise SpecError(f"weights: timm has no pretrained network {ref!r}: {error}") from error
    if described is None or not (described.hf_hub_id or described.url):
        raise SpecError(f"weights: timm has no address for the weights of {ref!r}")
    _check_reachable(described.hf_hub_id, str(described.url), ways_out)
    try:
        with torch.random.fork_rng(devices=[]):
            network = timm.create_model(ref, pretrained=True, cache_dir=folder / "hub")
    except RuntimeError as error:
        raise WeightsMismatch(f"weights: timm can't load {ref}: {error}; give a file with --weights PATH") from error
    except Exception as error:  # timm downloads through three libraries, each with errors of its own
        raise WeightsUnavailable(
            f"weights: timm can't fetch {ref} ({type(error).__name__}: {_first_line(error)}); {ways_out}"
        ) from error
    made = folder / "state.safetensors"
    save_file({key: value.contiguous().clone() for key, value in network.state_dict().items()}, made)
    target = cache / f"timm-{ref}-{file_digest(made)[:_DIGITS]}.safetensors"
    made.replace(target)
    return target


def _check_reachable(hub: str | tuple[str, str] | None, url: str, ways_out: str) -> None:
    """Knock at the door first: the hub's client tries again and again before it gives up."""
    if hub:
        hub = hub if isinstance(hub, str) else hub[0]
        from huggingface_hub import constants

        if constants.HF_HUB_OFFLINE:
            raise WeightsUnavailable(f"weights: HF_HUB_OFFLINE is set, so {hub} can't be fetched; {ways_out}")
        revision = hub.partition("@")[2] or "main"
        url = f"{constants.ENDPOINT}/api/models/{hub.partition('@')[0]}/revision/{revision}"
    reach(url, ways_out).close()


def _first_line(error: Exception) -> str:
    return re.sub(r"\s+", " ", str(error))[:200]
