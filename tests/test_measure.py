"""Fidelity and accuracy against closed forms; the order and the number of timed calls."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import accuracy_score

from qzoo.errors import UsageError
from qzoo.measure import accuracy, cosine, decide, fidelity, latency, softmax, sqnr_db, top1_agreement, wall
from qzoo.records import Fidelity

checked = settings(max_examples=60, deadline=None, derandomize=True)
logits = arrays.arrays(
    np.float32,
    st.tuples(st.integers(2, 20), st.integers(2, 10)),
    elements=st.floats(-100, 100, width=32),
)
seeds = st.integers(0, 2**32 - 1)


def noisy(seed: int, decibels: float, samples: int = 50, classes: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """A reference and an output whose centred noise is exactly `decibels` below the centred signal, in float64."""
    generator = np.random.default_rng(seed)
    signal, noise = generator.normal(size=(2, samples, classes))
    signal, noise = signal - signal.mean(0), noise - noise.mean(0)
    noise *= np.linalg.norm(signal) / np.linalg.norm(noise) / 10 ** (decibels / 20)
    return signal, signal + noise


def alone(reference: np.ndarray, output: np.ndarray, *, trained: bool = True) -> Fidelity:
    """The fidelity of a network with one output."""
    return fidelity({"logits": reference}, {"logits": output}, "argmax", trained=trained)


@checked
@given(seeds, st.floats(-20, 120))
def test_noise_of_a_known_level_is_measured_as_that_level(seed, decibels):
    assert sqnr_db(*noisy(seed, decibels)) == pytest.approx(decibels, abs=1e-6)


@checked
@given(seeds, st.floats(0, 60))
def test_ten_times_the_noise_is_20_db_less(seed, decibels):
    reference, output = noisy(seed, decibels)
    louder = reference + 10 * (output - reference)
    assert sqnr_db(reference, output) - sqnr_db(reference, louder) == pytest.approx(20, abs=1e-6)


@checked
@given(seeds, st.floats(-1e3, 1e3))
def test_a_constant_added_to_a_logit_changes_neither_sqnr_nor_cosine(seed, offset):
    reference, output = noisy(seed, 30)
    moved = output + offset * np.arange(output.shape[1])
    assert sqnr_db(reference, moved) == pytest.approx(sqnr_db(reference, output), abs=1e-5)
    assert cosine(reference, moved) == pytest.approx(cosine(reference, output), abs=1e-9)


@checked
@given(logits, st.data())
def test_a_constant_output_scores_0_db_however_large(reference, data):
    assume(np.ptp(reference, axis=0).max() > 1e-3)
    row = data.draw(arrays.arrays(np.float32, reference.shape[1], elements=st.floats(-1e4, 1e4, width=32)))
    constant = np.broadcast_to(row, reference.shape)
    assert sqnr_db(reference, constant) <= 1e-6
    assert cosine(reference, constant) == pytest.approx(0, abs=1e-6)


@checked
@given(logits)
def test_an_output_like_its_reference_is_infinitely_close_and_kept_as_200_db(reference):
    assert sqnr_db(reference, reference.copy()) == float("inf")
    assert alone(reference, reference.copy()).sqnr_db == 200


@checked
@given(seeds, st.floats(0.01, 100), st.booleans())
def test_cosine_is_blind_to_scale_and_turns_with_the_sign(seed, scale, negative):
    reference, _ = noisy(seed, 0)
    assert cosine(reference, -scale * reference if negative else scale * reference) == pytest.approx(
        -1 if negative else 1
    )


@checked
@given(seeds)
def test_cosine_is_that_of_the_two_centred_vectors(seed):
    reference, output = np.random.default_rng(seed).normal(3, 2, size=(2, 12, 5))
    a, b = (reference - reference.mean(0)).ravel(), (output - output.mean(0)).ravel()
    assert cosine(reference, output) == pytest.approx(a @ b / np.sqrt(a @ a) / np.sqrt(b @ b))


@checked
@given(logits, st.integers(0, 20))
def test_top1_agreement_counts_the_rows_that_decide_alike(reference, changed):
    output, changed = reference.copy(), min(changed, len(reference))
    rows = np.arange(changed)
    output[rows, (reference[:changed].argmax(1) + 1) % reference.shape[1]] = 1000
    assert top1_agreement(reference, output) == pytest.approx(1 - changed / len(reference))


def test_random_weights_have_no_top1_agreement():
    reference, output = noisy(0, 20)
    assert alone(reference, output, trained=False).top1_agreement is None
    assert alone(reference, output).top1_agreement is not None


def test_fidelity_says_on_how_many_samples():
    assert alone(*noisy(0, 20, samples=33)).samples == 33


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_sqnr_and_cosine_are_those_of_the_output_that_is_farthest(names):
    (close, closer), (far, farther) = noisy(0, 40), noisy(1, 10)
    both = fidelity(
        dict(zip(names, (close, far), strict=True)),
        dict(zip(names, (closer, farther), strict=True)),
        "softmax-sum",
        trained=True,
    )
    assert (both.sqnr_db, both.cosine) == (alone(far, farther).sqnr_db, alone(far, farther).cosine)
    assert both.sqnr_db == pytest.approx(10, abs=0.01)


def test_agreement_is_that_of_the_decision_not_of_either_output():
    reference = {"a": np.array([[4.0, 0.0]], np.float32), "b": np.array([[0.0, 1.0]], np.float32)}
    output = {"a": np.array([[4.0, 0.0]], np.float32), "b": np.array([[0.0, 9.0]], np.float32)}
    assert fidelity(reference, output, "argmax", trained=True).top1_agreement == 1
    assert fidelity(reference, output, "softmax-sum", trained=True).top1_agreement == 0


def test_an_output_that_is_not_a_number_is_not_close_whichever_it_is():
    reference, output = noisy(0, 40)
    for names in (("a", "b"), ("b", "a")):
        outputs = dict(zip(names, (output, np.full_like(output, np.nan)), strict=True))
        found = fidelity(dict.fromkeys(names, reference), outputs, "softmax-sum", trained=True)
        assert np.isnan(found.sqnr_db)
        assert np.isnan(found.cosine)


def test_large_logits_that_a_softmax_hides_count_in_full():
    reference = np.random.default_rng(0).normal(0, 100, size=(50, 4)).astype(np.float32)
    assert alone(reference, 2 * reference).sqnr_db == pytest.approx(0, abs=0.01)


def test_outputs_of_two_shapes_are_not_compared():
    with pytest.raises(UsageError, match=r"shapes \(3, 2\) and \(3, 4\) can't be compared"):
        sqnr_db(np.zeros((3, 2), np.float32), np.zeros((3, 4), np.float32))


@checked
@given(logits, seeds)
def test_accuracy_is_scikit_learns(scores, seed):
    labels = np.random.default_rng(seed).integers(0, scores.shape[1], len(scores))
    found = accuracy(scores, labels)
    assert found.total == len(labels)
    assert found.fraction == pytest.approx(accuracy_score(labels, scores.argmax(1)))


@checked
@given(logits)
def test_softmax_is_the_closed_form_and_does_not_overflow(scores):
    exact = np.exp(scores.astype(np.float64))
    np.testing.assert_allclose(softmax(scores), exact / exact.sum(-1, keepdims=True), rtol=1e-4, atol=1e-7)
    assert np.isfinite(softmax(scores * np.float32(1e4))).all()


def test_argmax_decides_by_the_first_output():
    outputs = {"logits": np.array([[1.0, 2.0]], np.float32), "aux": np.array([[9.0, 0.0]], np.float32)}
    np.testing.assert_array_equal(decide(outputs, "argmax"), outputs["logits"])


def test_softmax_sum_decides_by_all_outputs():
    outputs = {"a": np.array([[0.0, 0.1]], np.float32), "b": np.array([[3.0, 0.0]], np.float32)}
    expected = sum(np.exp(array) / np.exp(array).sum() for array in outputs.values())
    np.testing.assert_allclose(decide(outputs, "softmax-sum"), expected, rtol=1e-6)


class Calls:
    """Counts what `latency` calls, and in which order."""

    def __init__(self, *names: str) -> None:
        self.order: list[str] = []
        self.by_name = {name: wall(lambda name=name: self.order.append(name)) for name in names}


def test_each_call_runs_once_a_round_after_one_warm_up_that_is_not_counted():
    calls = Calls("a", "b", "c")
    found = latency(calls.by_name, batch=1, threads=1, rounds=12)
    assert Counter(calls.order) == {"a": 13, "b": 13, "c": 13}
    assert {one.rounds for one in found.values()} == {12}
    rounds = [calls.order[i : i + 3] for i in range(0, 39, 3)]
    assert all(sorted(names) == ["a", "b", "c"] for names in rounds)


def test_the_order_within_a_round_is_drawn_anew_and_is_the_same_in_every_run():
    first, second = Calls("a", "b", "c"), Calls("a", "b", "c")
    for calls in (first, second):
        latency(calls.by_name, batch=1, threads=1, rounds=12)
    assert first.order == second.order
    assert len({tuple(first.order[i : i + 3]) for i in range(3, 39, 3)}) > 1


def test_a_spent_time_budget_still_gives_five_rounds():
    calls = Calls("a")
    assert latency(calls.by_name, batch=1, threads=1, rounds=30, seconds=0)["a"].rounds == 5
    assert len(calls.order) == 6


def test_fewer_rounds_than_five_are_taken_as_asked():
    assert latency(Calls("a").by_name, batch=1, threads=1, rounds=2)["a"].rounds == 2


def test_median_and_p95_are_those_of_the_times_in_milliseconds(monkeypatch):
    # the clock shows 0, 1, 2, ... hundredths of a second around each of 20 calls
    seconds = [step / 100 for step in range(1, 21)]
    now = 0.0
    durations = iter([0.0, *seconds])

    def work() -> None:
        nonlocal now
        now += next(durations)

    monkeypatch.setattr("qzoo.measure.perf_counter", lambda: now)
    found = latency({"a": wall(work)}, batch=4, threads=2, rounds=20, seconds=1e9)["a"]
    assert found.median_ms == pytest.approx(np.median(seconds) * 1e3)
    assert found.p95_ms == pytest.approx(np.percentile(seconds, 95) * 1e3)
    assert (found.batch, found.threads) == (4, 2)


def test_p95_is_never_below_the_median():
    found = latency({"a": wall(lambda: sum(range(1000)))}, batch=1, threads=1, rounds=15)["a"]
    assert 0 < found.median_ms <= found.p95_ms


@pytest.mark.parametrize("rounds", [0, -3])
def test_no_rounds_are_refused(rounds):
    with pytest.raises(UsageError, match=f"at least 1 round, got {rounds}"):
        latency(Calls("a").by_name, batch=1, threads=1, rounds=rounds)
