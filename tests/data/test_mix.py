from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from torch.nn import functional

from pellucid.data.augment import ORDER, Draws, gather
from pellucid.data.mix import CUTMIX, CUTMIX_PICTURES, MIXUP, Mixed, accuracy, gather_mixed, hits, mixes, plan, targets

BOTH = ("mixup", "cutmix")


def pictures(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(5)).to(torch.uint8)


def test_mixups_share_is_beta_distributed_to_a_65536th() -> None:
    assert MIXUP == 0.2
    n = 6000
    share = plan(Draws(1, 0, np.arange(n)), n, (8, 8), ("mixup",)).share_n
    assert np.array_equal(share * 2**16, np.rint(share * 2**16))
    # Beta(0.2, 0.2) has a twentieth of its weight within half a 65536th of either end: put back what rounding took.
    spread = share + np.random.default_rng(0).uniform(-0.5, 0.5, n) / 2**16
    inner = (spread > 0.001) & (spread < 0.999)
    beta = stats.beta(0.2, 0.2)
    low, high = beta.cdf(0.001), beta.cdf(0.999)
    assert stats.kstest(spread[inner], lambda v: (beta.cdf(v) - low) / (high - low)).pvalue > 1e-3
    assert stats.binomtest(int(inner.sum()), n, high - low).pvalue > 1e-3


def test_the_partner_is_any_picture_and_unrelated_to_the_share() -> None:
    planned = plan(Draws(1, 0, np.arange(8000)), 50, (8, 8), ("mixup",))
    assert stats.chisquare(np.bincount(planned.partner_n, minlength=50)).pvalue > 1e-3
    assert abs(np.corrcoef(planned.partner_n, planned.share_n)[0, 1]) < 0.04


@pytest.mark.parametrize("changes", [("mixup",), ("mixup", "flip", "colour", "cutout")])
def test_mixup_is_the_weighted_mean_of_two_changed_pictures(changes: tuple[str, ...]) -> None:
    pixels = pictures(60, 9, 7, 3)
    labels = torch.arange(60) % 7
    index = np.arange(59, -1, -1)
    x, target = gather_mixed(pixels, labels, index, changes, seed=3, epoch=1, mean=(0.2, 0.3, 0.4))
    planned = plan(Draws(3, 1, index), 60, (9, 7), changes)
    own, other = (gather(pixels, i, changes, 3, 1, (0.2, 0.3, 0.4)).double() for i in (index, planned.partner_n))
    share = torch.from_numpy(planned.share_n)
    weight = share.view(-1, 1, 1, 1)
    exact = weight * own + (1 - weight) * other
    assert x.dtype == torch.uint8
    assert (x.double() - exact).abs().max() <= 0.5
    assert torch.equal(target.labels_n, labels[torch.from_numpy(index)])
    assert torch.equal(target.partner_labels_n, labels[torch.from_numpy(planned.partner_n)])
    assert torch.equal(target.share_n.double(), share)


@pytest.mark.parametrize("size", [(32, 32), (3, 5), (1, 1)])
def test_cutmix_pastes_a_box_whose_area_is_what_the_share_lacks(size: tuple[int, int]) -> None:
    H, W = size
    n = 600
    # Each picture is of one colour, its number, so every pixel tells where it comes from.
    pixels = (torch.arange(n) % 251).to(torch.uint8).view(n, 1, 1, 1).expand(n, H, W, 1).contiguous()
    index = np.arange(n)
    x, target = gather_mixed(pixels, torch.arange(n), index, ("cutmix",), seed=0, epoch=0)
    own = pixels[torch.from_numpy(index)]
    partner = pixels[target.partner_labels_n]
    differs = (own != partner).view(n, -1).any(dim=1)
    pasted = x != own
    assert torch.equal(x[pasted], partner[pasted])
    area = pasted.view(n, -1).sum(dim=1)
    assert torch.equal(area[differs], ((1 - target.share_n.double()) * H * W).round().long()[differs])
    for mask in pasted[differs].numpy()[:, :, :, 0]:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert mask.sum() == len(rows) * len(columns)
        assert mask[rows[:1].repeat(len(columns)), columns].all()


def test_cutmix_is_done_to_half_and_its_boxes_have_the_papers_sides() -> None:
    assert (CUTMIX, CUTMIX_PICTURES) == (1.0, 0.5)
    n = 4000
    planned = plan(Draws(2, 0, np.arange(n)), n, (1000, 1000), ("cutmix",))
    top, bottom, left, right = planned.box_n4.T
    done = planned.box_n4.any(axis=1)
    assert stats.binomtest(int(done.sum()), n, 0.5).pvalue > 1e-3
    assert (planned.share_n[~done] == 1).all()
    # Away from the edges nothing is cut off, and the box is square, of 1 − λ of the area, λ uniform.
    whole = done & (top > 0) & (bottom < 1000) & (left > 0) & (right < 1000)
    assert ((bottom - top) == (right - left))[whole].all()
    # Of sides ≤ s a share (1 − s)² is whole; its distribution follows.
    side = (bottom - top)[whole] / 1000

    def cdf(s: NDArray[np.float64]) -> NDArray[np.float64]:
        # Density 2s·(1 − s)², normalised by ∫ = 1/6.
        return np.asarray(6 * s**2 - 8 * s**3 + 3 * s**4)

    assert stats.kstest(side, cdf).pvalue > 1e-3


def test_with_both_every_picture_is_one_or_the_other() -> None:
    draws = Draws(2, 0, np.arange(2000))
    both, blended, pasted = (plan(draws, 2000, (16, 16), c) for c in (BOTH, ("mixup",), ("cutmix",)))
    cut = both.box_n4.any(axis=1)
    assert 0.4 < cut.mean() < 0.6
    assert np.array_equal(both.box_n4, pasted.box_n4)
    assert np.array_equal(both.share_n[cut], pasted.share_n[cut])
    untouched = both.share_n[~cut] != blended.share_n[~cut]
    # A box can be too small for a single pixel.
    assert untouched.mean() < 0.02


@pytest.mark.parametrize("changes", [("mixup",), ("cutmix",), BOTH, ORDER])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (16, 16)])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_mixture_is_the_same_in_any_batch(changes: tuple[str, ...], size: tuple[int, int], channels: int) -> None:
    pixels, labels = pictures(30, *size, channels), torch.arange(30) % 4
    before = pixels.clone()
    index = np.random.default_rng(0).permutation(30)
    x, target = gather_mixed(pixels, labels, index, changes, seed=8, epoch=4)
    assert torch.equal(pixels, before)
    for i in range(30):
        x_alone, alone = gather_mixed(pixels, labels, index[i : i + 1], tuple(reversed(changes)), seed=8, epoch=4)
        assert torch.equal(x_alone[0], x[i])
        assert all(torch.equal(a[0], t[i]) for a, t in zip(alone, target, strict=True))
    again, _ = gather_mixed(pixels, labels, index, changes, seed=8, epoch=5)
    assert not torch.equal(again, x)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
@pytest.mark.parametrize("channels", [1, 3])
def test_a_gpu_makes_the_same_bits(channels: int) -> None:
    pixels, labels, index = pictures(200, 33, 28, channels), torch.arange(200) % 4, np.arange(200)[::-1].copy()
    for changes in [(name,) for name in ORDER] + [ORDER]:
        x, target = gather_mixed(pixels, labels, index, changes, 3, 1)
        x_there, target_there = gather_mixed(pixels.cuda(), labels.cuda(), index, changes, 3, 1)
        assert torch.equal(x_there.cpu(), x), changes
        assert all(torch.equal(there.cpu(), here) for there, here in zip(target_there, target, strict=True))


def test_a_training_set_of_one_picture_is_mixed_with_itself() -> None:
    pixels = pictures(1, 4, 4, 3)
    for epoch in range(10):
        x, target = gather_mixed(pixels, torch.tensor([3]), np.array([0]), BOTH, 0, epoch)
        assert torch.equal(x, pixels)
        assert target.partner_labels_n.tolist() == [3]


def mixed() -> Mixed:
    return Mixed(torch.tensor([0, 1, 2, 2]), torch.tensor([1, 1, 0, 1]), torch.tensor([0.75, 0.5, 0.25, 1.0]))


def test_targets_are_worked_out_by_hand() -> None:
    expected = [[0.75, 0.25, 0], [0, 1, 0], [0.75, 0, 0.25], [0, 0, 1]]
    assert targets(mixed(), 3).tolist() == expected
    assert targets(mixed(), 3, torch.float64).dtype == torch.float64
    assert targets(torch.tensor([2, 0]), 3).tolist() == [[0, 0, 1], [1, 0, 0]]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_of_the_targets_is_the_weighted_sum_of_two(smoothing: float) -> None:
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target = mixed()
    found = functional.cross_entropy(logits, targets(target, 3, torch.float64), label_smoothing=smoothing)
    own, partner = (
        functional.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing) for labels in target[:2]
    )
    assert torch.allclose(found, (target.share_n * own + (1 - target.share_n) * partner).mean())
    plain = functional.cross_entropy(logits, targets(target.labels_n, 3, torch.float64), label_smoothing=smoothing)
    assert torch.allclose(plain, functional.cross_entropy(logits, target.labels_n, label_smoothing=smoothing))


def test_accuracy_counts_the_share_that_was_found() -> None:
    # Found: 0 (share 0.75 is right), 1 (both are), 1 (neither), 2 (all of it).
    logits = torch.eye(3)[[0, 1, 1, 2]]
    assert hits(logits, mixed()).tolist() == [0.75, 1, 0, 1]
    assert accuracy(logits, mixed()).item() == 2.75 / 4
    assert hits(logits, torch.tensor([0, 1, 2, 2])).tolist() == [1, 1, 0, 1]
    assert accuracy(logits, torch.tensor([0, 1, 2, 2])).item() == 0.75


def test_which_changes_mix() -> None:
    assert mixes(("flip", "mixup"))
    assert mixes(("cutmix",))
    assert not mixes([name for name in ORDER if name not in BOTH])
