"""A verified pull of a large engine beside `curl` and `sha256sum` in sequence, from the same registry, in one run.

    python benchmarks/pull.py --save pull

Starts docker-registry (Debian's) on this machine and pushes resnet20's bundle with an engine of --mib MiB of random
bytes. In every round each candidate fetches once, in a random order, into an empty place:

- `qzoo pull`: the command, from its start to its end. It asks for the tag, checks the signature, fetches all files of
  the bundle, hashes each, and puts the bundle into the store.
- `fetch`: only the large file through `qzoo.zoo.fetch`, in this process: resumable, locked, hashed, synchronized to
  the disk, renamed.
- `curl + sha256sum`: `curl -o FILE URL && sha256sum FILE`, of the large file.

MB/s are the large file's. Ratios are the median of curl's time over the candidate's, with a bootstrap 95 % interval.
Then, with the registry behind a counter of bytes: a second pull of the unchanged tag, and a second push. Memory is the
largest resident size of `qzoo pull` and `qzoo push` (getrusage), with this file and with one four times as large.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from time import perf_counter, sleep

import numpy as np
from machine import machine
from numpy.typing import NDArray

from qzoo.measure import latency_ratio
from qzoo.pipeline import Options, build_all, make_plan
from qzoo.records import FileEntry, digest_of, encode
from qzoo.registry import Registry
from qzoo.store import Bundle, Store
from qzoo.store.layout import Descriptor
from qzoo.zoo.connect import connect
from qzoo.zoo.fetch import Fetch
from qzoo.zoo.keys import KeyRing
from qzoo.zoo.trust import TrustStore

RESULTS = Path(__file__).parent / "results"
QZOO = str(Path(sys.executable).with_name("qzoo"))
MB = 1e6
LEAST_RATIO, MOST_SECOND_PULL_BYTES, MOST_MEMORY_MB = 0.7, 20_000, 150.0
Times = NDArray[np.float64]
PULL, FETCH, CURL = "qzoo pull", "fetch", "curl + sha256sum"
CONFIG = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: "{root}"}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


@dataclass(frozen=True)
class Row:
    """One candidate: its median time, the large file's MB/s, and curl's time over its own with the 95 % interval."""

    candidate: str
    median_s: float
    mb_per_s: float
    ratio: float
    ci95: tuple[float, float]
    raw_s: list[float] = field(repr=False)


@dataclass(frozen=True)
class Memory:
    """The largest resident size, in MB, with a file of so many MiB."""

    mib: int
    pull_mb: float
    push_mb: float


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mib", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--save", metavar="NAME", help="keep the results in results/NAME.json")
    words = parser.parse_args()
    with TemporaryDirectory() as folder, registry(Path(folder)) as location:
        rows, memory, second = measure(Path(folder), location, words.mib, words.rounds)
    met = show(rows, memory, second)
    if words.save:
        packages = ("qzoo", "requests", "urllib3", "filelock", "cryptography")
        where = machine(["benchmarks/pull.py", *sys.argv[1:]], packages)
        tools = {name: _first_line([name, "--version"]) for name in ("curl", "docker-registry")}
        found = {"rows": [asdict(row) for row in rows], "memory": [asdict(one) for one in memory], **second}
        path = RESULTS / f"{words.save}.json"
        path.write_text(json.dumps({**found, **where, "tools": tools, "rounds": words.rounds}, indent=1) + "\n")
    if not met:
        sys.exit(1)


def measure(folder: Path, location: str, mib: int, rounds: int) -> tuple[list[Row], list[Memory], dict[str, int]]:
    """Everything that is reported, of a registry at `location`."""
    publisher = Store(folder / "publisher")
    KeyRing(publisher.home).new("default")
    small = _built(folder / "builder")
    memory = []
    for size in (4 * mib, mib):
        bundle = put_large(publisher, small, size)
        reader = new_reader(folder / "reader", publisher)
        push = peak_mb([QZOO, "push", "resnet20", "--registry", location], publisher.home)
        pull = peak_mb([QZOO, "pull", "resnet20", "--registry", location], reader.home)
        memory.append(Memory(mib=size, pull_mb=round(pull, 1), push_mb=round(push, 1)))
    second = second_time(location, publisher, reader)
    entry = bundle.manifest.files[bundle.manifest.engine]
    blob = Descriptor(mediaType="", digest=f"sha256:{entry.sha256}", size=entry.size_bytes)
    return compare(folder, location, publisher, blob, rounds), memory, second


def compare(folder: Path, location: str, publisher: Store, blob: Descriptor, rounds: int) -> list[Row]:
    url = f"http://{location}/v2/resnet20/blobs/{blob.digest}"
    file = folder / "fetched"

    def pull() -> float:
        reader = new_reader(folder / "reader", publisher)
        return timed(lambda: run([QZOO, "pull", "resnet20", "--registry", location], reader.home))

    def fetch() -> float:
        file.unlink(missing_ok=True)
        one = Fetch(remote=connect(location), name="resnet20", partial=folder / "partial")
        return timed(lambda: one.blob(blob, "engine", file, lambda _: None))

    def curl() -> float:
        file.unlink(missing_ok=True)
        command = f"curl -sS -o '{file}' '{url}' && sha256sum '{file}'"
        seconds = timed(lambda: run(["sh", "-c", command], publisher.home))
        if hashlib.sha256(file.read_bytes()).hexdigest() != blob.sha256:
            raise RuntimeError("curl has fetched something else")
        return seconds

    candidates: Mapping[str, Callable[[], float]] = {PULL: pull, FETCH: fetch, CURL: curl}
    times = interleaved(candidates, rounds)
    rows = []
    for name, own in times.items():
        (ratio, interval), median = latency_ratio(times[CURL], own), float(np.median(own))
        raw = [round(float(one), 4) for one in own]
        rows.append(Row(name, round(median, 4), round(blob.size / MB / median, 1), ratio, interval, raw))
    return rows


def interleaved(candidates: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, Times]:
    """Seconds by candidate. Each runs once before the first round."""
    generator, names = np.random.default_rng(0), list(candidates)
    times: dict[str, list[float]] = {name: [] for name in names}
    for call in candidates.values():
        call()
    for _ in range(rounds):
        for index in generator.permutation(len(names)):
            times[names[index]].append(candidates[names[index]]())
    return {name: np.array(found) for name, found in times.items()}


def put_large(publisher: Store, small: Bundle, mib: int) -> Bundle:
    """Store the bundle with an engine of so many MiB of random bytes, as if it were built so."""
    engine = np.random.default_rng(mib).bytes(mib << 20)
    record = replace(small.record, sha256=digest_of(engine), size_bytes=len(engine))
    files = {path.name: path.read_bytes() for path in small.path.iterdir() if path.name != "manifest.json"}
    files |= {small.manifest.engine: engine, f"{small.manifest.engine}.json": encode(record)}
    entries = {
        name: FileEntry(sha256=digest_of(data), size_bytes=len(data))
        for name, data in files.items()
        if name in small.manifest.files
    }
    return publisher.put("resnet20", "int8", replace(small.manifest, files=entries), files)


def _built(home: Path) -> Bundle:
    store = Store(home)
    plan = make_plan(Options(model="resnet20", target="onnxruntime"), Registry.load(env={}), store.cache)
    return build_all([plan], store)[0]


def new_reader(home: Path, publisher: Store) -> Store:
    """An empty store of somebody who trusts the publisher."""
    rmtree(home, ignore_errors=True)
    TrustStore(home).trust(KeyRing(publisher.home).get().public, "publisher")
    return Store(home)


def second_time(location: str, publisher: Store, reader: Store) -> dict[str, int]:
    """The bytes that a second pull reads, and the blobs that a second push uploads."""
    with counted(location) as (counter, through):
        for _ in range(2):  # the first through the counter has a registry of another name
            before = counter[0]
            run([QZOO, "pull", "resnet20", "--registry", through], reader.home)
    done = run([QZOO, "push", "resnet20", "--registry", location, "--json"], publisher.home)
    pushed = json.loads(done)
    return {
        "second_pull_bytes": counter[0] - before,
        "second_push_blobs": pushed["uploaded_blobs"],
        "second_push_bytes": pushed["uploaded_bytes"],
    }


@contextmanager
def counted(location: str) -> Iterator[tuple[list[int], str]]:
    """Another port that leads to the registry, and how many bytes the registry has sent through it."""
    host, port = location.split(":")
    counter, listener = [0], socket.create_server(("127.0.0.1", 0))

    def copy(source: socket.socket, target: socket.socket, *, count: bool) -> None:
        while data := source.recv(1 << 16):
            counter[0] += len(data) if count else 0
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:  # closed
                return
            server = socket.create_connection((host, int(port)))
            threading.Thread(target=copy, args=(client, server), kwargs={"count": False}, daemon=True).start()
            threading.Thread(target=copy, args=(server, client), kwargs={"count": True}, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield counter, f"127.0.0.1:{listener.getsockname()[1]}"
    listener.close()


@contextmanager
def registry(folder: Path) -> Iterator[str]:
    """docker-registry on a free port: its host:port."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    config = folder / "config.yml"
    config.write_text(CONFIG.format(root=folder / "data", port=port))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", config], stdout=log, stderr=log)
    try:
        for _ in range(400):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            sleep(0.025)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def run(command: list[str], home: Path) -> bytes:
    return subprocess.run(command, check=True, capture_output=True, env={**os.environ, "QZOO_HOME": str(home)}).stdout


PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def peak_mb(command: list[str], home: Path) -> float:
    """A command's largest resident size, in MB."""
    return int(run([sys.executable, "-c", PEAK, *command], home)) * 1024 / MB


def timed(call: Callable[[], object]) -> float:
    start = perf_counter()
    call()
    return perf_counter() - start


def show(rows: list[Row], memory: list[Memory], second: dict[str, int]) -> bool:
    """Print what was measured; whether each bound is kept."""
    print(f"{'candidate':18} {'median s':>9} {'MB/s':>7}  vs curl + sha256sum [95 %]")
    for row in rows:
        ratio = f"{row.ratio:.2f}x [{row.ci95[0]:.2f}, {row.ci95[1]:.2f}]"
        print(f"{row.candidate:18} {row.median_s:9.3f} {row.mb_per_s:7.0f}  {ratio}")
    for one in memory:
        print(f"memory, {one.mib} MiB: pull {one.pull_mb:.1f} MB, push {one.push_mb:.1f} MB")
    print(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in second.items()))
    least = min(row.ratio for row in rows if row.candidate != CURL)
    most = max(max(one.pull_mb, one.push_mb) for one in memory)
    met = {
        f"at least {LEAST_RATIO}x": least >= LEAST_RATIO,
        f"memory below {MOST_MEMORY_MB:.0f} MB": most < MOST_MEMORY_MB,
        f"second pull below {MOST_SECOND_PULL_BYTES} bytes": second["second_pull_bytes"] < MOST_SECOND_PULL_BYTES,
        "second push uploads nothing": second["second_push_blobs"] == 0,
    }
    print("\n".join(f"{bound}: {'met' if kept else 'NOT MET'}" for bound, kept in met.items()))
    return all(met.values())


def _first_line(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[0]


if __name__ == "__main__":
    main()
