"""Latency, accuracy and fidelity of anything that maps arrays to arrays. numpy only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from qzoo.errors import UsageError
from qzoo.records import Accuracy, Fidelity, Latency
from qzoo.spec import Decision

Array = NDArray[np.float32]

MIN_ROUNDS = 5
BOOTSTRAPS = 2000


def sqnr_db(reference: Array, output: Array) -> float:
    """Centred signal-to-quantization-noise ratio in dB of (samples, ...) outputs, larger is closer.

    Each logit's mean over the samples is subtracted from both sides first, so that a constant output scores 0 dB
    however large it is: 10 log10(sum(r'^2) / sum((r' - o')^2)). Infinite where the two are equal.
    """
    signal, noise = _centred(reference, output)
    power, error = float((signal**2).sum()), float(((signal - noise) ** 2).sum())
    if error == 0:
        return float("inf")
    return float(10 * np.log10(max(power, np.finfo(np.float64).tiny) / error))


def cosine(reference: Array, output: Array) -> float:
    """Centred cosine similarity of (samples, ...) outputs; 0 where one side is constant."""
    a, b = _centred(reference, output)
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float((a * b).sum() / norm) if norm else 0.0


def top1_agreement(reference: Array, output: Array) -> float:
    """The fraction of (samples, classes) rows whose largest entry is at the same index."""
    return float((reference.argmax(1) == output.argmax(1)).mean())


def worst_sqnr_db(reference: Mapping[str, Array], outputs: Mapping[str, Array]) -> float:
    """The centred SQNR in dB of the output that is farthest from its reference, 200 at most.

    Of the outputs and not of a decision's scores, since a softmax hides what happens to large logits.
    """
    return float(np.min([200.0, *(sqnr_db(reference[name], outputs[name]) for name in reference)]))


def fidelity(
    reference: Mapping[str, Array], outputs: Mapping[str, Array], decision: Decision, *, trained: bool
) -> Fidelity:
    """How close a network's outputs are to the reference's, each (samples, classes) by name.

    SQNR and cosine are those of the output that is farthest; agreement is that of the decisions made from all of them.
    It says nothing of random weights, so it is None there.
    """
    expected, scores = decide(reference, decision), decide(outputs, decision)
    return Fidelity(
        cosine=round(float(np.min([cosine(reference[name], outputs[name]) for name in reference])), 6),
        sqnr_db=round(worst_sqnr_db(reference, outputs), 2),
        top1_agreement=round(top1_agreement(expected, scores), 6) if trained else None,
        samples=len(scores),
    )


def accuracy(scores: Array, labels: NDArray[np.int64]) -> Accuracy:
    """Top-1 of (samples, classes) scores."""
    return Accuracy(correct=int((scores.argmax(1) == labels).sum()), total=len(labels))


def decide(outputs: Mapping[str, Array], decision: Decision) -> Array:
    """One (N, classes) array of scores from a network's outputs.

    "argmax": the first output's logits. "softmax-sum": the sum of every output's softmax.
    """
    arrays = list(outputs.values())
    if decision == "argmax":
        return arrays[0]
    total: Array = np.sum([softmax(array) for array in arrays], axis=0, dtype=np.float32)
    return total


def softmax(logits: Array) -> Array:
    """Over the last axis."""
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    chances: Array = shifted / shifted.sum(-1, keepdims=True)
    return chances


def wall(call: Callable[[], object]) -> Callable[[], float]:
    """A turn of `timings` that calls something and gives its wall time in milliseconds."""

    def turn() -> float:
        start = perf_counter()
        call()
        return (perf_counter() - start) * 1e3

    return turn


def latency(
    turns: Mapping[str, Callable[[], float]], *, batch: int, threads: int, rounds: int = 15, seconds: float = 10.0
) -> dict[str, Latency]:
    """Median and 95th percentile of each turn, in milliseconds, measured side by side as `timings` does."""
    return {
        name: Latency(
            median_ms=round(float(np.median(times)), 4),
            p95_ms=round(float(np.percentile(times, 95)), 4),
            batch=batch,
            threads=threads,
            rounds=len(times),
        )
        for name, times in timings(turns, rounds=rounds, seconds=seconds).items()
    }


def timings(
    turns: Mapping[str, Callable[[], float]],
    *,
    rounds: int | None = None,
    seconds: float = 10.0,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, NDArray[np.float64]]:
    """What every turn gives, its milliseconds (of `wall`, or of `qzoo.apart.turns`), one array per name.

    In every round each has one turn, in an order drawn anew; stops after `rounds`, or after `seconds` but at least five
    rounds. The first turn of each is a warm-up and not counted. `advance` is told of every round.
    """
    if rounds is not None and rounds < 1:
        raise UsageError(f"latency needs at least 1 round, got {rounds}")
    names = list(turns)
    for name in names:
        turns[name]()
    times: dict[str, list[float]] = {name: [] for name in names}
    order, began, done = np.random.default_rng(0), perf_counter(), 0
    while done != rounds and (done < MIN_ROUNDS or perf_counter() - began < seconds):
        for index in order.permutation(len(names)):
            times[names[index]].append(turns[names[index]]())
        done += 1
        advance()
    return {name: np.array(values) for name, values in times.items()}


def latency_ratio(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> tuple[float, tuple[float, float]]:
    """The median of ours/theirs over interleaved rounds, and its bootstrap 95 % interval (percentile method).

    Both are (rounds,), or (processes, rounds): then processes are drawn with replacement, and rounds within each.
    Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    ratios = np.atleast_2d(ours / theirs)
    generator = np.random.default_rng(0)
    processes, rounds = ratios.shape
    medians = [
        np.median(
            ratios[generator.integers(processes, size=processes)][
                np.arange(processes)[:, None], generator.integers(rounds, size=(processes, rounds))
            ]
        )
        for _ in range(BOOTSTRAPS)
    ]
    low, high = np.percentile(medians, [2.5, 97.5])
    return round(float(np.median(ratios)), 4), (round(float(low), 4), round(float(high), 4))


def _centred(reference: Array, output: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if reference.shape != output.shape:
        raise UsageError(f"outputs of shapes {reference.shape} and {output.shape} can't be compared")
    a, b = reference.astype(np.float64), output.astype(np.float64)
    return a - a.mean(0), b - b.mean(0)
