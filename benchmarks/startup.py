"""How long the command takes to start, beside a minimal click program and beside Python itself, in one run.

    python benchmarks/startup.py --save startup

In every round each program runs once, in a process of its own, in a random order. `vs click` is the median of a
program's wall time over the click program's `--help` in the same round, `vs pass` over `python -c pass`, each with its
bootstrap 95 % interval. Bytecode is compiled before, as after an installation. `qzoo run` classifies one image with
resnet20's INT8 engine of either runtime; its bound is in seconds, the others' in multiples of the click program.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from machine import machine
from numpy.typing import NDArray

from qzoo.data.digits import Digits
from qzoo.measure import latency_ratio, timings, wall

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("click", "msgspec", "numpy", "onnxruntime", "openvino", "pluggy", "qzoo")
QZOO = str(Path(sys.executable).with_name("qzoo"))
RUNTIMES = ("onnxruntime", "openvino")
PASS, CLICK = "python -c pass", "click --help"
MOST_TIMES_CLICK = {"qzoo --help": 2.0, "qzoo list": 3.0}
MOST_SECONDS = {f"qzoo run, {runtime}": 1.0 for runtime in RUNTIMES}
MINIMAL = """
import click


@click.command()
@click.argument("name")
@click.option("--count", default=1, show_default=True, help="How often.")
def main(name, count):
    \"\"\"Greet NAME.\"\"\"


main()
"""

Times = NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """One program's wall time. The ratios' intervals are 95 %; `bound` is in the unit that `bound_of` names."""

    program: str
    median_ms: float
    p95_ms: float
    ratio_to_click: float
    click_ci95: tuple[float, float]
    ratio_to_pass: float
    pass_ci95: tuple[float, float]
    bound: float | None
    bound_of: str | None
    raw_ms: list[float] = field(repr=False)

    @property
    def met(self) -> bool | None:
        """Whether the bound is kept by the median; None without a bound."""
        if self.bound is None:
            return None
        return (self.median_ms / 1e3 if self.bound_of == "seconds" else self.ratio_to_click) <= self.bound


def main() -> None:
    arguments = _parse()
    with TemporaryDirectory(prefix="qzoo-startup-") as folder:
        environment = _environment(Path(folder))
        words = _programs(Path(folder), environment)
        print(f"{len(words)} programs x {arguments.rounds} rounds", file=sys.stderr)
        times = timings(
            {name: wall(_call(command, environment)) for name, command in words.items()}, rounds=arguments.rounds
        )
    rows = [_row(name, times) for name in words]
    print("\n".join(_table(rows)))
    if arguments.save:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{arguments.save}.json"
        found = {
            "rows": [asdict(row) | {"met": row.met} for row in rows],
            **machine(["python", "benchmarks/startup.py", *sys.argv[1:]], PACKAGES),
            "rounds": arguments.rounds,
        }
        path.write_text(json.dumps(found, indent=1) + "\n")
        print(f"kept in {path}", file=sys.stderr)
    if any(row.met is False for row in rows):
        sys.exit(1)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--save", metavar="NAME", help="keep the result as benchmarks/results/NAME.json")
    return parser.parse_args()


def _environment(folder: Path) -> dict[str, str]:
    own = {"QZOO_HOME": str(folder / "home"), "QZOO_CONFIG": str(folder / "config.toml")}
    cached = {"PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
    left = {name: value for name, value in os.environ.items() if not name.startswith(("QZOO_", "PYTHON"))}
    return {**left, **own, **cached}


def _programs(folder: Path, environment: Mapping[str, str]) -> dict[str, Sequence[str]]:
    minimal, image = folder / "minimal.py", folder / "digit.png"
    minimal.write_text(MINIMAL)
    digits = Digits()
    digits.image(digits.samples("held-out")[0]).save(image)
    targets = [word for runtime in RUNTIMES for word in ("--target", runtime)]
    print("building resnet20 for both runtimes", file=sys.stderr)
    subprocess.run([QZOO, "build", "resnet20", *targets], check=True, env=environment, stdout=subprocess.DEVNULL)
    return {
        PASS: (sys.executable, "-c", "pass"),
        CLICK: (sys.executable, str(minimal), "--help"),
        "qzoo --help": (QZOO, "--help"),
        "qzoo list": (QZOO, "list"),
        **{f"qzoo run, {one}": (QZOO, "run", "resnet20:int8", str(image), "--target", one) for one in RUNTIMES},
    }


def _call(command: Sequence[str], environment: Mapping[str, str]) -> Callable[[], object]:
    return lambda: subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)


def _row(name: str, times: Mapping[str, Times]) -> Row:
    to_click, click_interval = latency_ratio(times[name], times[CLICK])
    to_pass, pass_interval = latency_ratio(times[name], times[PASS])
    return Row(
        program=name,
        median_ms=round(float(np.median(times[name])), 1),
        p95_ms=round(float(np.percentile(times[name], 95)), 1),
        ratio_to_click=to_click,
        click_ci95=click_interval,
        ratio_to_pass=to_pass,
        pass_ci95=pass_interval,
        bound=MOST_TIMES_CLICK.get(name, MOST_SECONDS.get(name)),
        bound_of="click --help" if name in MOST_TIMES_CLICK else "seconds" if name in MOST_SECONDS else None,
        raw_ms=[round(float(time), 2) for time in times[name]],
    )


def _table(rows: Iterable[Row]) -> Iterable[str]:
    yield f"{'program':22} {'median ms':>9} {'p95':>7}  {'vs click [95 %]':24} {'vs pass [95 %]':24} bound"
    for row in rows:
        click, start = _ratio(row.ratio_to_click, row.click_ci95), _ratio(row.ratio_to_pass, row.pass_ci95)
        bound = "" if row.bound is None else f"{row.bound:g} {'s' if row.bound_of == 'seconds' else 'x click'}: "
        bound += "" if row.met is None else "met" if row.met else "NOT MET"
        yield f"{row.program:22} {row.median_ms:9.1f} {row.p95_ms:7.1f}  {click:24} {start:24} {bound}".rstrip()


def _ratio(ratio: float, interval: tuple[float, float]) -> str:
    return f"{ratio:.2f}x [{interval[0]:.2f}, {interval[1]:.2f}]"


if __name__ == "__main__":
    main()
