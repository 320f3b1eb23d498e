from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from qzoo.data.sampler import choose, choose_apart, sample_list_digest
from qzoo.data.stratify import held_out_digests, shares
from qzoo.errors import DataUnavailable, UsageError
from qzoo.hookspecs import Sample, Split

LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=200)


def make(labels: list[int] | list[None]) -> tuple[Sample, ...]:
    return tuple(
        Sample(f"{index}", hashlib.sha256(str(index).encode()).hexdigest(), label) for index, label in enumerate(labels)
    )


@dataclass
class Listed:
    listed: tuple[Sample, ...]
    name: str = "listed"
    classes: tuple[str, ...] | None = None

    def samples(self, split: Split) -> tuple[Sample, ...]:
        return self.listed if split == "calibration" else ()

    def image(self, sample: Sample) -> Image.Image:
        raise NotImplementedError


@settings(deadline=None)
@given(labels=LABELS, count=st.integers(1, 250), seed=st.integers(0, 5))
def test_each_class_gets_its_proportional_share(labels: list[int], count: int, seed: int):
    chosen = choose(Listed(make(labels)), "calibration", count, seed)
    size = min(count, len(labels))
    got = Counter(sample.label for sample in chosen)
    assert len({sample.id for sample in chosen}) == len(chosen) == size
    assert all(abs(got[label] - size * n / len(labels)) < 1 for label, n in Counter(labels).items())


@settings(deadline=None)
@given(labels=LABELS, count=st.integers(1, 250), apart=st.integers(0, 250), seed=st.integers(0, 5))
def test_samples_apart_are_others_in_proportion_to_the_rest(labels: list[int], count: int, apart: int, seed: int):
    dataset = Listed(make(labels))
    chosen, beside = choose_apart(dataset, "calibration", count, apart, seed)
    assert chosen == choose(dataset, "calibration", count, seed)
    assert not {sample.id for sample in chosen} & {sample.id for sample in beside}
    rest = Counter(labels) - Counter(sample.label for sample in chosen)
    size = min(apart, rest.total())
    got = Counter(sample.label for sample in beside)
    assert len(beside) == len(set(beside)) == size
    assert all(abs(got[label] - size * n / rest.total()) < 1 for label, n in rest.items())


@given(sizes=st.dictionaries(st.integers(0, 9), st.integers(1, 50), min_size=1), data=st.data())
def test_shares_add_up_and_never_exceed_a_class(sizes: dict[int, int], data: st.DataObject):
    count = data.draw(st.integers(0, sum(sizes.values())))
    result = shares(sizes, count)
    assert sum(result.values()) == count
    assert all(0 <= result[key] <= sizes[key] for key in sizes)


def test_the_largest_remainders_are_rounded_up():
    assert shares({"a": 70, "b": 26, "c": 4}, 10) == {"a": 7, "b": 3, "c": 0}


@given(labels=LABELS, data=st.data())
def test_the_held_out_digests_do_not_depend_on_the_order(labels: list[int], data: st.DataObject):
    samples = make(labels)
    count = data.draw(st.integers(0, len(samples)))
    expected = held_out_digests(samples, count)
    assert len(expected) == count
    assert held_out_digests(data.draw(st.permutations(samples)), count) == expected


def test_the_same_seed_chooses_the_same_samples_and_another_seed_others():
    dataset = Listed(make([index % 7 for index in range(500)]))
    assert choose(dataset, "calibration", 50, 1) == choose(dataset, "calibration", 50, 1)
    assert set(choose(dataset, "calibration", 50, 1)) != set(choose(dataset, "calibration", 50, 2))


def test_unlabelled_samples_can_be_chosen():
    assert len(choose(Listed(make([None] * 20)), "calibration", 5, 0)) == 5


def test_classes_are_mixed_not_one_after_the_other():
    chosen = choose(Listed(make([0] * 100 + [1] * 100)), "calibration", 100, 0)
    assert {sample.label for sample in chosen[:20]} == {0, 1}


@pytest.mark.parametrize("count", [0, -3])
def test_a_count_below_one_is_a_usage_error(count: int):
    with pytest.raises(UsageError, match=str(count)):
        choose(Listed(make([0])), "calibration", count, 0)


def test_an_empty_split_is_named():
    with pytest.raises(DataUnavailable, match=r"listed.*held-out"):
        choose(Listed(make([0])), "held-out", 1, 0)


def test_the_digest_of_a_list_sees_every_id_content_and_label():
    base = Sample("a", "1" * 64, 3)
    others = [Sample("b", "1" * 64, 3), Sample("a", "2" * 64, 3), Sample("a", "1" * 64, 4), Sample("a", "1" * 64, None)]
    digests = {sample_list_digest([sample]) for sample in (base, *others)}
    assert len(digests) == 5
    assert sample_list_digest([base]) == sample_list_digest((Sample("a", "1" * 64, 3),))
