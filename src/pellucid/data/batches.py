"""Pictures as uint8, in memory or mapped into it, handed out in shuffled, augmented batches.

No worker processes: gathering a batch of decoded pictures is a few per cent of the step that follows it, and a process
that starts, copies and waits costs more than that.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pellucid.data.augment import gather
from pellucid.data.augment.draws import of_some
from pellucid.data.balance import Deal
from pellucid.data.images import Lazy
from pellucid.data.mix import Target, gather_mixed, mixes
from pellucid.data.preprocess import Preprocess


def order(seed: int, epoch: int, n: int) -> NDArray[np.int64]:
    """The order in which an epoch sees its `n` pictures: a permutation fixed by seed and epoch."""
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(n)


class Shard(NamedTuple):
    """Which part of every batch a process takes."""

    number: int
    """From 0."""
    of: int


#: One process takes all of it.
WHOLE = Shard(0, 1)


def cuts(n: int, batch_size: int, processes: int = 1) -> list[slice]:
    """Where an epoch of `n` pictures is cut into batches, each of which so many processes share.

    A remainder that would leave a process a single picture joins the batch before it: batch normalisation has no spread
    to divide by in a batch of one.

    >>> cuts(5, 2)
    [slice(0, 2, None), slice(2, 5, None)]
    """
    starts = list(range(0, n, batch_size))
    if len(starts) > 1 and batch_size > 1 and n - starts[-1] < 2 * processes:
        starts.pop()
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], n], strict=True)]


def pieces(n: int, count: int, start: int = 0) -> list[slice]:
    """`n` pictures from `start` on in `count` consecutive pieces, whose sizes differ by one at most.

    >>> pieces(5, 2)
    [slice(0, 2, None), slice(2, 5, None)]
    """
    edges = [start + n * i // count for i in range(count + 1)]
    return [slice(first, stop) for first, stop in itertools.pairwise(edges)]


@dataclass(frozen=True)
class Batches:
    """The training pictures, ready to be drawn in batches."""

    pixels_nhwc: torch.Tensor | Lazy
    """uint8, on the device that trains; or fetched when they are wanted, where they are more than memory holds."""
    labels_n: torch.Tensor
    """int64, on the device that trains."""
    preprocess: Preprocess
    augment: tuple[str, ...]
    batch_size: int
    seed: int
    balanced: bool = False
    """Whether each class is drawn equally often; an epoch is then as many pictures, but some of them twice."""
    shard: Shard = WHOLE
    """What of every batch is handed out here."""

    @cached_property
    def deal(self) -> Deal | None:
        """What is drawn from, where classes are balanced."""
        return Deal.of(self.labels_n.cpu().numpy()) if self.balanced else None

    def drawn(self, epoch: int) -> tuple[NDArray[np.int64], int | NDArray[np.int64]]:
        """The pictures of an epoch in their order, and the epoch that their random changes are of.

        Where classes are balanced that is, for each, how often it was drawn before: no two times alike.
        """
        n = len(self.labels_n)
        order_n = order(self.seed, epoch, n)
        if self.deal is None:
            return order_n, epoch
        index_n, before_n = self.deal.epoch(self.seed, epoch, n)
        return index_n[order_n], before_n[order_n]

    @property
    def device(self) -> torch.device:
        """The device that trains."""
        return self.labels_n.device

    def __len__(self) -> int:
        """Steps in an epoch."""
        return len(self._cuts())

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[torch.Tensor, Target]]:
        """The epoch's batches from step `first` on: uint8 NHWC pictures, and their labels; of each its shard.

        Where mixup or cutmix is among the changes, `Mixed` stands for the labels.
        """
        order_n, look = self.drawn(epoch)
        for whole in self._cuts()[first:]:
            cut = pieces(whole.stop - whole.start, self.shard.of, whole.start)[self.shard.number]
            yield self._made(order_n[cut], of_some(look, cut))

    def members(self, epoch: int, number: int) -> NDArray[np.int64]:
        """The pictures of one batch of an epoch, whatever part of it this process takes."""
        return self.drawn(epoch)[0][self._cuts()[number]]

    def whole(self, epoch: int, number: int) -> torch.Tensor:
        """How they look: uint8 NHWC."""
        order_n, look = self.drawn(epoch)
        cut = self._cuts()[number]
        return self._made(order_n[cut], of_some(look, cut))[0]

    def _made(self, index_n: NDArray[np.int64], when: int | NDArray[np.int64]) -> tuple[torch.Tensor, Target]:
        mean = self.preprocess.mean
        if mixes(self.augment):
            x_nhwc, mixed = gather_mixed(
                self.pixels_nhwc, self.labels_n, index_n, self.augment, self.seed, when, mean, self.deal
            )
            return x_nhwc.to(self.device), mixed
        x_nhwc = gather(self.pixels_nhwc, index_n, self.augment, self.seed, when, mean)
        return x_nhwc.to(self.device), self.labels_n.index_select(0, torch.from_numpy(index_n).to(self.device))

    def labels(self, epoch: int, first: int = 0) -> Iterator[torch.Tensor]:
        """The labels of the whole batches that `epoch` hands out shards of."""
        order_n, _ = self.drawn(epoch)
        for whole in self._cuts()[first:]:
            yield self.labels_n.index_select(0, torch.from_numpy(order_n[whole]).to(self.device))

    def _cuts(self) -> list[slice]:
        return cuts(len(self.labels_n), self.batch_size, self.shard.of)
