"""Where a plugin's weights lie: shipped with qzoo, in the cache, or on the net."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import TYPE_CHECKING

from qzoo.errors import IntegrityError, SpecError, WeightsUnavailable
from qzoo.records import file_digest
from qzoo.spec import ModelSpec, WeightSource
from qzoo.weights.checkpoint import PICKLED, SAFETENSORS
from qzoo.writing import new_file

if TYPE_CHECKING:
    from requests import Response

Progress = Callable[[int, int | None], None]
"""Told the bytes downloaded so far, and of how many, where the server says."""

CONNECT_SECONDS, READ_SECONDS = 5.0, 10.0

REACH_SECONDS = 12.0
"""Until the first byte of an answer, name resolution and every address of the host included."""


def shipped_dir() -> Path:
    """The folder of weights.toml and the checkpoints that come with qzoo: in a wheel, else in the checkout."""
    package = Path(__file__).parents[1]
    installed = package / "_shipped"
    return installed if installed.is_dir() else package.parent / "weights"


def at_hand(source: WeightSource, cache: Path) -> Path | None:
    """The file of a source that needs no network, checked against its digest."""
    if source.kind == "shipped":
        return _shipped(source.ref)
    if source.sha256 is None:
        url, sha256 = address(source)
        path = cache / _cached_name(url, sha256)
        found = path if path.is_file() else None
    else:
        sha256 = source.sha256
        named = sorted(cache.glob(f"*-{sha256}.*"))
        found = next((path for path in named if path.suffix in SAFETENSORS | PICKLED), None)
    if found:
        _check_digest(found, sha256, "delete it to download it again")
    return found


def licence_of(source: WeightSource) -> str | None:
    """The licence of shipped weights, as weights.toml has it."""
    if source.kind != "shipped":
        return None
    entries = tomllib.loads((shipped_dir() / "weights.toml").read_text("utf-8"))
    found = entries[source.ref].get("licence")
    return None if found is None else str(found)


def download(url: str, sha256: str, cache: Path, progress: Progress | None = None, ways_out: str = "") -> Path:
    """Fetch a file into `cache` under its own name, unless its digest doesn't start with `sha256`.

    An unreachable host is given up on well within 15 s. Nothing is left under the final name until all is there.
    Raises WeightsUnavailable, IntegrityError, or StoreError where `cache` can't be written.
    """
    import requests

    target = cache / _cached_name(url, sha256)
    with new_file(target) as part:
        try:
            with part.open("wb") as file, reach(url, ways_out) as response:
                size = response.headers.get("Content-Length")
                total, done, digest = int(size) if size else None, 0, hashlib.sha256()
                for piece in response.iter_content(1 << 20):
                    file.write(piece)
                    digest.update(piece)
                    done += len(piece)
                    if progress:
                        progress(done, total)
        except requests.RequestException as error:
            raise WeightsUnavailable(f"weights: the download of {url} broke off: {error}; {ways_out}") from error
        if not digest.hexdigest().startswith(sha256.lower()):
            raise IntegrityError(
                f"weights: {url} gave {done} bytes with SHA-256 {digest.hexdigest()}, expected {sha256}...; try again"
            )
    return target


def ways_out_of(spec: ModelSpec) -> str:
    """What a user can do without a model's weights."""
    retry = "connect to the network and retry" if any(s.kind != "shipped" for s in spec.weights) else "reinstall qzoo"
    return f"give a checkpoint with --weights PATH, or take --weights random to measure latency only, or {retry}"


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


def address(source: WeightSource) -> tuple[str, str]:
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


def reach(url: str, ways_out: str) -> Response:
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


def _check_digest(path: Path, sha256: str, advice: str) -> None:
    actual = file_digest(path)
    if not actual.startswith(sha256.lower()):
        raise IntegrityError(f"weights: {path} has SHA-256 {actual}, expected {sha256}; {advice}")
