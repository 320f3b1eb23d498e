"""Fine-tuning wins back what 3-bit weights lose; benchmarks/qat_recovery.py measures it over seeds."""

from __future__ import annotations

import json
from pathlib import Path

from qzoo.pipeline.progress import Silent
from qzoo.pipeline.training import TrainOptions, train
from qzoo.store import Store

RESULT = Path(__file__).parents[2] / "benchmarks" / "results" / "qat_recovery.json"


def test_one_epoch_wins_back_most_of_what_calibration_lost(registry, tmp_path):
    options = TrainOptions(model="resnet20", qat=True, weight_bits=3, epochs=1, out=tmp_path / "run")
    run = train(options, registry, Store(tmp_path / "home"), Silent())
    lost = run.float.correct - run.calibrated.correct
    assert lost >= 18  # 5 points of 360
    assert run.held_out.correct - run.calibrated.correct > lost / 2


def test_the_kept_result_is_what_the_documentation_says():
    kept = json.loads(RESULT.read_text())
    assert kept["mean_lost"] >= 18
    assert kept["won_back"] >= 0.8
    page = (RESULT.parents[2] / "docs" / "training.md").read_text()
    for row in kept["rows"]:
        figures = [row["float"], row["calibrated"], row["fine_tuned"], row["engine"]]
        assert f"| {row['seed']} | {' | '.join(f'{figure}/360' for figure in figures)} |" in page
