"""Float weights: where they come from, what is in them, and how they get into a network.

`plan` decides and records without loading torch where it can, so that finding an engine that was already built stays
cheap; `load_state`, `apply` and `initialize_random` do the work.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from qzoo.errors import IntegrityError, SpecError, WeightsMismatch, WeightsUnavailable
from qzoo.records import WeightsRecord, decode, digest_of, encode, file_digest
from qzoo.spec import ModelSpec, Placement, WeightSource
from qzoo.writing import write_file, writing

if TYPE_CHECKING:
    from requests import Response
    from torch import Tensor, nn

V = TypeVar("V")
FileKind = Literal["shipped", "file", "hub"]
Progress = Callable[[int, int | None], None]
"""Told the bytes downloaded so far, and of how many, where the server says."""

CONNECT_SECONDS, READ_SECONDS = 5.0, 10.0
REACH_SECONDS = 12.0
"""Until the first byte of an answer, name resolution and every address of the host included."""

SAFETENSORS = frozenset({".safetensors"})
PICKLED = frozenset({".pth", ".pt", ".bin"})
WRAPPERS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "model.")


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsPlan:
    """The weights that a build will use. `path` is the checkpoint, None for random weights drawn from `seed`."""

    record: WeightsRecord
    path: Path | None
    seed: int


def plan(spec: ModelSpec, option: str, seed: int, cache: Path, progress: Progress | None = None) -> WeightsPlan:
    """Decide which weights `--weights OPTION` means: "auto", "random", or the path of a checkpoint.

    "auto" takes the first of the spec's sources that is at hand, shipped or in `cache`, and only then downloads one
    into `cache`. Loads no torch for a .safetensors, nor for a checkpoint whose class count `cache` remembers. Raises
    WeightsUnavailable, WeightsMismatch for a file that isn't a checkpoint of such a network, IntegrityError for one
    that was changed.
    """
    if option == "random":
        record = WeightsRecord(
            kind="random", ref=f"seed {seed}", sha256=digest_of({"random": seed}), num_classes=spec.num_classes
        )
        return WeightsPlan(record=record, path=None, seed=seed)
    if option != "auto":
        path = Path(option).expanduser()
        if not path.is_file():
            raise WeightsUnavailable(f"weights: there is no file {option}; {_ways_out(spec)}")
        return _planned("file", path.name, path, spec=spec, seed=seed, cache=cache)
    for source in spec.weights:
        found = _at_hand(source, cache)
        if found:
            return _planned(_kind(source), source.ref, found, spec=spec, seed=seed, cache=cache)
    for source in spec.weights:
        if source.kind != "shipped":
            url, sha256 = _address(source)
            path = download(url, sha256, cache, progress, _ways_out(spec))
            return _planned("hub", source.ref, path, spec=spec, seed=seed, cache=cache)
    raise WeightsUnavailable(f"weights: none of {spec.name} are at hand; {_ways_out(spec)}")


def shipped_dir() -> Path:
    """The folder of weights.toml and the checkpoints that come with qzoo: in a wheel, else in the checkout."""
    package = Path(__file__).parent
    installed = package / "_shipped"
    return installed if installed.is_dir() else package.parent / "weights"


def load_state(path: Path, head: str | None = None) -> dict[str, Tensor]:
    """Every tensor of a checkpoint by name, on the CPU, wrappers and `module.`/`model.` prefixes taken off.

    Where `head` is given, names under which the head's weight is found as it is are left alone. A .pth is read with
    `weights_only=True`, so that it can't run code. Raises WeightsMismatch, also for a file that is damaged.
    """
    from torch import Tensor

    state = _read_safetensors(path) if _is_safetensors(path) else _unwrap(_read_pickled(path))
    if not isinstance(state, Mapping) or not state:
        raise WeightsMismatch(f"weights: {path} holds a {type(state).__name__}, not a dictionary of tensors")
    odd = next((key for key, value in state.items() if not isinstance(key, str) or not isinstance(value, Tensor)), None)
    if odd is not None:
        kind = type(state[odd]).__name__
        raise WeightsMismatch(f"weights: {path} holds no dictionary of tensors: {odd!r} is a {kind}")
    return _strip(state, head)


HEADER = "qzoo"
"""The key under which `qzoo train` describes a run in a safetensors file's header."""
RANGE = "._amax"
"""The end of a quantizer's range's name in the state of a network that was trained with fake quantization."""


def split_ranges(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The float network's own tensors, and the ranges of a network trained with fake quantization, by quantizer."""
    own = {name: value for name, value in state.items() if not name.endswith(RANGE)}
    return own, {name.removesuffix(RANGE): value for name, value in state.items() if name.endswith(RANGE)}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedBy:
    """What a checkpoint of `qzoo train` says of itself: how its network was quantized, if it was.

    `ranges` tells whether it holds the quantizers' ranges; `placement` None is the recipe's own.
    """

    ranges: bool = False
    weight_bits: int = 8
    placement: Placement | None = None


def trained_by(plan: WeightsPlan) -> TrainedBy:
    """Read it from a .safetensors file's header; other weights were trained without quantizers. Loads no torch."""
    from safetensors import safe_open

    if plan.path is None or not _is_safetensors(plan.path):
        return TrainedBy()
    with safe_open(plan.path, framework="numpy") as file:
        header = decode((file.metadata() or {}).get(HEADER, "{}").encode(), dict[str, Any], plan.path)
        ranges = any(name.endswith(RANGE) for name in file.keys())  # noqa: SIM118 - no dict
    if not ranges:
        return TrainedBy()
    return TrainedBy(ranges=True, weight_bits=header.get("weight_bits", 8), placement=header.get("placement"))


def num_classes(state: Mapping[str, Tensor], head: str) -> int:
    """The class count: the first axis of the head's weight. Raises WeightsMismatch where there is no such tensor."""
    return _first_axis({key: tuple(value.shape) for key, value in state.items()}, head)


def apply(model: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Load a state dict into a network, every name and shape exactly. `name` is what a message calls the checkpoint.

    Raises WeightsMismatch that names the first tensors that don't fit, or one that holds a value which is not finite;
    the network is half loaded then.
    """
    for key, value in state.items():
        if not bool(value.isfinite().all()):
            bad = int((~value.isfinite()).sum())
            raise WeightsMismatch(
                f"weights: {name}: {bad} of {value.numel()} values of {key} are not finite, and the amax of its layer "
                "would not be either; give another checkpoint"
            )
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
        given = {key: tuple(value.shape) for key, value in state.items()}
        raise WeightsMismatch(
            f"weights: {name} is not a checkpoint of this network: {_difference(expected, given)}"
        ) from error


def initialize_random(build: Callable[[], nn.Module], seed: int, batch: Tensor) -> nn.Module:
    """A network built under `seed`, its BatchNorm statistics those of one pass of `batch`; in eval mode.

    The global random state is left as it was. Without that pass a deep network's activations would grow by
    orders of magnitude, and neither ranges nor fidelity would resemble a trained network's.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build().eval()
        _set_batchnorm_statistics(model, batch)
    return model


def download(url: str, sha256: str, cache: Path, progress: Progress | None = None, ways_out: str = "") -> Path:
    """Fetch a file into `cache` under its own name, unless its digest doesn't start with `sha256`.

    An unreachable host is given up on well within 15 s. Nothing is left under the final name until all is there.
    Raises WeightsUnavailable, IntegrityError, or StoreError where `cache` can't be written.
    """
    with writing(cache):
        return _fetched(url, sha256, cache, progress, ways_out)


# --- sources


def _kind(source: WeightSource) -> FileKind:
    return "shipped" if source.kind == "shipped" else "hub"


def _at_hand(source: WeightSource, cache: Path) -> Path | None:
    """The file of a source that needs no network, checked against its digest."""
    if source.kind == "shipped":
        return _shipped(source.ref)
    if source.sha256 is None:
        url, sha256 = _address(source)
        path = cache / _cached_name(url, sha256)
        found = path if path.is_file() else None
    else:
        sha256 = source.sha256
        named = sorted(cache.glob(f"*-{sha256}.*"))
        found = next((path for path in named if path.suffix in SAFETENSORS | PICKLED), None)
    if found:
        _check_digest(found, sha256, "delete it to download it again")
    return found


def _shipped(ref: str) -> Path | None:
    folder = shipped_dir()
    try:
        entry = tomllib.loads((folder / "weights.toml").read_text("utf-8"))[ref]
    except FileNotFoundError:
        return None
    except KeyError as error:
        raise SpecError(f"weights: {folder / 'weights.toml'} has no entry {ref!r}") from error
    path = folder / str(entry["file"])
    if not path.is_file():
        return None
    _check_digest(path, str(entry["sha256"]), "reinstall qzoo, or check the file out again")
    return path


def _address(source: WeightSource) -> tuple[str, str]:
    """Address and digest prefix of a source on the net."""
    url = source.ref
    if source.kind == "torchvision":
        from torchvision.models import get_weight

        try:
            url = get_weight(source.ref).url
        except (KeyError, ValueError) as error:
            raise SpecError(f"weights: torchvision has no {source.ref}: {error}") from error
    in_name = re.search(r"-([0-9a-f]{8,64})\.\w+$", url)
    sha256 = source.sha256 or (in_name[1] if in_name else "")
    if not re.fullmatch(r"[0-9a-fA-F]{8,64}", sha256):
        raise SpecError(f"weights: source {source.ref} needs a sha256 of at least 8 hex digits, got {sha256!r}")
    return url, sha256


def _cached_name(url: str, sha256: str) -> str:
    """The file's own name, with the digest's prefix in it as torchvision's have it, so that it is found by that."""
    name = Path(url.rpartition("/")[2])
    return name.name if name.stem.endswith(f"-{sha256}") else f"{name.stem}-{sha256}{name.suffix}"


def _fetched(url: str, sha256: str, cache: Path, progress: Progress | None, ways_out: str) -> Path:
    import requests

    cache.mkdir(parents=True, exist_ok=True)
    target = cache / _cached_name(url, sha256)
    handle, name = tempfile.mkstemp(dir=cache, prefix=target.name, suffix=".part")
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file, _reach(url, ways_out) as response:
            size = response.headers.get("Content-Length")
            total, done, digest = int(size) if size else None, 0, hashlib.sha256()
            for piece in response.iter_content(1 << 20):
                file.write(piece)
                digest.update(piece)
                done += len(piece)
                if progress:
                    progress(done, total)
        if not digest.hexdigest().startswith(sha256.lower()):
            raise IntegrityError(
                f"weights: {url} gave {done} bytes with SHA-256 {digest.hexdigest()}, expected {sha256}...; try again"
            )
        part.replace(target)
    except requests.RequestException as error:
        raise WeightsUnavailable(f"weights: the download of {url} broke off: {error}; {ways_out}") from error
    finally:
        part.unlink(missing_ok=True)
    return target


def _reach(url: str, ways_out: str) -> Response:
    """Begin a download. On a thread, since no timeout covers name resolution or the sum over a host's addresses."""
    import requests

    answer: SimpleQueue[Response | Exception] = SimpleQueue()
    given_up = Event()

    def ask() -> None:
        try:
            # Without compression, since the digest is that of the file.
            headers = {"Accept-Encoding": "identity"}
            response = requests.get(url, stream=True, headers=headers, timeout=(CONNECT_SECONDS, READ_SECONDS))
            if given_up.is_set() or not response.ok:
                response.close()
            response.raise_for_status()
            answer.put(response)
        except Exception as error:  # noqa: BLE001 - raised again below, on the thread that waits
            answer.put(error)

    Thread(target=ask, daemon=True).start()
    try:
        outcome = answer.get(timeout=REACH_SECONDS)
    except Empty:
        given_up.set()
        raise WeightsUnavailable(f"weights: {url} gave no answer in {REACH_SECONDS:.0f} s; {ways_out}") from None
    if isinstance(outcome, OSError):  # as all of requests' errors are
        raise WeightsUnavailable(f"weights: {url} can't be reached ({type(outcome).__name__}); {ways_out}") from outcome
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _ways_out(spec: ModelSpec) -> str:
    retry = "connect to the network and retry" if any(s.kind != "shipped" for s in spec.weights) else "reinstall qzoo"
    return f"give a checkpoint with --weights PATH, or take --weights random to measure latency only, or {retry}"


def _check_digest(path: Path, sha256: str, advice: str) -> None:
    actual = file_digest(path)
    if not actual.startswith(sha256.lower()):
        raise IntegrityError(f"weights: {path} has SHA-256 {actual}, expected {sha256}; {advice}")


def _planned(kind: FileKind, ref: str, path: Path, *, spec: ModelSpec, seed: int, cache: Path) -> WeightsPlan:
    sha256 = file_digest(path)
    count = _count_classes(path, sha256, spec.head, cache)
    return WeightsPlan(record=WeightsRecord(kind=kind, ref=ref, sha256=sha256, num_classes=count), path=path, seed=seed)


# --- class count


def _count_classes(path: Path, sha256: str, head: str, cache: Path) -> int:
    if _is_safetensors(path):
        return _first_axis(_strip(_safetensors_shapes(path), head), head)
    memo = cache / "class-counts" / f"{sha256}.json"
    known = decode(memo.read_bytes(), dict[str, int], memo) if memo.is_file() else {}
    if head not in known:
        known[head] = num_classes(load_state(path, head), head)
        write_file(memo, encode(known))
    return known[head]


def _safetensors_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor, read from the header alone."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 - no dict
    except (SafetensorError, OSError) as error:
        raise WeightsMismatch(f"weights: {path} is not a whole safetensors file: {error}; fetch it again") from error


def _first_axis(shapes: Mapping[str, tuple[int, ...]], head: str) -> int:
    shape = shapes.get(f"{head}.weight")
    if not shape:
        some = ", ".join(list(shapes)[-3:])
        raise WeightsMismatch(f"weights: the checkpoint has no {head}.weight to count the classes by (it has {some})")
    return shape[0]


# --- checkpoint files


def _is_safetensors(path: Path) -> bool:
    if path.suffix not in SAFETENSORS | PICKLED:
        known = ", ".join(sorted(SAFETENSORS | PICKLED))
        raise WeightsMismatch(f"weights: {path} is not one of {known}")
    return path.suffix in SAFETENSORS


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsMismatch(f"weights: {path} is not a whole safetensors file: {error}; fetch it again") from error


def _read_pickled(path: Path) -> object:
    from pickle import UnpicklingError

    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise WeightsMismatch(
            f"weights: {path} was refused: it holds more than tensors, which could run code, or it is damaged; "
            f"where you trust it, convert it to .safetensors and give that"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise WeightsMismatch(f"weights: {path} is not a whole PyTorch checkpoint: {error}; fetch it again") from error


def _unwrap(state: object) -> object:
    """Take a state dict out of what training scripts save around it."""
    while isinstance(state, Mapping):
        inner = next((state[key] for key in WRAPPERS if isinstance(state.get(key), Mapping)), None)
        if inner is None:
            break
        state = inner
    return state


def _strip(state: Mapping[str, V], head: str | None) -> dict[str, V]:
    """Take off the prefixes that DataParallel and training frameworks put before every name."""
    found = dict(state)
    while f"{head}.weight" not in found:
        prefix = next((p for p in PREFIXES if all(key.startswith(p) for key in found)), None)
        if prefix is None or not found:
            break
        found = {key.removeprefix(prefix): value for key, value in found.items()}
    return found


def _difference(expected: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]]) -> str:
    """The first three of each kind of misfit."""
    parts = []
    for what, keys in (("lacks", expected.keys() - given.keys()), ("has an unknown", given.keys() - expected.keys())):
        if keys:
            parts.append(f"it {what} {_some(sorted(keys))}")
    shapes = [key for key in expected if key in given and expected[key] != given[key]]
    if shapes:
        parts.append(_some(f"{key} is {given[key]} instead of {expected[key]}" for key in shapes))
    return "; ".join(parts)


def _some(words: Iterable[str]) -> str:
    listed = list(words)
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")


# --- random weights


def _set_batchnorm_statistics(model: nn.Module, batch: Tensor) -> None:
    """One pass with only the BatchNorms in training mode; without momentum their statistics are the batch's own."""
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    momentums = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        model(batch)
    for norm, momentum in zip(norms, momentums, strict=True):
        norm.momentum = momentum
        norm.eval()
