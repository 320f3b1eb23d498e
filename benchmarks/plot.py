"""A kept result of peers.py as a picture: every engine's latency as a multiple of the best peer's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

OURS, PEER = "#2a6f97", "#b8b8b8"


def draw(result: dict[str, Any], path: Path) -> None:
    """One panel a model and batch, fastest first; qzoo's engines in colour. A bar of a float peer may be cut off."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    engines = [*result["rows"], *result["peers"]]
    panels = list(dict.fromkeys((row["model"], row["batch"]) for row in engines))
    figure, axes = plt.subplots(len(panels), 1, figsize=(8, 2.4 * len(panels)), squeeze=False, layout="constrained")
    for axis, (model, batch) in zip(axes[:, 0], panels, strict=True):
        shown = [row for row in engines if (row["model"], row["batch"]) == (model, batch)]
        best = min(row["latency_ms"] for row in shown if row in result["peers"])
        shown.sort(key=lambda row: -row["latency_ms"])
        ratios = [row["latency_ms"] / best for row in shown]
        colours = [OURS if row in result["rows"] else PEER for row in shown]
        bars = axis.barh([row["engine"] for row in shown], ratios, color=colours)
        axis.bar_label(
            bars, [f"{ratio:.2f}  {row['sqnr_db']:.0f} dB" for ratio, row in zip(ratios, shown, strict=True)]
        )
        axis.axvline(1.0, color="black", linewidth=0.8)
        axis.set_xlim(0, 4)
        axis.set_title(
            f"{model}, batch {batch}: latency over the best peer's, and SQNR to the float network", fontsize=9
        )
        axis.tick_params(labelsize=8)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
