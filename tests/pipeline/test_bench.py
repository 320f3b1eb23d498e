"""qzoo bench's figures."""

from __future__ import annotations

import numpy as np
import pytest

import qzoo
from qzoo.errors import UsageError
from qzoo.measure import latency_ratio, timings, wall
from qzoo.pipeline.bench import bench
from qzoo.pipeline.progress import Silent
from qzoo.store import Store


@pytest.fixture(scope="module")
def engines(built_home, bundles):
    return [qzoo.load(bundle.path, threads=1, store=Store(built_home)) for bundle in bundles.values()]


def test_every_engine_has_its_own_row_and_the_first_is_the_base(engines):
    rows = bench(engines, batch_size=2, threads=1, seconds=0.5, progress=Silent())
    assert [row.target.split("/")[0] for row in rows] == ["onnxruntime", "openvino"]
    assert rows[0].ratio is None
    assert rows[1].ratio_ci95[0] <= rows[1].ratio <= rows[1].ratio_ci95[1]
    for row in rows:
        assert 0 < row.median_ms <= row.p90_ms <= row.p99_ms
        assert row.images_per_second == pytest.approx(2000 / row.median_ms, rel=0.01)
        assert (row.batch, row.threads) == (2, 1)


def test_a_larger_batch_takes_longer(engines):
    small, large = (bench(engines[:1], batch_size=n, threads=1, seconds=0.5, progress=Silent())[0] for n in (1, 32))
    assert large.median_ms > 2 * small.median_ms


def test_a_batch_the_engine_does_not_take_is_refused(engines):
    with pytest.raises(UsageError, match="batch of 65; the engine takes 1 to 64"):
        bench(engines, batch_size=65, threads=1, seconds=0.1, progress=Silent())


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_a_duration_must_be_above_zero(engines, seconds):
    with pytest.raises(UsageError, match="--duration"):
        bench(engines, batch_size=1, threads=1, seconds=seconds, progress=Silent())


def test_calls_take_turns_and_the_warm_up_does_not_count():
    made: list[str] = []
    times = timings({name: wall(lambda name=name: made.append(name)) for name in "abc"}, rounds=20)
    assert {len(values) for values in times.values()} == {20}
    rounds = [made[i : i + 3] for i in range(0, len(made), 3)]
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert len(rounds) == 21
    assert len({tuple(one) for one in rounds}) > 1


def test_the_ratio_of_known_times_is_found_within_its_interval():
    generator = np.random.default_rng(0)
    theirs = generator.lognormal(0, 0.1, (5, 200))
    ours = theirs * 0.8 * generator.lognormal(0, 0.1, (5, 200))
    ratio, (low, high) = latency_ratio(ours, theirs)
    assert low < 0.8 < high
    assert ratio == pytest.approx(0.8, abs=0.01)
    assert high - low < 0.05
