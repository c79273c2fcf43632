"""What can be seen of a run before its first step: the pictures as the network will see them, and its first weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pellucid import draw, nets
from pellucid.data.augment import gather
from pellucid.data.batches import WHOLE, Batches, order
from pellucid.data.mix import Mixed, Target
from pellucid.errors import PellucidError
from pellucid.training.sweep import Sweep

#: Pixels of training pictures that a network looks at before its first step, at most: 512 pictures of 32×32.
LOOKED_AT = 2**19

#: Pictures on the sheet: the first of the first batch.
SHEET = 16


def first_variances(model: nn.Module, batches: Batches) -> nets.Variances:
    """How far the weights of each layer spread, and the numbers it makes of the first batch; in training mode."""
    x_nhwc, _ = next(batches.epoch(0))
    x_nchw = batches.preprocess.normalise(x_nhwc, next(model.parameters()).dtype)
    return nets.variances(model.train(), x_nchw)


def look(model: nn.Module, batches: Batches) -> None:
    """Let a network of ours look at training pictures, unchanged, before its first step: `Network.look_at`.

    The same ones for the same seed, so that a resumed run begins with the same network.
    """
    if isinstance(model, nets.Network):
        H, W = batches.preprocess.size
        chosen_n = np.sort(order(batches.seed, 0, len(batches.labels_n))[: max(1, LOOKED_AT // (H * W))])
        x_nhwc = gather(batches.pixels_nhwc, chosen_n, (), batches.seed, 0)
        model.look_at(batches.preprocess.normalise(x_nhwc, torch.float32))


def show_first(folder: Path, batches: Batches, classes: Sequence[str], found: Sweep | None) -> None:
    """Write pictures.png, where pictures are changed at random, and lr.png, where a rate was looked for."""
    try:
        if batches.augment:
            x_nhwc, target = next(dataclasses.replace(batches, batch_size=SHEET, shard=WHOLE).epoch(0))
            texts = captions(target, drawable(classes))[:SHEET]
            draw.contact_sheet(x_nhwc[:SHEET].cpu().numpy(), texts, folder / "pictures.png")
        if found is not None:
            draw.sweep(found.rates, found.losses, found.smoothed, found.suggestion, folder / "lr.png")
    except PellucidError:
        raise
    except Exception:  # noqa: BLE001 - a fault of the drawing library must not cost the run
        return


def drawable(classes: Sequence[str]) -> list[str]:
    """The classes' names; `#3` for number 3 where no font has its letters.

    The same numbers as in confusion.png, so that what the run says about that plot holds for this one too: the sheet by
    itself would count its own captions.
    """
    shown = draw.readable(classes).labels
    return [f"#{k}" if shown[k] == f"#{k}" else name for k, name in enumerate(classes)]


def captions(target: Target, classes: Sequence[str]) -> list[str]:
    """The class of each picture; of a mixture both, the larger share first."""
    if not isinstance(target, Mixed):
        return [classes[label] for label in target.tolist()]
    answer = []
    for own, other, share in zip(*(part.tolist() for part in target), strict=True):
        parts = sorted(((share, classes[own]), (1 - share, classes[other])), reverse=True)
        shown = [f"{name} {part:.0%}" for part, name in parts if round(100 * part)]
        answer.append(classes[own] if own == other or len(shown) == 1 else "\n".join(shown))
    return answer
