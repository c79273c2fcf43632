"""Every class drawn equally often, however many pictures it has: `--balance sample`.

All pictures of a class are dealt, in random order, before one is dealt again, over the whole run and not the epoch
alone: so a large class is seen whole in a few epochs, and a small one several times in each. Everything follows from
(seed, epoch), so an epoch can be taken up anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pellucid.data.augment.draws import Stream, uniform


@dataclass(frozen=True, eq=False)
class Deal:
    """The pictures of each class that has any."""

    members: tuple[NDArray[np.int64], ...]
    """Places in the training set, in ascending order, class by class."""

    @classmethod
    def of(cls, labels_n: NDArray[np.int64]) -> Self:
        """The deal of a training set with these labels.

        >>> Deal.of(np.array([1, 0, 1, 3])).members
        (array([1]), array([0, 2]), array([3]))
        """
        order_n = np.argsort(labels_n, kind="stable")
        starts = np.flatnonzero(np.diff(labels_n[order_n])) + 1
        return cls(tuple(np.split(order_n, starts)))

    def epoch(self, seed: int, epoch: int, n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The `n` pictures of an epoch, class after class, and how often each was dealt before.

        Two classes differ by one picture at most, and not always the same ones have it.
        """
        K = len(self.members)
        index, seen = [], []
        for k, members in enumerate(self.members):
            # Place t of the run belongs to class t mod K; these are the class's own places, counted from the start.
            first, last = (-(-(epoch * n - k) // K), -(-((epoch + 1) * n - k) // K))
            dealt, before = _dealt(seed, members, first, last)
            index.append(dealt)
            seen.append(before)
        return np.concatenate(index), np.concatenate(seen)

    def pick(self, unit_n: NDArray[np.float64]) -> NDArray[np.int64]:
        """The picture that each number in [0, 1) stands for: all classes equally likely, and all pictures of one."""
        K = len(self.members)
        class_n = np.floor(unit_n * K).astype(np.int64)
        sizes_k = np.array([len(members) for members in self.members])
        starts_k = np.cumsum(sizes_k) - sizes_k
        within_n = np.floor((unit_n * K - class_n) * sizes_k[class_n]).astype(np.int64)
        return np.asarray(np.concatenate(self.members)[starts_k[class_n] + within_n], np.int64)


def _dealt(seed: int, members: NDArray[np.int64], first: int, last: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Deals `first` to `last` (not included) of a class without end: each round is a permutation of its own."""
    size = len(members)
    rounds_r = np.arange(first // size, -(-last // size))
    keys_rn = uniform(seed, np.repeat(rounds_r, size), np.tile(members, len(rounds_r)), Stream.DEAL)
    order_rn = np.argsort(keys_rn.reshape(-1, size), axis=1, kind="stable")
    dealt = members[order_rn].reshape(-1)
    before = np.repeat(rounds_r, size)
    start = first - first // size * size
    return dealt[start : start + last - first], before[start : start + last - first]
