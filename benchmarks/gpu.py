"""Checks and times engines on a CUDA GPU: every flavour of TensorRT that loads, beside PyTorch in fp16.

    PYTHONPATH=. python3 benchmarks/gpu.py --plugin-dir plugins

Runs from a plain checkout, on a host's own Python and torch: qzoo needn't be installed, nor openvino. Each engine, at
batch 1, 8 and 32 through a CUDA graph, is compared with the network that it was made from (with fake quantization, in
INT8) on the held-out images: cosine at least 0.999, top-1 agreement at least 99 %. Ends with 1 where one isn't, with 4
where there is no GPU. TensorRT-RTX's support matrix does not list SM90: there it is tried with no capability set, and
what came of it is told.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray

from qzoo.backends.trt.backend import TensorRT
from qzoo.backends.trt.cuda import Cuda
from qzoo.backends.trt.gpu import architecture, cuda_runtime, why_no_gpu
from qzoo.backends.trt.run import Session, Trace
from qzoo.errors import QzooError, UnknownName, WeightsUnavailable
from qzoo.hookspecs import Backend
from qzoo.measure import fidelity
from qzoo.pipeline.assemble import serialize
from qzoo.pipeline.network import make_network
from qzoo.pipeline.plan import Options, Plan, make_plan
from qzoo.pipeline.prepare import Prepared, prepare
from qzoo.pipeline.progress import Silent
from qzoo.records import Target, encode
from qzoo.registry import Registry
from qzoo.spec import BatchProfile, ModelSpec, Precision
from qzoo.store import Store
from qzoo.writing import write_file

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8", "int8+fp16")
BATCHES = (1, 8, 32)
LEAST_COSINE, LEAST_AGREEMENT = 0.999, 0.99
ROUNDS, WARM_UP_SECONDS = 100, 0.5
NO_GPU = 4
RESULTS = Path(__file__).parent / "results" / "gpu.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One engine at one batch. Times in ms: `compute_ms` on the GPU alone, the others with transfers, but PyTorch's."""

    model: str
    runtime: str
    precision: str
    batch: int
    compute_ms: float | None = None
    median_ms: float | None = None
    p99_ms: float | None = None
    images_per_second: float | None = None
    cosine: float | None = None
    top1_agreement: float | None = None
    problem: str = ""

    @property
    def passes(self) -> bool:
        """Whether it computes what its network does; what couldn't be made doesn't."""
        near = self.cosine is None or self.cosine >= LEAST_COSINE
        return not self.problem and near and (self.top1_agreement is None or self.top1_agreement >= LEAST_AGREEMENT)


def lacking() -> str:
    """What is missing to measure anything here; empty where nothing is."""
    if torch.cuda.is_available():
        return ""
    return f"{why_no_gpu() or 'this PyTorch is built without CUDA'}; run it where a GPU is"


def engines(backend: TensorRT, plan: Plan, prepared: Prepared, seconds: float) -> Iterator[Row]:
    """Every precision and batch of one model on one flavour."""
    target = here(backend)
    for precision in PRECISIONS:
        row = Row(model=plan.spec.name, runtime=backend.name, precision=precision, batch=0)
        try:
            session = opened(backend, target, plan, prepared, precision)
        except QzooError as error:
            yield replace(row, problem=" ".join(str(error).split()))
            continue
        quantized = prepared.fake_quantized_outputs if "int8" in precision else None
        found = fidelity(
            quantized or prepared.float_outputs,
            run_all(session, prepared.held_out.images),
            plan.spec.decision,
            trained=plan.trained,
        )
        row = replace(row, cosine=found.cosine, top1_agreement=found.top1_agreement)
        for batch in BATCHES:
            session.reshape({name: (batch, *shape[1:]) for name, shape in session.largest().items()})
            yield timed(replace(row, batch=batch), session.trace(ROUNDS, seconds, WARM_UP_SECONDS))


def here(backend: TensorRT) -> Target:
    """This machine's GPU as a target; with no capability set where the flavour doesn't list it."""
    try:
        return backend.target()
    except UnknownName:
        version = str(backend.probe().version)
        print(f"{backend.name} does not list {architecture()}: tried with no capability set")
        return Target(runtime=backend.name, isa="", version=version)


def opened(backend: TensorRT, target: Target, plan: Plan, prepared: Prepared, precision: Precision) -> Session:
    """An engine for every batch up to the largest, built and loaded. Raises TargetError or GraphError."""
    recipe = plan.spec.recipe(backend.name, precision, backend.roles)
    recipe = replace(recipe, batch=BatchProfile(min=1, opt=8, max=max(BATCHES)))
    graph = prepared.portable if recipe.quantized else prepared.float_graph
    lowered = serialize(backend.lower(graph, recipe, target))
    with TemporaryDirectory() as folder:
        out = Path(folder) / "engine"
        backend.build(lowered, {**backend.config(precision), **backend.fixed(target, recipe)}, out)
        return Session(backend.loaded(), out.read_bytes(), Cuda(cuda_runtime()))


def run_all(session: Session, images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Outputs over all images, in the largest batches."""
    (name,) = session.largest()
    size = max(BATCHES)
    parts = [session.run({name: images[start : start + size]}) for start in range(0, len(images), size)]
    return {output: np.concatenate([part[output] for part in parts]) for output in parts[0]}


def timed(row: Row, traces: Sequence[Trace]) -> Row:
    """A row with the times of its calls."""
    whole = np.array([trace.to_host[1] - trace.to_device[0] for trace in traces])
    compute = np.array([trace.compute[1] - trace.compute[0] for trace in traces])
    return with_times(row, whole, float(np.median(compute)))


def with_times(row: Row, times_ms: NDArray[np.float64], compute_ms: float | None) -> Row:
    """A row with percentiles and throughput."""
    median = float(np.median(times_ms))
    return replace(
        row,
        compute_ms=compute_ms,
        median_ms=median,
        p99_ms=float(np.percentile(times_ms, 99)),
        images_per_second=1000 * row.batch / median,
    )


def pytorch(spec: ModelSpec, compiled: bool) -> Iterator[Row]:  # noqa: FBT001
    """The float network in fp16 on the same GPU, eager or compiled, from tensors that are there already."""
    network = make_network(spec, spec.num_classes).cuda().half().eval().to(memory_format=torch.channels_last)
    call = torch.compile(network, mode="max-autotune") if compiled else network
    for batch in BATCHES:
        row = Row(
            model=spec.name, runtime=f"torch {'compiled' if compiled else 'eager'}", precision="fp16", batch=batch
        )
        images = torch.randn(batch, *spec.input.shape, device="cuda", dtype=torch.half)
        images = images.to(memory_format=torch.channels_last)
        try:
            with torch.inference_mode():
                for _ in range(10):
                    call(images)
                times = [cuda_ms(call, images) for _ in range(ROUNDS)]
            row = with_times(row, np.array(times), compute_ms=float(np.median(times)))
        except (RuntimeError, torch.cuda.OutOfMemoryError) as error:  # what a compiler or the GPU refuses
            row = replace(row, problem=" ".join(str(error).split())[:200])
        yield row


def cuda_ms(call: Callable[[torch.Tensor], object], images: torch.Tensor) -> float:
    """One call's milliseconds on the GPU."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    start.record()
    call(images)
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def plan_of(model: str, backend: Backend, registry: Registry, cache: Path) -> Plan:
    """With trained weights where they can be had, else random ones, whose decisions are not compared."""
    # a GPU that TensorRT-RTX doesn't list is no target; what is prepared is the same for every target
    target = f"{backend.name}/sm89" if backend.name == "tensorrt-rtx" else backend.name
    options = Options(model=model, target=target, weights="auto")
    try:
        return make_plan(options, registry, cache)
    except WeightsUnavailable:
        print(f"{model}: no trained weights could be had, so random ones: top-1 agreement is not compared")
        return make_plan(replace(options, weights="random"), registry, cache)


def measured(models: Sequence[str], registry: Registry, seconds: float) -> Iterator[Row]:
    """Every row, as it is measured."""
    flavours = [one for one in registry.backends() if isinstance(one, TensorRT)]
    # one that builds but doesn't list this GPU is tried all the same
    working = [one for one in flavours if one.probe().works or (one.probe().builds and not why_no_gpu())]
    for one in flavours:
        if one not in working:
            print(f"{one.name} is left out: {one.probe().reason}")
    for model in models:
        for compiled in (False, True):
            yield from pytorch(registry.model(model).spec, compiled)
        prepared: Prepared | None = None
        for backend in working:
            plan = plan_of(model, backend, registry, Store.default().home / "cache")
            prepared = prepared or prepare(plan, Silent())
            yield from engines(backend, plan, prepared, seconds)


def shown(row: Row) -> str:
    """A row of the table."""

    def figure(value: float | None, digits: int) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    cells = [f"{row.model:10} {row.runtime:15} {row.precision:10} {row.batch:5}"]
    cells += [f"{figure(value, 3):>9}" for value in (row.compute_ms, row.median_ms, row.p99_ms)]
    cells += [
        f"{figure(row.images_per_second, 0):>9}",
        f"{figure(row.cosine, 5):>8}",
        f"{figure(row.top1_agreement, 4):>7}",
    ]
    return " ".join([*cells, "" if row.passes else f"FAILS {row.problem}"]).rstrip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--plugin-dir", action="append", default=[], type=Path)
    parser.add_argument("--models", nargs="+", default=["resnet50", "mfcnn"])
    parser.add_argument("--seconds", type=float, default=2.0, help="of timing, for each engine and batch")
    parser.add_argument("--save", action="store_true", help="keep the rows in benchmarks/results/gpu.json")
    options = parser.parse_args()
    reason = lacking()
    if reason:
        print(f"gpu.py: {reason}", file=sys.stderr)
        return NO_GPU
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    print("model      runtime         precision  batch compute_ms median_ms    p99_ms images/s   cosine   top-1")
    rows = []
    for row in measured(options.models, Registry.load(options.plugin_dir), options.seconds):
        print(shown(row), flush=True)
        rows.append(row)
    if options.save:
        write_file(RESULTS, encode(result(rows)))
    return 0 if all(row.passes for row in rows) else 1


def result(rows: Sequence[Row]) -> Mapping[str, object]:
    """What is kept, with where it was measured."""
    return {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "rows": [asdict(row) for row in rows],
    }


if __name__ == "__main__":
    sys.exit(main())
