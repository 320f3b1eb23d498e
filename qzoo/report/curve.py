"""A training run's loss and accuracy by epoch, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

from qzoo.records import EpochRecord


def curve_png(history: Sequence[EpochRecord], title: str) -> bytes:
    """A PNG: the loss at the left, training and validation accuracy at the right, over the epochs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    losses, accuracies = figure.subplots(1, 2)
    epochs = [record.epoch for record in history]
    losses.plot(epochs, [record.loss for record in history], marker=".")
    losses.set(xlabel="epoch", ylabel="loss", title=title)
    accuracies.plot(epochs, [100 * record.training.fraction for record in history], marker=".", label="training")
    validated = [record for record in history if record.validation is not None]
    if validated:
        accuracies.plot(
            [record.epoch for record in validated],
            [100 * record.validation.fraction for record in validated if record.validation],
            marker=".",
            label="validation",
        )
    accuracies.set(xlabel="epoch", ylabel="accuracy, %")
    accuracies.legend()
    for axes in (losses, accuracies):
        axes.grid(visible=True, alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    made = BytesIO()
    figure.savefig(made, format="png", dpi=120)
    return made.getvalue()
