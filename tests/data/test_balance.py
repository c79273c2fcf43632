from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.data.balance import Deal

#: Labels of every kind of set: one class alone, classes of one picture, numbers left out, no order.
LABELS = st.lists(st.sampled_from([0, 1, 2, 5, 9]), min_size=1, max_size=60).map(np.array)


@settings(max_examples=200, deadline=None)
@given(labels=LABELS, seed=st.integers(0, 2**32 - 1), epoch=st.integers(0, 50))
def test_every_class_is_drawn_equally_often(labels: np.ndarray, seed: int, epoch: int) -> None:
    index, before = Deal.of(labels).epoch(seed, epoch, len(labels))
    assert len(index) == len(before) == len(labels)
    counts = Counter(labels[index].tolist())
    expected = len(labels) / len(set(labels.tolist()))
    assert all(abs(counts[label] - expected) < 1 for label in set(labels.tolist()))


@settings(max_examples=100, deadline=None)
@given(labels=LABELS, epochs=st.integers(1, 12))
def test_no_picture_is_dealt_again_before_all_of_its_class_are(labels: np.ndarray, epochs: int) -> None:
    deal, n = Deal.of(labels), len(labels)
    drawn = [deal.epoch(3, epoch, n) for epoch in range(epochs)]
    index, before = (np.concatenate(part) for part in zip(*drawn, strict=True))
    for label in set(labels.tolist()):
        members = np.flatnonzero(labels == label)
        counts = np.bincount(index[np.isin(index, members)], minlength=n)[members]
        assert counts.max() - counts.min() <= 1
    # So how often each was dealt before counts from 0, and no picture comes twice with the same number.
    for picture in set(index.tolist()):
        assert sorted(before[index == picture].tolist()) == list(range(int((index == picture).sum())))


def test_an_epoch_follows_from_seed_and_epoch_alone() -> None:
    labels = np.repeat([0, 1], [40, 6])
    deal = Deal.of(labels)
    first = deal.epoch(1, 7, 46)
    assert all(np.array_equal(a, b) for a, b in zip(first, Deal.of(labels).epoch(1, 7, 46), strict=True))
    assert not np.array_equal(first[0], deal.epoch(1, 8, 46)[0])
    assert not np.array_equal(first[0], deal.epoch(2, 7, 46)[0])


def test_each_round_has_an_order_of_its_own() -> None:
    index, before = Deal.of(np.repeat([0, 1], [500, 20])).epoch(0, 0, 520)
    rare = index >= 500
    rounds = [tuple(index[rare & (before == r)].tolist()) for r in range(13)]
    assert all(sorted(found) == list(range(500, 520)) for found in rounds)
    assert len(set(rounds)) == 13
    # Any picture of the class may come first.
    firsts = {Deal.of(np.repeat([0, 1], [4, 4])).epoch(seed, 0, 8)[0][0] for seed in range(60)}
    assert firsts == {0, 1, 2, 3}


def test_a_class_is_picked_before_its_picture() -> None:
    deal = Deal.of(np.array([4, 0, 4, 4, 2, 4]))
    assert deal.pick(np.array([0.0, 0.3333, 0.3334, 0.6666, 0.67, 0.76, 0.999999])).tolist() == [1, 1, 4, 4, 0, 2, 5]
    picked = deal.pick((np.arange(1200) + 0.5) / 1200)
    assert np.bincount(picked).tolist() == [100, 400, 100, 100, 400, 100]


@pytest.mark.parametrize("unit", [0.0, np.nextafter(1, 0)])
def test_numbers_at_the_ends_are_pictures(unit: float) -> None:
    for classes in range(1, 60):
        labels = np.repeat(np.arange(classes), 3)
        assert Deal.of(labels).pick(np.array([unit]))[0] in {0, len(labels) - 1}
