from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pellucid.data.augment import gather
from pellucid.data.batches import Batches, Shard, cuts, order, pieces
from pellucid.data.mix import Mixed, gather_mixed
from pellucid.data.preprocess import Preprocess


@given(st.integers(1, 2000), st.integers(1, 300))
def test_cuts_cover_every_picture_once_in_full_batches(n: int, batch_size: int) -> None:
    slices = cuts(n, batch_size)
    assert [i for cut in slices for i in range(n)[cut]] == list(range(n))
    sizes = [cut.stop - cut.start for cut in slices]
    assert all(size == batch_size for size in sizes[:-1])
    assert 1 <= sizes[-1] <= batch_size + 1
    if batch_size > 1 and n > 1:
        assert min(sizes) > 1


@given(st.integers(1, 2000), st.integers(1, 300), st.integers(1, 7))
def test_shards_cover_every_batch_once_and_leave_nobody_a_single_picture(n: int, batch_size: int, of: int) -> None:
    whole = cuts(n, batch_size, of)
    parts = [pieces(cut.stop - cut.start, of, cut.start) for cut in whole]
    assert [i for shards in parts for part in shards for i in range(n)[part]] == list(range(n))
    for shards in parts:
        sizes = [part.stop - part.start for part in shards]
        assert max(sizes) - min(sizes) <= 1
        if batch_size >= 2 * of <= n:
            assert min(sizes) >= 2
    # Where no remainder is too small, the batches are those of one process.
    if batch_size >= 2 * of and (n % batch_size == 0 or n % batch_size >= 2 * of):
        assert whole == cuts(n, batch_size)


@pytest.mark.parametrize("changes", [("flip", "shift"), ("mixup",), ("cutmix", "crop")])
@pytest.mark.parametrize("balanced", [False, True])
def test_a_shards_pictures_are_what_they_are_in_the_whole_batch(changes: tuple[str, ...], balanced: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (53, 8, 8, 3), generator=generator).to(torch.uint8)
    labels = torch.randint(0, 3, (53,), generator=generator)
    preprocess = Preprocess(size=(8, 8), resize="crop", channels=3, mean=(0.4,) * 3, std=(1.0,) * 3)
    # 53 = 3·14 + 11, and 11 pictures are enough for three.
    alone, *shards = (
        Batches(pixels, labels, preprocess, changes, 14, 5, balanced, shard)
        for shard in (Shard(0, 1), *(Shard(number, 3) for number in range(3)))
    )
    for epoch in (0, 4):
        for (x, y), whole, *parts in zip(
            alone.epoch(epoch), shards[0].labels(epoch), *(shard.epoch(epoch) for shard in shards), strict=True
        ):
            assert torch.equal(x, torch.cat([part for part, _ in parts]))
            if isinstance(y, Mixed):
                for i, column in enumerate(y):
                    assert torch.equal(column, torch.cat([target[i] for _, target in parts]))
            else:
                assert torch.equal(y, torch.cat([target for _, target in parts]))
            assert torch.equal(whole, y.labels_n if isinstance(y, Mixed) else y)


def test_an_epoch_is_a_permutation_of_its_own() -> None:
    first, second = order(0, 0, 100), order(0, 1, 100)
    assert sorted(first) == list(range(100))
    assert not np.array_equal(first, second)
    assert np.array_equal(first, order(0, 0, 100))
    assert not np.array_equal(first, order(1, 0, 100))


def batches(n: int = 10, *augment: str) -> Batches:
    pixels = torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1).repeat(1, 4, 4, 1)
    preprocess = Preprocess(size=(4, 4), resize="crop", channels=1, mean=(0.4,), std=(1.0,))
    return Batches(pixels, torch.arange(n), preprocess, augment or ("flip", "shift"), batch_size=4, seed=0)


def test_a_picture_keeps_its_label() -> None:
    for x_nhwc, labels_n in batches().epoch(0):
        assert isinstance(labels_n, torch.Tensor)
        assert torch.equal(x_nhwc[:, 0, 0, 0].long(), labels_n)


def test_an_epoch_taken_up_in_the_middle_goes_on_as_it_would_have() -> None:
    whole = list(batches().epoch(2))
    assert len(whole) == len(batches()) == 3
    for (x, y), (x_again, y_again) in zip(whole[1:], batches().epoch(2, first=1), strict=True):
        assert isinstance(y, torch.Tensor)
        assert isinstance(y_again, torch.Tensor)
        assert torch.equal(x, x_again)
        assert torch.equal(y, y_again)


@pytest.mark.parametrize("change", ["mixup", "cutmix"])
def test_mixed_batches_say_what_they_are_mixed_of(change: str) -> None:
    drawn = batches(10, "flip", change)
    order_n = order(0, 3, 10)
    for (x_nhwc, target), cut in zip(drawn.epoch(3), cuts(10, 4), strict=True):
        x, expected = gather_mixed(drawn.pixels_nhwc, drawn.labels_n, order_n[cut], ("flip", change), 0, 3, (0.4,))
        assert torch.equal(x_nhwc, x)
        assert isinstance(target, Mixed)
        assert all(torch.equal(a, b) for a, b in zip(target, expected, strict=True))
        assert torch.equal(target.labels_n, torch.from_numpy(order_n[cut]))


def test_what_cutout_leaves_is_the_mean_of_the_pictures() -> None:
    x_nhwc, _ = next(batches(4, "cutout").epoch(0))
    assert (x_nhwc == 102).sum() == 4  # one pixel of each 4×4: 0.4 · 255


class Fetched:
    """The pictures of `batches`, fetched when they are wanted."""

    def __init__(self, pixels: torch.Tensor) -> None:
        self.pixels = pixels.numpy()
        self.asked: list[int] = []

    @property
    def shape(self) -> tuple[int, ...]:
        return self.pixels.shape

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, which: slice, /) -> NDArray[np.uint8]:
        return self.pixels[which]

    def take(self, index_n: NDArray[np.int64]) -> NDArray[np.uint8]:
        self.asked += index_n.tolist()
        return self.pixels[index_n]


@pytest.mark.parametrize(
    "augment", [("flip", "shift"), ("crop", "rotate", "trivial", "noise"), ("mixup", "cutmix", "flip")]
)
def test_pictures_fetched_when_wanted_give_the_same_batches(augment: tuple[str, ...]) -> None:
    n = 30
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (n, 12, 12, 3), dtype=torch.uint8, generator=generator)
    preprocess = Preprocess(size=(12, 12), resize="crop", channels=3, mean=(0.4,) * 3, std=(1.0,) * 3)
    fetched = Fetched(pixels)
    for epoch in range(3):
        both = (
            Batches(given, torch.arange(n), preprocess, augment, batch_size=7, seed=3).epoch(epoch)
            for given in (pixels, fetched)
        )
        for (x_nhwc, target), (again_nhwc, other) in zip(*both, strict=True):
            assert torch.equal(x_nhwc, again_nhwc)
            assert all(torch.equal(a, b) for a, b in zip(target, other, strict=True))
    assert set(fetched.asked) == set(range(n))


def lopsided(*augment: str, batch_size: int = 8, n: int = 64) -> Batches:
    """Noise, a class of 4 pictures and one of all the others."""
    pixels = torch.randint(0, 256, (n, 8, 8, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    preprocess = Preprocess(size=(8, 8), resize="crop", channels=1, mean=(0.4,), std=(1.0,))
    labels = (torch.arange(n) < 4).long()
    return Batches(pixels, labels, preprocess, augment, batch_size=batch_size, seed=5, balanced=True)


def test_balanced_an_epoch_has_as_many_pictures_and_each_class_as_often() -> None:
    drawn = lopsided()
    for epoch in range(3):
        steps = list(drawn.epoch(epoch))
        assert len(steps) == len(drawn) == 8
        labels = torch.cat([target for _, target in steps if isinstance(target, torch.Tensor)])
        assert torch.bincount(labels).tolist() == [32, 32]
        # Mixed, not class after class.
        assert all(0 < int(target.sum()) < 8 for _, target in steps if isinstance(target, torch.Tensor))


def test_balanced_batches_are_cut_and_taken_up_anywhere() -> None:
    for changes in ((), ("shift", "noise"), ("mixup",)):
        whole = list(lopsided(*changes).epoch(2))
        again = list(lopsided(*changes).epoch(2, first=3))
        assert all(torch.equal(x, y) for (x, _), (y, _) in zip(whole[3:], again, strict=True))
        other = torch.cat([x for x, _ in lopsided(*changes, batch_size=5).epoch(2)])
        assert torch.equal(torch.cat([x for x, _ in whole]), other)


def test_a_picture_drawn_again_in_an_epoch_is_changed_anew() -> None:
    drawn = lopsided("shift", "noise")
    index_n, before_n = drawn.drawn(0)
    assert isinstance(before_n, np.ndarray)
    x_nhwc = torch.cat([x for x, _ in drawn.epoch(0)])
    same = x_nhwc[torch.from_numpy(index_n == 2)]
    assert len(same) == 8
    assert len({picture.numpy().tobytes() for picture in same}) == 8
    # What it is changed into is what any run makes of it when it is seen for that time.
    for at in range(len(index_n)):
        alone = gather(drawn.pixels_nhwc, index_n[at : at + 1], drawn.augment, 5, int(before_n[at]), (0.4,))
        assert torch.equal(x_nhwc[at], alone[0])


def test_second_pictures_of_a_mixture_are_balanced_too() -> None:
    labels = []
    for epoch in range(30):
        for _, target in lopsided("mixup").epoch(epoch):
            assert isinstance(target, Mixed)
            labels.append(target.partner_labels_n)
    assert abs(float(torch.cat(labels).float().mean()) - 0.5) < 0.05
