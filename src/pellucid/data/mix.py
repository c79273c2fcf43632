"""Pictures mixed with a second one, labels and all: mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019).

The second picture, how much of it and where follow from (seed, epoch, index of the picture), as every other change
does. It is any picture of the training set, not of the batch, and is changed as it would be by itself. So the batch
makes no difference; the price is that second pictures are drawn and changed too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from pellucid.data.augment import GREY, gather
from pellucid.data.augment.draws import Draws, Stream, of_some
from pellucid.data.augment.geometry import rounded
from pellucid.data.augment.pixels import inside, per_picture, span
from pellucid.data.balance import Deal
from pellucid.data.images import Lazy

#: Mixup's λ is distributed as Beta(MIXUP, MIXUP). Small: most pictures stay nearly what they are.
MIXUP = 0.2

#: CutMix's λ is distributed as Beta(CUTMIX, CUTMIX): the paper's choice, all shares equally likely.
CUTMIX = 1.0

#: Share of the pictures that CutMix is done to. With mixup named as well, the others are mixed up.
CUTMIX_PICTURES = 0.5

# Shares of mixup are whole 65536ths: times a grey level still exact in float32, so the rounding is too.
_WHOLE = 2**16


class Mixed(NamedTuple):
    """What mixed pictures show. A tuple of three, so count its pictures as `len(target.labels_n)`."""

    labels_n: torch.Tensor
    """Each picture's own label: int64."""
    partner_labels_n: torch.Tensor
    """The label of the picture mixed into it: int64."""
    share_n: torch.Tensor
    """How much of its own is left, from 0 to 1: float32. 1 where nothing was mixed in."""


#: What a batch is to be recognised as: a label for each picture, or a mixture of two.
Target: TypeAlias = torch.Tensor | Mixed


class Plan(NamedTuple):
    """What will be mixed into each picture."""

    partner_n: NDArray[np.int64]
    """The second picture, as a place in the training set."""
    share_n: NDArray[np.float64]
    """How much is left of the first: exactly what the pixels will show."""
    box_n4: NDArray[np.int64]
    """Top, bottom, left, right (ends not included) of what CutMix replaces; empty where it does nothing."""


def mixes(changes: Sequence[str]) -> bool:
    """Whether any of these changes mixes pictures."""
    return "mixup" in changes or "cutmix" in changes


def plan(draws: Draws, pictures: int, size: tuple[int, int], changes: Sequence[str], deal: Deal | None = None) -> Plan:
    """What is mixed into each picture of a training set of so many, of this height and width.

    Any picture alike, or with `deal` any class alike.
    """
    N = len(draws.index_n)
    unit_n = draws.unit(Stream.PARTNER)
    partner_n = np.floor(unit_n * pictures).astype(np.int64) if deal is None else deal.pick(unit_n)
    share_n = np.ones(N)
    box_n4 = np.zeros((N, 4), np.int64)
    if "mixup" in changes:
        share_n = np.rint(draws.beta(Stream.MIXUP_SHARE, MIXUP) * _WHOLE) / _WHOLE
    if "cutmix" in changes:
        cut_n = draws.unit(Stream.CUTMIX_COIN) < CUTMIX_PICTURES
        boxes_n4 = _boxes(draws, size)
        area_n = (boxes_n4[:, 1] - boxes_n4[:, 0]) * (boxes_n4[:, 3] - boxes_n4[:, 2])
        box_n4 = np.where(cut_n[:, None], boxes_n4, 0)
        share_n = np.where(cut_n, 1 - area_n / (size[0] * size[1]), share_n)
    return Plan(partner_n, share_n, box_n4)


def _boxes(draws: Draws, size: tuple[int, int]) -> NDArray[np.int64]:
    """Boxes of 1 − λ of the area about a pixel anywhere, cut at the picture's edges, as in the paper."""
    root_n = np.sqrt(1 - draws.beta(Stream.CUTMIX_SHARE, CUTMIX))
    sides = []
    for stream, side in zip((Stream.CUTMIX_Y, Stream.CUTMIX_X), size, strict=True):
        middle_n = np.floor(draws.unit(stream) * side).astype(np.int64)
        sides += [*span(middle_n, np.rint(side * root_n).astype(np.int64), side)]
    return np.stack(sides, axis=1)


def gather_mixed(
    pixels_nhwc: torch.Tensor | Lazy,
    labels_n: torch.Tensor,
    index_n: NDArray[np.int64],
    changes: Sequence[str],
    seed: int,
    epoch: int | NDArray[np.int64],
    mean: Sequence[float] = GREY,
    deal: Deal | None = None,
) -> tuple[torch.Tensor, Mixed]:
    """The pictures at `index_n`, changed and mixed (uint8 NHWC), and what they show; arguments as for `gather`.

    `deal` is as for `plan`; `pixels_nhwc` and `labels_n` are the whole training set's. Mixtures are rounded to grey
    levels, as files are: the network sees an error of 0.3 levels where the pictures themselves vary by fifty.
    """
    N, H, W, _ = pixels_nhwc.shape
    planned = plan(Draws(seed, epoch, index_n), N, (H, W), changes, deal)
    x_nhwc = gather(pixels_nhwc, index_n, changes, seed, epoch, mean)
    device = x_nhwc.device
    is_cut_n = planned.box_n4.any(axis=1)
    for which_n, mix in ((is_cut_n, _pasted), (~is_cut_n, _blended)):
        chosen_n = np.flatnonzero(which_n & (planned.share_n < 1))
        if len(chosen_n):
            their_epoch = of_some(epoch, chosen_n)
            other_nhwc = gather(pixels_nhwc, planned.partner_n[chosen_n], changes, seed, their_epoch, mean)
            place_n = torch.from_numpy(chosen_n).to(device)
            part = Plan(planned.partner_n[chosen_n], planned.share_n[chosen_n], planned.box_n4[chosen_n])
            x_nhwc.index_copy_(0, place_n, mix(x_nhwc.index_select(0, place_n), other_nhwc, part))
    own_n, partner_n = (
        labels_n.index_select(0, torch.from_numpy(array).to(labels_n.device)) for array in (index_n, planned.partner_n)
    )
    share_n = torch.from_numpy(planned.share_n.astype(np.float32)).to(labels_n.device)
    return x_nhwc, Mixed(own_n, partner_n, share_n)


def _blended(x_nhwc: torch.Tensor, other_nhwc: torch.Tensor, part: Plan) -> torch.Tensor:
    whole_n = part.share_n * _WHOLE
    own = x_nhwc.float().mul_(per_picture(whole_n, x_nhwc))
    return rounded(own.add_(other_nhwc.float().mul_(per_picture(_WHOLE - whole_n, x_nhwc))), 16)


def _pasted(x_nhwc: torch.Tensor, other_nhwc: torch.Tensor, part: Plan) -> torch.Tensor:
    H, W = x_nhwc.shape[1:3]
    top_n, bottom_n, left_n, right_n = part.box_n4.T
    rows_nh, columns_nw = inside(top_n, bottom_n, H, x_nhwc.device), inside(left_n, right_n, W, x_nhwc.device)
    return torch.where((rows_nh.unsqueeze(2) & columns_nw.unsqueeze(1)).unsqueeze(3), other_nhwc, x_nhwc)


def part_of(target: Target, which: slice) -> Target:
    """What some consecutive pictures of a batch are to be recognised as."""
    return Mixed(*(column_n[which] for column_n in target)) if isinstance(target, Mixed) else target[which]


def targets(target: Target, classes: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """What the softmax should be: (N, classes), rows that sum to 1; as torch's cross-entropy takes them."""
    if not isinstance(target, Mixed):
        return torch.nn.functional.one_hot(target, classes).to(dtype)
    share_n1 = target.share_n.to(dtype).unsqueeze(1)
    own_nk, partner_nk = (
        torch.nn.functional.one_hot(labels_n, classes).to(dtype)
        for labels_n in (target.labels_n, target.partner_labels_n)
    )
    return share_n1 * own_nk + (1 - share_n1) * partner_nk


def hits(logits_nk: torch.Tensor, target: Target) -> torch.Tensor:
    """How right each most likely class is: 1 or 0, and for a mixture the share of what it names. Float32 (N,)."""
    found_n = logits_nk.argmax(1)
    if not isinstance(target, Mixed):
        return (found_n == target).float()
    own_n, partner_n = (found_n == target.labels_n).float(), (found_n == target.partner_labels_n).float()
    return target.share_n * own_n + (1 - target.share_n) * partner_n


def accuracy(logits_nk: torch.Tensor, target: Target) -> torch.Tensor:
    """Mean of `hits`. Of mixtures the best is the mean of the larger shares, which is below 1."""
    return hits(logits_nk, target).mean()
